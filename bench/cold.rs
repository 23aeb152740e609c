//! How long the first review of an image takes whose trust server is 20 ms away, beside what the network alone takes; and whether a server that
//! takes two seconds for each answer slows reviews of images elsewhere. Figures are medians, and ratios to what is measured in the same run.
//!
//! `cargo bench -p countersign-tests --bench cold`; with `COUNTERSIGN=PROGRAM` it measures another build.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use countersign_tests::{Ca, Countersign, Problem, pod_review};
use forge::{Cert, Files, Key, Repo, digest_of};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::{Timestamp, Unit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The time that everything takes in each direction.
const ONE_WAY: Duration = Duration::from_millis(10);

/// A round trip.
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// How often each figure is taken.
const ROUNDS: usize = 15;

/// How many people have signed, in each of the cases.
const SIGNERS: [usize; 3] = [0, 2, 10];

/// How long each part of the comparison beside a slow server takes.
const SPAN: Duration = Duration::from_secs(5);

/// How long the slow server takes for an answer.
const SLOW: Duration = Duration::from_secs(2);

/// A repository for every name below a host, as its root's certificate says.
fn repository(host: &str, signers: usize, now: Timestamp) -> Files {
    let mut repo = Repo::new(&format!("{host}/any"), now);
    repo.set_key("root", &Key::p256("root").certified(&Cert::new(&format!("{host}/*"), now)));
    if signers == 0 {
        repo.tag("targets", "v1", &digest_of("v1"));
    }
    for signer in 0..signers {
        let name = format!("s{signer}");
        repo.signer(&name, &Key::p256(&name)).sign(&name, "v1", &digest_of("v1"));
    }
    repo.build()
}

/// A trust server of these files, over HTTP/1.1 and, if it is to, HTTP/2.
async fn trust_server(ca: &Ca, files: Files, http2: bool, pause: Duration) -> Result<SocketAddr, Problem> {
    let chain = CertificateDer::pem_slice_iter(&fs::read(&ca.certificate)?).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&fs::read(&ca.key)?)?)?;
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let (acceptor, files) = (TlsAcceptor::from(Arc::new(config)), Arc::new(files));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, files) = (acceptor.clone(), Arc::clone(&files));
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let files = Arc::clone(&files);
                    async move {
                        tokio::time::sleep(pause).await;
                        let name = request.uri().path().rsplit_once("/_trust/tuf/").map_or("", |(_, name)| name);
                        let found = files.get(name).map(<[u8]>::to_vec);
                        let status = if found.is_some() { 200 } else { 404 };
                        let mut response = Response::new(Full::new(Bytes::from(found.unwrap_or_default())));
                        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
                        Ok::<_, Infallible>(response)
                    }
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

/// Another address of a server, which is a round trip away. What is sent at once arrives at once, [`ONE_WAY`] later; what a new connection brings first,
/// as much later as it would take to come about.
async fn far(server: SocketAddr) -> Result<SocketAddr, Problem> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(there) = TcpStream::connect(server).await else { return };
                let _ = (near.set_nodelay(true), there.set_nodelay(true));
                let (near, there) = (near.into_split(), there.into_split());
                let open = Instant::now() + ROUND_TRIP;
                tokio::join!(relay(near.0, there.1, open), relay(there.0, near.1, open));
            });
        }
    });
    Ok(address)
}

async fn relay(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, open: Instant) {
    let (sender, mut arrives) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reads = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now().max(open) + ONE_WAY;
            if sender.send((at, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let writes = async move {
        while let Some((at, bytes)) = arrives.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reads, writes);
}

/// What one figure is of.
#[derive(Clone, Copy)]
struct Case {
    signers: usize,
    http2: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|http2| SIGNERS.map(|signers| Self { signers, http2 }))
    }

    fn host(self, round: usize) -> String {
        let protocol = if self.http2 { "h2" } else { "h1" };
        format!("r{round}-{protocol}-{}.example.com", self.signers)
    }
}

fn entry(host: &str, server: SocketAddr, signers: usize) -> serde_json::Value {
    let secrets: Vec<_> = (0..signers).map(|signer| json!({"name": format!("s{signer}")})).collect();
    let server = format!("https://{server}");
    json!({"name": format!("{host}/*"), "policy": {"trust": {
        "enabled": true, "trustServer": server, "signerSecrets": secrets}}})
}

fn write_policies(folder: &Path, entries: &[serde_json::Value]) -> Result<(), Problem> {
    fs::create_dir(folder)?;
    let most = SIGNERS.into_iter().max().unwrap_or_default();
    for signer in 0..most {
        let name = format!("s{signer}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "countersign"},
            "stringData": {"name": name, "publicKey": Key::p256(&name).pem()}});
        fs::write(folder.join(format!("{name}.json")), secret.to_string())?;
    }
    let policy = json!({"apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ClusterImagePolicy",
        "metadata": {"name": "p"}, "spec": {"repositories": entries}});
    fs::write(folder.join("p.json"), policy.to_string())?;
    Ok(())
}

/// Has an image reviewed, and says how long that took.
async fn timed(client: &reqwest::Client, url: &str, image: &str) -> Result<Duration, Problem> {
    let begun = Instant::now();
    let text = client.post(url).body(pod_review(&[image])).send().await?.text().await?;
    let took = begun.elapsed();
    if text.contains("\"allowed\":true") { Ok(took) } else { Err(text.into()) }
}

