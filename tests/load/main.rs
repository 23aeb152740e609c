//! How many reviews a webhook answers, and what hostile repositories take from the others. Figures are ratios to a floor that is
//! measured in the same run: requests that the same server refuses after reading them.
//!
//! `cargo bench -p countersign-tests --bench load`

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_tests::{Ca, Countersign, FileServer, Problem, pod_review};
use forge::{Cert, Delegation, Files, Key, Repo, digest_of};
use jiff::{Timestamp, Unit};

/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(5);

/// How many requests are under way at once.
const CONCURRENCY: usize = 16;

/// A repository for every name below a host, as its root's certificate says.
fn repository(host: &str, now: Timestamp) -> Repo {
    let mut repo = Repo::new(&format!("{host}/any"), now);
    repo.set_key("root", &Key::p256("root").certified(&Cert::new(&format!("{host}/*"), now)));
    repo.tag("targets", "v1", &digest_of("v1"));
    repo
}

fn heavy(now: Timestamp) -> Files {
    let mut repo = repository("heavy.io", now);
    for tag in 0..100_000 {
        repo.tag("targets", &format!("v{tag}"), &digest_of("v"));
    }
    repo.build()
}

fn flood(now: Timestamp) -> Files {
    let mut repo = repository("flood.io", now);
    let key = Key::p256("flood");
    for index in 0..500 {
        let name = format!("targets/s{index}");
        repo.delegate("targets", Delegation::new(&name, &key));
        repo.file(&name).signers = vec![Key::p256("mallory"), key.clone(), key.clone(), key.clone()];
    }
    repo.build()
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    per_second: f64,
    median: Duration,
    worst_of_hundred: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.0}/s, median {:>9.2?}, 99% {:>9.2?}", self.per_second, self.median, self.worst_of_hundred)
    }
}

/// Posts bodies for some seconds, and checks that each answer has this in it.
async fn measure(client: &reqwest::Client, url: &str, body: impl Fn(u64) -> Vec<u8>, expect: &'static str) -> Figures {
    let (counter, body) = (AtomicU64::new(0), &body);
    let started = Instant::now();
    let one = async |times: &mut Vec<Duration>| {
        while started.elapsed() < SPAN {
            let body = body(counter.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            let answer = client.post(url).body(body).send().await.expect("an answer");
            let text = answer.text().await.expect("a body");
            times.push(begun.elapsed());
            assert!(text.contains(expect), "{text}");
        }
    };
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); CONCURRENCY];
    futures::future::join_all(times.iter_mut().map(one)).await;
    let took = started.elapsed().as_secs_f64();
    let mut all: Vec<_> = times.concat();
    all.sort();
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    Figures {
        per_second: f64::from(count) / took,
        median: all[all.len() / 2],
        worst_of_hundred: all[all.len() * 99 / 100],
    }
}

async fn run(served: &Countersign, ca: &Ca) -> Result<(), Problem> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(&fs::read(&ca.ca)?) {
        roots.add(certificate?)?;
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
    let url = format!("{}/admit", served.url);
    let allowed = "\"allowed\":true";

    let floor = measure(&client, &url, |_| b"{}".to_vec(), "is not supported").await;
    println!("floor (read and refused)             {floor}");
    let unchecked = measure(&client, &url, |_| pod_review(&["free.io/app:v1"]), allowed).await;
    println!(
        "allowed without a check              {unchecked}   {:.2} of the floor",
        unchecked.per_second / floor.per_second
    );
    let cached = measure(&client, &url, |_| pod_review(&["good.io/app:v1"]), allowed).await;
    println!(
        "verified, and kept                   {cached}   {:.2} of the floor",
        cached.per_second / floor.per_second
    );
    let cold = measure(&client, &url, |number| pod_review(&[&format!("good.io/app{number}:v1")]), allowed).await;
    println!("a new repository each (4 files)      {cold}   {:.3} of the floor", cold.per_second / floor.per_second);

    let stop = Arc::new(AtomicBool::new(false));
    let hostile: Vec<_> = (0..CONCURRENCY)
        .map(|index| {
            let (client, url, stop) = (client.clone(), url.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut number = index;
                while !stop.load(Ordering::Relaxed) {
                    let host = ["heavy.io", "flood.io", "silent.io"][number % 3];
                    let body = pod_review(&[&format!("{host}/app{number}:v1")]);
                    let _ = client.post(&url).body(body).send().await;
                    number += CONCURRENCY;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let beside = measure(&client, &url, |_| pod_review(&["good.io/app:v1"]), allowed).await;
    println!(
        "kept, beside 16 hostile ones         {beside}   {:.2} of those without",
        beside.per_second / cached.per_second
    );
    let cold_beside =
        measure(&client, &url, |number| pod_review(&[&format!("good.io/beside{number}:v1")]), allowed).await;
    println!(
        "new, beside 16 hostile ones          {cold_beside}   {:.2} of those without",
        cold_beside.per_second / cold.per_second
    );
    stop.store(true, Ordering::Relaxed);
    for task in hostile {
        task.abort();
    }
    Ok(())
}

fn main() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let now = Timestamp::now().round(Unit::Second)?;
    let server = FileServer::start(&ca)?;
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let trust = |host: &str, server: &str| {
        format!("  - name: \"{host}/*\"\n    policy: {{trust: {{enabled: true, trustServer: \"{server}\"}}}}\n")
    };
    let entries = [
        "  - name: \"free.io/*\"\n".to_owned(),
        trust("good.io", &server.mount("good", repository("good.io", now).build())),
        trust("heavy.io", &server.mount("heavy", heavy(now))),
        trust("flood.io", &server.mount("flood", flood(now))),
        trust("silent.io", &format!("https://{}", silent.local_addr()?)),
    ];
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let head = "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  repositories:\n";
    fs::write(policies.join("p.yaml"), format!("{head}{}", entries.concat()))?;
    let served = Countersign::serve(&ca, folder.path(), &policies, &["--log-level", "error", "--deadline", "8s"])?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(run(&served, &ca))
}
