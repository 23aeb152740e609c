//! Reviews of images that are in memory: how many a second, and how long they take, as ratios to the floor and to nginx.
//!
//! `bench/warm [SECONDS] [ROUNDS]` builds and runs it. The three servers are measured in turns, for so many seconds each and so many rounds;
//! a figure is the median of the rounds' ratios. wrk asks over HTTP/1.1, with one thread and 16 connections; h2load over HTTP/2, with four
//! connections of four requests each, and at half load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_bench::{Case, Problem, World, built};
use countersign_tests::{Countersign, Part, free_port, run};
use rustix::process::{Pid, Signal, kill_process};

/// How many requests are under way at once.
const CONNECTIONS: u32 = 16;

/// The servers, in the order in which they are measured.
const SERVERS: [&str; 3] = ["countersign", "floor", "nginx"];

/// Everything that is measured.
struct Measured {
    world: World,
    served: Countersign,
    cases: Vec<Case>,
    /// Addresses in the order of [`SERVERS`].
    urls: [String; 3],
    _floor: Part,
    _nginx: Nginx,
}

impl Measured {
    fn start() -> Result<Self, Problem> {
        let world = World::make()?;
        let served = world.serve()?;
        let cases = Case::all(&served)?;
        let answers = world.folder.path().join("answers");
        fs::create_dir(&answers)?;
        for case in &cases {
            fs::write(answers.join(case.name), &case.answer)?;
            fs::write(world.folder.path().join(format!("{}.json", case.name)), &case.body)?;
            let body = world.folder.path().join(format!("{}.json", case.name));
            fs::write(world.folder.path().join(format!("{}.lua", case.name)), script(&body))?;
        }
        let (floor_port, nginx_port) = (free_port()?, free_port()?);
        let mut floor = Command::new(built()?.join("floor"));
        floor.arg(floor_port.to_string()).arg(&world.ca.certificate).arg(&world.ca.key).arg(&answers);
        let mut floor = Part::start("floor", &mut floor, world.folder.path())?;
        floor.listening_on(floor_port)?;
        let configuration = world.folder.path().join("nginx.conf");
        fs::write(&configuration, nginx(&world, nginx_port, &cases)?)?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(&configuration).arg("-e").arg(world.folder.path().join("nginx-errors.log"));
        let mut nginx = Part::start("nginx", &mut nginx, world.folder.path())?;
        nginx.listening_on(nginx_port)?;
        let nginx = Nginx(nginx);
        let urls = [served.port, floor_port, nginx_port].map(|port| format!("https://127.0.0.1:{port}"));
        Ok(Self { world, served, cases, urls, _floor: floor, _nginx: nginx })
    }

    /// Where a case is asked of a server: the others have an answer for each.
    fn url(&self, server: usize, case: &Case) -> String {
        let path = if server == 0 { case.path.to_owned() } else { format!("/{}", case.name) };
        format!("{}{path}", self.urls[server])
    }

    fn file(&self, case: &Case, suffix: &str) -> PathBuf {
        self.world.folder.path().join(format!("{}.{suffix}", case.name))
    }

    /// Reviews a second over HTTP/1.1 at full load.
    fn http1(&self, server: usize, case: &Case, seconds: u32) -> Result<f64, Problem> {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "-s"]);
        wrk.arg(self.file(case, "lua")).arg(self.url(server, case));
        let told = run(&mut wrk)?;
        if told.code != 0 || told.stdout.contains("Non-2xx") || told.stdout.contains("Socket errors") {
            return Err(format!("{}: {told:?}", SERVERS[server]).into());
        }
        figure(&told.stdout, "Requests/sec:")
    }

    /// Reviews a second over HTTP/2 at full load.
    fn http2(&self, server: usize, case: &Case, seconds: u32) -> Result<f64, Problem> {
        let told = self.h2load(server, case, &["-c4", "-m4", &format!("-D{seconds}")])?;
        let line = told.lines().find(|line| line.starts_with("finished in")).ok_or("h2load tells no rate")?;
        let rate = line.split(", ").find_map(|part| part.strip_suffix(" req/s")).ok_or("h2load tells no rate")?;
        Ok(rate.parse()?)
    }

    /// How long reviews take over HTTP/1.1 at a rate, in microseconds: the median, and that of which one in a hundred takes longer.
    fn latency(&self, server: usize, case: &Case, seconds: u32, rate: f64) -> Result<(f64, f64), Problem> {
        let log = self.world.folder.path().join("latencies");
        let _ = fs::remove_file(&log);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred a second")]
        let each = (rate / f64::from(CONNECTIONS)).max(1.0) as u32;
        let rates = [&format!("-c{CONNECTIONS}"), &format!("-D{seconds}"), &format!("--rps={each}")];
        let path = format!("--log-file={}", log.display());
        self.h2load(server, case, &[&["--h1", &path][..], &rates.map(String::as_str)].concat())?;
        // `when status microseconds` a line.
        let text = fs::read_to_string(&log)?;
        let mut took: Vec<f64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
        took.sort_by(f64::total_cmp);
        let at = |part: usize| took.get(took.len() * part / 100).copied().ok_or("h2load writes no times");
        Ok((at(50)?, at(99)?))
    }

    fn h2load(&self, server: usize, case: &Case, arguments: &[&str]) -> Result<String, Problem> {
        let mut h2load = Command::new("h2load");
        h2load.arg("-t1").args(arguments).arg("-d").arg(self.file(case, "json"));
        h2load.args(["-H", "Content-Type: application/json"]).arg(self.url(server, case));
        let told = run(&mut h2load)?;
        // Those under way when the time is over may count as failed.
        let failed = told.stdout.split(", ").find_map(|part| part.strip_suffix(" failed")?.parse::<u32>().ok());
        let all_2xx = told.stdout.contains("2xx, 0 3xx, 0 4xx, 0 5xx");
        if told.code == 0 && all_2xx && failed.is_some_and(|failed| failed <= CONNECTIONS) {
            return Ok(told.stdout);
        }
        Err(format!("{}: {told:?}", SERVERS[server]).into())
    }

    /// Measures the servers in turns, and gives what each came to in each round.
    fn rounds(&self, rounds: u32, one: impl Fn(usize) -> Result<f64, Problem>) -> Result<Rounds, Problem> {
        let mut all = Vec::new();
        for _ in 0..rounds {
            all.push([one(0)?, one(1)?, one(2)?]);
            // It would be gigabytes.
            fs::OpenOptions::new().write(true).open(self.world.log())?.set_len(0)?;
        }
        Ok(Rounds(all))
    }
}