fn client_config(ca: &Ca) -> Result<rustls::ClientConfig, Problem> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&fs::read(&ca.ca)?) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// How long a connection takes to come about, and how long that takes with one request after it.
async fn floor(ca: &Ca, server: SocketAddr) -> Result<(Duration, Duration), Problem> {
    let connector = TlsConnector::from(Arc::new(client_config(ca)?));
    let begun = Instant::now();
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut stream = connector.connect(ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST)), stream).await?;
    let set_up = begun.elapsed();
    let request = "GET /v2/h/any/_trust/tuf/timestamp.json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    if answer.starts_with(b"HTTP/1.1 200") { Ok((set_up, begun.elapsed())) } else { Err("no timestamp".into()) }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn cold(ca: &Ca, folder: &Path, program: &Path, now: Timestamp) -> Result<(), Problem> {
    let plain = far(trust_server(ca, repository("h", 0, now), false, Duration::ZERO).await?).await?;
    let mut entries = Vec::new();
    for round in 0..ROUNDS {
        for case in Case::all() {
            let host = case.host(round);
            let files = repository(&host, case.signers, now);
            // A server of its own each time: to one that was asked before there is a connection already.
            let server = far(trust_server(ca, files, case.http2, Duration::ZERO).await?).await?;
            entries.push(entry(&host, server, case.signers));
        }
    }
    let policies = folder.join("cold");
    write_policies(&policies, &entries)?;
    let served = serve(program, ca, folder, &policies)?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(client_config(ca)?).no_proxy().build()?;
    let url = format!("{}/admit", served.url);
    let (mut set_ups, mut requests) = (Vec::new(), Vec::new());
    let mut times: Vec<Vec<Duration>> = Case::all().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        let (set_up, request) = floor(ca, plain).await?;
        set_ups.push(set_up);
        requests.push(request);
        for (case, times) in Case::all().zip(&mut times) {
            times.push(timed(&client, &url, &format!("{}/app:v1", case.host(round))).await?);
        }
    }
    let (set_up, request) = (median(&mut set_ups), median(&mut requests));
    let floor = set_up + ROUND_TRIP * 3 / 2;
    println!("a round trip                        {:>7.1} ms", ms(ROUND_TRIP));
    println!("a connection alone                  {:>7.1} ms", ms(set_up));
    println!("a connection and one request        {:>7.1} ms", ms(request));
    println!("a connection and 1.5 round trips    {:>7.1} ms", ms(floor));
    for (case, times) in Case::all().zip(&mut times) {
        let took = median(times);
        let protocol = if case.http2 { "HTTP/2  " } else { "HTTP/1.1" };
        let over = ms(took) - ms(floor);
        println!(
            "a new image, {protocol}, {:>2} signers    {:>7.1} ms   {:.2} of that, {over:+.1} ms",
            case.signers,
            ms(took),
            ms(took) / ms(floor)
        );
    }
    Ok(())
}

/// Reviews of new images on a good server, eight at once: how long the slowest in a hundred takes.
async fn worst_of_hundred(client: &reqwest::Client, url: &str, numbers: &AtomicUsize) -> Result<Duration, Problem> {
    let begun = Instant::now();
    let one = async || -> Result<Vec<Duration>, Problem> {
        let mut times = Vec::new();
        while begun.elapsed() < SPAN {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            times.push(timed(client, url, &format!("good.io/app{number}:v1")).await?);
        }
        Ok(times)
    };
    let mut all = Vec::new();
    for times in futures::future::try_join_all((0..8).map(|_| one())).await? {
        all.extend(times);
    }
    all.sort();
    Ok(all[all.len() * 99 / 100])
}

async fn steady(ca: &Ca, folder: &Path, program: &Path, now: Timestamp) -> Result<(), Problem> {
    let good = trust_server(ca, repository("good.io", 2, now), true, Duration::ZERO).await?;
    let slow = trust_server(ca, repository("slow.io", 2, now), true, SLOW).await?;
    let policies = folder.join("steady");
    write_policies(&policies, &[entry("good.io", good, 2), entry("slow.io", slow, 2)])?;
    let served = serve(program, ca, folder, &policies)?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(client_config(ca)?).no_proxy().build()?;
    let (url, numbers) = (format!("{}/admit", served.url), AtomicUsize::new(0));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..3 {
        alone.push(worst_of_hundred(&client, &url, &numbers).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..64)
            .map(|index| {
                let (client, url, stop) = (client.clone(), url.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Whatever becomes of it: it may well be too late.
                        let image = format!("slow.io/app{round}-{index}-{number}:v1");
                        let _ = client.post(&url).body(pod_review(&[&image])).send().await;
                        number += 1;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        beside.push(worst_of_hundred(&client, &url, &numbers).await?);
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.abort();
        }
    }
    let (alone, beside) = (median(&mut alone), median(&mut beside));
    println!("new images, 8 at once, 99 %         {:>7.1} ms", ms(alone));
    println!(
        "the same beside 64 clients of a server that takes 2 s, 99 %   {:>7.1} ms   {:.2} of that",
        ms(beside),
        ms(beside) / ms(alone)
    );
    Ok(())
}

fn serve(program: &Path, ca: &Ca, folder: &Path, policies: &Path) -> Result<Countersign, Problem> {
    let paths = [policies, &ca.certificate, &ca.key].map(|path| path.display().to_string());
    let files = ["--policies", &paths[0], "--tls-cert", &paths[1], "--tls-key", &paths[2]];
    let more = ["--log-level", "error", "--deadline", "8s", "--trust-refresh", "10m"];
    let served = Countersign::start_program(program, "countersign", ca, folder, &[&files[..], &more[..]].concat())?;
    served.ready()?;
    Ok(served)
}

fn main() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let now = Timestamp::now().round(Unit::Second)?;
    let program = env::var_os("COUNTERSIGN").map_or_else(|| Countersign::program().to_owned(), Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        cold(&ca, folder.path(), &program, now).await?;
        steady(&ca, folder.path(), &program, now).await
    })
}
