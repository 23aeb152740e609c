//! How many instructions a review takes that is in memory, so that nobody makes it slower unnoticed.
//!
//! `bench/guard` builds and runs it, and compares with `bench/guard.json`; `bench/guard --write` writes that file. Countersign runs below
//! callgrind, which counts instructions in user space whatever else the machine does. It is asked over one connection, some times and many
//! times; the difference is what the reviews took, with TLS and HTTP. callgrind shows every program the same processor, without
//! AVX-512, so that counts differ little from machine to machine. The floor is counted beside it: what changes there is no change of ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use countersign_bench::{Case, Problem, World, built};
use countersign_tests::{Countersign, Part, free_port};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How many reviews a run has at least, and how many more of the case that is counted.
const REVIEWS: (usize, usize) = (50, 300);

/// How much more a review may take than the file says, in percent: allocators and timers make a difference, and so do processors.
const TOLERANCE: u64 = 10;

/// The cases that are counted.
const CASES: [&str; 3] = ["pod-admit", "pod-validate", "deployment-admit"];

/// Posts a body so many times over one connection.
async fn post(world: &World, port: u16, path: &str, case: &Case, times: usize) -> Result<(), Problem> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&world.ca.ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let mut stream = TlsConnector::from(Arc::new(tls)).connect("localhost".try_into()?, stream).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        case.body.len()
    );
    let request = [head.as_bytes(), &case.body].concat();
    for _ in 0..times {
        stream.write_all(&request).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}}") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
    }
    Ok(())
}

/// A server below callgrind.
enum Server {
    Countersign(Countersign),
    Floor(Part, u16),
}

impl Server {
    fn start(world: &World, floor: bool, out: &Path) -> Result<Self, Problem> {
        let callgrind = ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", out.display())];
        if floor {
            let port = free_port()?;
            let mut command = Command::new("valgrind");
            command.args(&callgrind).arg(built()?.join("floor")).arg(port.to_string());
            command.arg(&world.ca.certificate).arg(&world.ca.key).arg(world.folder.path().join("answers"));
            let mut part = Part::start("floor", &mut command, world.folder.path())?;
            part.listening_on(port)?;
            return Ok(Self::Floor(part, port));
        }
        let program = world.folder.path().join("below-callgrind");
        let script =
            format!("#!/bin/sh\nexec valgrind {} {} \"$@\"\n", callgrind.join(" "), Countersign::program().display());
        fs::write(&program, script)?;
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self::Countersign(world.serve_program(&program)?))
    }

    fn port(&self) -> u16 {
        match self {
            Self::Countersign(served) => served.port,
            Self::Floor(_, port) => *port,
        }
    }

    /// Ends it, and gives how many instructions it took.
    fn count(self, out: &Path) -> Result<u64, Problem> {
        let mut part = match self {
            Self::Countersign(served) => served.part,
            Self::Floor(part, _) => part,
        };
        let id = Pid::from_raw(i32::try_from(part.id())?).ok_or("a process has an id")?;
        kill_process(id, Signal::TERM)?;
        // At the second one it waits for nothing.
        let _ = kill_process(id, Signal::TERM);
        part.ended()?;
        let text = fs::read_to_string(out)?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("callgrind counted nothing")?;
        Ok(total.trim().parse()?)
    }
}

/// How many instructions a run takes in which this case is reviewed so many times more than the others.
async fn run(world: &World, cases: &[Case], floor: bool, most: Option<&str>, out: &Path) -> Result<u64, Problem> {
    let server = Server::start(world, floor, out)?;
    for case in cases.iter().filter(|case| CASES.contains(&case.name)) {
        let more = if most == Some(case.name) { REVIEWS.1 } else { 0 };
        let path = if floor { format!("/{}", case.name) } else { case.path.to_owned() };
        post(world, server.port(), &path, case, REVIEWS.0 + more).await?;
    }
    server.count(out)
}

/// Instructions a review, by case.
async fn count(
    world: &World,
    cases: &[Case],
    floor: bool,
    kept: Option<&Path>,
) -> Result<Vec<(&'static str, u64)>, Problem> {
    let out = world.folder.path().join("callgrind.out");
    let base = run(world, cases, floor, None, &out).await?;
    let mut counted = Vec::new();
    for name in CASES {
        let all = run(world, cases, floor, Some(name), &out).await?;
        counted.push((name, all.saturating_sub(base) / REVIEWS.1 as u64));
        if let Some(folder) = kept {
            fs::copy(&out, folder.join(format!("callgrind.out.{name}")))?;
        }
    }
    Ok(counted)
}

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let file = PathBuf::from(arguments.first().ok_or("bench-guard FILE [--write] [--keep FOLDER]")?);
    let kept = arguments.iter().position(|argument| argument == "--keep").and_then(|at| arguments.get(at + 1));
    let world = World::make()?;
    let cases = {
        let served = world.serve()?;
        Case::all(&served)?
    };
    let answers = world.folder.path().join("answers");
    fs::create_dir(&answers)?;
    for case in &cases {
        fs::write(answers.join(case.name), &case.answer)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ours = runtime.block_on(count(&world, &cases, false, kept.map(Path::new)))?;
    let floor = runtime.block_on(count(&world, &cases, true, None))?;
    let mut counts = serde_json::Map::new();
    println!("{:<20} {:>12} {:>12}", "instructions", "countersign", "floor");
    for ((name, ours), (_, floor)) in ours.into_iter().zip(floor) {
        println!("{name:<20} {ours:>12} {floor:>12}");
        // What the floor takes as well is no work of ours.
        counts.insert(name.to_owned(), json!(ours.saturating_sub(floor)));
    }
    if arguments.iter().any(|argument| argument == "--write") {
        fs::write(&file, serde_json::to_string_pretty(&counts)? + "\n")?;
        return Ok(());
    }
    let kept: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    for (name, now) in &counts {
        let (now, before) = (now.as_u64().unwrap_or(u64::MAX), kept[name].as_u64().unwrap_or(0));
        if now > before + before * TOLERANCE / 100 {
            return Err(
                format!("{name} takes {now} instructions beyond the floor; {} says {before}", file.display()).into()
            );
        }
    }
    Ok(())
}