/// Where its first process is killed, nginx leaves its workers; told to end, it ends them.
struct Nginx(Part);

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(id) = self.0.id().try_into().ok().and_then(Pid::from_raw)
            && kill_process(id, Signal::TERM).is_ok()
        {
            let _ = self.0.ended();
        }
    }
}

/// What the servers came to in each round.
struct Rounds(Vec<[f64; 3]>);

impl Rounds {
    fn of(&self, server: usize) -> f64 {
        median(self.0.iter().map(|round| round[server]))
    }

    /// The median of the rounds' ratios of Countersign to another one.
    fn ratio(&self, server: usize) -> f64 {
        median(self.0.iter().map(|round| round[0] / round[server]))
    }

    fn line(&self, what: &str) -> String {
        let [ours, floor, nginx] = [0, 1, 2].map(|server| self.of(server));
        let (of_floor, of_nginx) = (self.ratio(1), self.ratio(2));
        format!("{what:<30} {ours:>8.0} {floor:>8.0} {nginx:>8.0}   {of_floor:>6.2} {of_nginx:>6.2}")
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The number behind a word.
fn figure(text: &str, word: &str) -> Result<f64, Problem> {
    let number = text.lines().find_map(|line| line.trim().strip_prefix(word)).ok_or_else(|| format!("no {word}"))?;
    Ok(number.trim().parse()?)
}

/// What wrk sends.
fn script(body: &Path) -> String {
    format!(
        "wrk.method = \"POST\"\nlocal file = io.open(\"{}\", \"rb\")\nwrk.body = file:read(\"*a\")\nwrk.headers[\"Content-Type\"] = \"application/json\"\n",
        body.display()
    )
}

/// nginx with a constant answer for each case. `return` has it take each body from the connection, and throw it away.
fn nginx(world: &World, port: u16, cases: &[Case]) -> Result<String, Problem> {
    let mut locations = String::new();
    for case in cases {
        // A text in the configuration has room for 4 KiB; answers are ASCII.
        let (mut parts, mut whole) = (String::new(), String::new());
        for (index, part) in case.answer.chunks(2000).enumerate() {
            let part = std::str::from_utf8(part)?.replace('\\', "\\\\").replace('\'', "\\'");
            parts.push_str(&format!("set $part{index} '{part}'; "));
            whole.push_str(&format!("$part{index}"));
        }
        locations.push_str(&format!("location = /{} {{ {parts}return 200 \"{whole}\"; }}\n", case.name));
    }
    let folder = world.folder.path().display();
    let (certificate, key) = (world.ca.certificate.display(), world.ca.key.display());
    Ok(format!(
        "daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log {folder}/nginx-errors.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type application/json; keepalive_requests 1000000000; client_max_body_size 16m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    {locations}
  }}
}}"
    ))
}

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, otherwise: u32| arguments.get(index).map_or(Ok(otherwise), |text| text.parse());
    let (seconds, rounds) = (number(0, 2)?, number(1, 5)?);
    let measured = Measured::start()?;
    println!("{:<30} {:>8} {:>8} {:>8}   {:>6} {:>6}", "", SERVERS[0], SERVERS[1], SERVERS[2], "/floor", "/nginx");
    let mut half = Vec::new();
    for case in &measured.cases {
        let (bytes, answer) = (case.body.len(), case.answer.len());
        println!("{} ({bytes} bytes, answer {answer})", case.name);
        let http1 = measured.rounds(rounds, |server| measured.http1(server, case, seconds))?;
        println!("{}", http1.line("  HTTP/1.1, reviews/s"));
        half.push(http1.of(0) / 2.0);
        let http2 = measured.rounds(rounds, |server| measured.http2(server, case, seconds))?;
        println!("{}", http2.line("  HTTP/2, reviews/s"));
    }
    println!("At half of the rate that Countersign bears, over HTTP/1.1");
    for (case, rate) in measured.cases.iter().zip(half) {
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut round = ([0.0; 3], [0.0; 3]);
            for server in 0..SERVERS.len() {
                (round.0[server], round.1[server]) = measured.latency(server, case, seconds, rate)?;
            }
            times.0.push(round.0);
            times.1.push(round.1);
        }
        println!("{} ({rate:.0}/s)", case.name);
        println!("{}", Rounds(times.0).line("  median, microseconds"));
        println!("{}", Rounds(times.1).line("  99 %, microseconds"));
    }
    for case in &measured.cases {
        case.answered(&measured.served)?;
    }
    Ok(())
}
