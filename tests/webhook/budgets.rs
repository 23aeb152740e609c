//! What one client may take of the webhook, and that the others do not miss it. By counts and order: nothing here says how long
//! something takes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_tests::{Ca, Countersign, FileServer, Problem, wait_for};
use forge::{Repo, digest_of};
use jiff::{Timestamp, Unit};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

/// What the whole process may take at the peak, in KiB, whatever is done to it here.
const MOST_MEMORY: u64 = 200 << 10;

const POLICIES: &str = r#"
apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1
kind: ClusterImagePolicy
metadata: {name: p}
spec:
  repositories:
  - name: "good.io/*"
"#;

struct World {
    served: Countersign,
    tls: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl World {
    fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        Self::with(folder, &ca, POLICIES, &[])
    }

    /// With these policies, and these arguments too.
    fn with(folder: tempfile::TempDir, ca: &Ca, text: &str, more: &[&str]) -> Result<Self, Problem> {
        // Both ends of every connection are files of somebody; this process has a thousand of them.
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
        let policies = folder.path().join("policies");
        fs::create_dir(&policies)?;
        fs::write(policies.join("p.yaml"), text)?;
        let served = Countersign::serve(ca, folder.path(), &policies, &[&["--log-level", "error"], more].concat())?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut roots = RootCertStore::empty();
        for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(&fs::read(&ca.ca)?) {
            roots.add(certificate?)?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { served, tls: Arc::new(tls), _folder: folder })
    }

    /// A connection to the reviews' port on which nothing is said.
    fn silent(&self) -> Result<TcpStream, Problem> {
        Ok(TcpStream::connect(("127.0.0.1", self.served.port))?)
    }

    /// A connection to the reviews' port after its handshake.
    fn shaken(&self) -> Result<Tls, Problem> {
        let connection = ClientConnection::new(Arc::clone(&self.tls), "localhost".try_into()?)?;
        let mut stream = StreamOwned::new(connection, self.silent()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// A connection to the operations' port.
    fn operations(&self) -> Result<TcpStream, Problem> {
        Ok(TcpStream::connect(self.served.ops.trim_start_matches("http://"))?)
    }

    /// Everything that honest clients want is answered.
    fn answers(&self) -> Result<(), Problem> {
        for _ in 0..5 {
            let response = self.served.admit(&pod("good.io/app:v1"), "developer")?;
            assert_eq!(response["allowed"], true, "{response}");
            assert_eq!(self.served.get("/readyz")?.0, 200);
            assert_eq!(self.served.get("/livez")?.0, 200);
        }
        Ok(())
    }

    /// The value of a metric; 0 where it is not there.
    fn metric(&self, line: &str) -> Result<u64, Problem> {
        let (_, text) = self.served.get("/metrics")?;
        Ok(text.lines().find_map(|found| found.strip_prefix(line)).map_or(Ok(0), |value| value.trim().parse())?)
    }

    /// How many connections to a port were closed for one of these reasons.
    fn closed(&self, port: &str, reasons: &[&str]) -> Result<u64, Problem> {
        let count = |reason: &&str| {
            self.metric(&format!("countersign_closed_connections_total{{port=\"{port}\",reason=\"{reason}\"}}"))
        };
        reasons.iter().map(count).sum()
    }

    /// A line of what the system says of the process, in KiB.
    fn memory(&self, line: &str) -> Result<u64, Problem> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.served.part.id()))?;
        let value = status.lines().find_map(|found| found.strip_prefix(line)).ok_or("no such line")?;
        Ok(value.trim().trim_end_matches(" kB").trim().parse()?)
    }

    /// Forgets the peak so far.
    fn forget_peak(&self) -> Result<(), Problem> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.served.part.id()), "5")?)
    }
}

fn pod(image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
           "spec": {"containers": [{"name": "web", "image": image}]}})
}

fn review(object: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"CREATE","namespace":"n","kind":{{"group":"","version":"v1","kind":"Pod"}},"object":{object}}}}}"#
    )
}

fn head(length: usize) -> String {
    format!(
        "POST /admit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Connections on which nothing is said, at every point where something is awaited, and to both ports. How many of them lose their
/// seat for the crowd, and how many because they are late, is a matter of speed.
#[test]
fn silent_connections_lock_nobody_out() -> Result<(), Problem> {
    let world = World::start()?;
    let mut silent = Vec::new();
    let mut shaken = Vec::new();
    for _ in 0..367 {
        silent.push(world.silent()?);
        // It may be closed before it comes so far.
        shaken.extend(world.shaken());
        shaken.extend(world.shaken().and_then(|mut begun| {
            begun.write_all(b"POST /admit HTTP/1.1\r\nHost: ")?;
            Ok(begun)
        }));
        for said in ["", "GET /rea", "GET /readyz HTTP/1.1\r\nHost: "] {
            let mut stream = world.operations()?;
            let _ = stream.write_all(said.as_bytes());
            silent.push(stream);
        }
    }
    world.answers()?;
    for port in ["reviews", "operations"] {
        let closed = || world.closed(port, &["crowded", "late"]);
        let all = wait_for("all of them to be closed", || closed().is_ok_and(|closed| closed == 3 * 367));
        all.map_err(|problem| format!("{problem}: {port}: {:?}", closed()))?;
        assert_eq!(world.closed(port, &["displaced", "refused"])?, 0, "{port}");
    }
    world.answers()?;
    assert!(world.memory("VmHWM:")? <= MOST_MEMORY, "{} KiB", world.memory("VmHWM:")?);
    drop((silent, shaken));
    Ok(())
}

/// One client has far more connections with answered reviews than there are seats: another one finds a seat all the same.
#[test]
fn idle_connections_make_room() -> Result<(), Problem> {
    let world = World::start()?;
    let body = review(&pod("good.io/app:v1").to_string());
    let request = format!("{}{body}", head(body.len()));
    let mut idle = Vec::new();
    for number in 0..2300 {
        let mut stream = world.shaken()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"HTTP/1.1 200", "connection {number}");
        idle.push(stream);
    }
    world.answers()?;
    // Where it takes minutes to open so many, the first have been idle for too long by then.
    let gone = world.closed("reviews", &["displaced", "idle"])?;
    assert!(gone >= 2300 - 2048, "{gone}");
    assert_eq!(world.closed("reviews", &["refused"])?, 0);
    assert!(world.memory("VmHWM:")? <= MOST_MEMORY, "{} KiB", world.memory("VmHWM:")?);
    Ok(())
}

/// Whatever a large review is full of, it takes no more than three times its size.
#[test]
fn a_large_review_takes_little() -> Result<(), Problem> {
    const SIZE: usize = 15 << 20;
    let world = World::start()?;
    let filled = |item: &str, before: &str, after: &str| {
        let items = vec![item; (SIZE - before.len() - after.len()) / (item.len() + 1)].join(",");
        format!("{before}{items}{after}")
    };
    let sidecar = r#""containers":[{"name":"web","image":"good.io/app:v1"}]}}"#;
    let reviews = [
        ("junk", review(&filled("{}", r#"{"spec":{"junk":["#, &format!("],{sidecar}")))),
        ("numbers", review(&filled("0", r#"{"spec":{"junk":["#, &format!("],{sidecar}")))),
        ("names", review(&filled(r#""a":0"#, r#"{"spec":{"junk":{"#, &format!("}},{sidecar}")))),
        ("deep", review(&filled("[[[[[[]]]]]]", r#"{"spec":{"junk":["#, &format!("],{sidecar}")))),
        ("containers", review(&filled("{}", r#"{"spec":{"containers":["#, "]}}"))),
        ("volumes", review(&filled(r#"{"name":"v"}"#, r#"{"spec":{"volumes":["#, &format!("],{sidecar}")))),
        (
            "a long image",
            review(&format!(r#"{{"spec":{{"containers":[{{"name":"a","image":"{}"}}]}}}}"#, "a".repeat(SIZE))),
        ),
        (
            "a revision",
            filled(
                "{}",
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","namespace":"n","kind":{"group":"apps","version":"v1","kind":"ControllerRevision"},"object":{"data":{"junk":["#,
                "]}}}}",
            ),
        ),
        (
            "groups",
            filled(
                r#""""#,
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","userInfo":{"groups":["#,
                "]}}}",
            ),
        ),
    ];
    world.answers()?;
    let before = world.memory("VmRSS:")?;
    for (what, body) in reviews {
        assert!(body.len() <= 16 << 20 && body.len() > SIZE - 64, "{what}: {}", body.len());
        world.forget_peak()?;
        let (status, answer) = world.served.post(body.as_bytes())?;
        assert_eq!(status, 200, "{what}: {answer}");
        let peak = world.memory("VmHWM:")?;
        assert!(peak <= before + 3 * (SIZE as u64 >> 10), "{what}: {before} KiB before, {peak} KiB at the peak");
        eprintln!("{what}: {} MiB more at the peak", (peak - before) >> 10);
    }
    // Of a policy everything is looked at, so less of it is read.
    let policy = filled(
        "{}",
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{"spec":["#,
        "]}}}",
    );
    assert_eq!(world.served.post_to("/policies", policy.as_bytes())?.0, 400);
    let (status, answer) = world.served.post_to("/policies", &policy.as_bytes()[..100])?;
    assert_eq!(status, 400, "{answer}");
    world.answers()
}

/// How many bodies lost their room to others.
const BEHIND: &str = "countersign_refused_bodies_total{reason=\"behind\"}";

/// Bodies that do not come to their end take the room that there is for bodies, and no more, and lose it to those that do.
#[test]
fn unfinished_bodies_leave_room() -> Result<(), Problem> {
    const SIZE: usize = 15 << 20;
    let world = World::start()?;
    let mut unfinished = Vec::new();
    for _ in 0..40 {
        let mut stream = world.shaken()?;
        stream.write_all(head(SIZE).as_bytes())?;
        stream.sock.set_write_timeout(Some(Duration::from_millis(1)))?;
        // As much as is taken, but never the end.
        let mut left = SIZE - 1;
        let spaces = vec![b' '; 64 << 10];
        while left > 0 {
            match stream.write_all(&spaces[..left.min(64 << 10)]) {
                Ok(()) => left -= left.min(64 << 10),
                Err(_) => break,
            }
        }
        unfinished.push(stream);
    }
    wait_for("some to be behind", || world.metric(BEHIND).is_ok_and(|lost| lost > 0))?;
    world.answers()?;
    // One that is large and comes to its end finds room, more than once.
    let large = review(&format!(
        r#"{{"spec":{{"junk":"{}","containers":[{{"name":"web","image":"good.io/app:v1"}}]}}}}"#,
        "x".repeat(1 << 20)
    ));
    for _ in 0..5 {
        let mut last = (0, String::new());
        // Who shares a busy machine with the server may come too slowly itself, and is told to try again.
        let admitted = wait_for("a large review to be answered", || {
            last = world.served.post(large.as_bytes()).unwrap_or_default();
            last.0 == 200
        });
        admitted.map_err(|problem| format!("{problem}: {last:?}"))?;
        assert!(last.1.contains("\"allowed\":true"), "{last:?}");
    }
    world.answers()?;
    assert!(world.memory("VmHWM:")? <= MOST_MEMORY, "{} KiB", world.memory("VmHWM:")?);
    Ok(())
}

/// Answers that nobody reads count as room for bodies too: they wait, or are given up, and others are answered.
#[test]
fn answers_that_nobody_reads_take_little() -> Result<(), Problem> {
    let now = Timestamp::now().round(Unit::Second)?;
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let files = FileServer::start(&ca)?;
    let gun = format!("signed.io/{}", "a".repeat(230));
    let mut signed = Repo::new(&gun, now);
    signed.tag("targets", "v1", &digest_of("v1"));
    let trust = format!("{{trust: {{enabled: true, trustServer: \"{}\"}}}}", files.mount("signed", signed.build()));
    let world = World::with(folder, &ca, &format!("{POLICIES}  - name: \"signed.io/*\"\n    policy: {trust}\n"), &[])?;
    // All are pinned, so the patch is long.
    let container = |index| format!(r#"{{"name":"c{index}","image":"{gun}:v1"}}"#);
    let containers = (0..1000).map(container).collect::<Vec<_>>().join(",");
    let body = review(&format!(r#"{{"spec":{{"containers":[{containers}]}}}}"#));
    let request = format!("{}{body}", head(body.len()));
    let (status, answer) = world.served.post(body.as_bytes())?;
    assert!(status == 200 && answer.len() > 450_000, "{status}, {} bytes: {}", answer.len(), &answer[..300]);
    let mut unread = Vec::new();
    for _ in 0..500 {
        let Ok(mut stream) = world.shaken() else { continue };
        // A small window: the system takes little of the answer off the server's hands.
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream.sock, 4096)?;
        // One that was given up in the meantime takes no more.
        let _ = stream.write_all(request.as_bytes());
        unread.push(stream);
    }
    world.answers()?;
    let reviews = |kind, verdict| {
        let labels = format!("webhook=\"mutate\",kind=\"{kind}\",verdict=\"{verdict}\",mode=\"enforce\"");
        let line = format!("countersign_reviews_total{{{labels}}}");
        world.metric(&line).unwrap_or_default()
    };
    // Those that found no room for their body count as no reviews, and who shares a busy machine may be late with the head.
    let gone = || world.closed("reviews", &["crowded", "late"]).unwrap_or_default();
    wait_for("all of them to be judged", || {
        reviews("Pod", "verified") + reviews("Pod", "undecided") + reviews("other", "bad-request") + gone() > 500
    })?;
    world.answers()?;
    assert!(world.memory("VmHWM:")? <= MOST_MEMORY, "{} KiB", world.memory("VmHWM:")?);
    drop(unread);
    Ok(())
}

/// A tenant whose images are on any number of trust servers that never answer has its share of what is looked at, and others are
/// answered at once.
#[test]
fn many_servers_of_one_tenant_have_one_share() -> Result<(), Problem> {
    let now = Timestamp::now().round(Unit::Second)?;
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    // All addresses of loopback are this listener; it takes connections and says nothing.
    let silent = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = silent.local_addr()?.port();
    let files = FileServer::start(&ca)?;
    let mut good = Repo::new("good.io/app", now);
    good.tag("targets", "v1", &digest_of("v1"));
    let trust = |name: &str, server: &str| {
        format!("  - name: \"{name}/*\"\n    policy: {{trust: {{enabled: true, trustServer: \"{server}\"}}}}\n")
    };
    let mut entries = vec![trust("good.io", &files.mount("good", good.build()))];
    entries.extend((1..=200).map(|host| trust(&format!("s{host}.io"), &format!("https://127.1.0.{host}:{port}"))));
    let head = "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  repositories:\n";
    let world = World::with(folder, &ca, &format!("{head}{}", entries.concat()), &[])?;
    let pod = |namespace: &str, images: Vec<String>| {
        let container = |(index, image): (usize, &String)| json!({"name": format!("c{index}"), "image": image});
        let containers: Vec<_> = images.iter().enumerate().map(container).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": {"containers": containers}})
    };
    let state =
        |state: &str| world.metric(&format!("countersign_repositories{{state=\"{state}\"}}")).unwrap_or_default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (world, done, pod) = (&world, &done, &pod);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    let image = |host| format!("s{}.io/app{round}:v1", client * 50 + host);
                    let _ = world.served.admit(&pod("greedy", (1..=50).map(image).collect()), "developer");
                    round += 1;
                }
            });
        }
        // However this ends, the tenant must stop, or the test would wait for it for ever.
        let _stop = Stop(&done);
        // 32 at once is a namespace's share, and each review has 32 images under way.
        wait_for("the tenant's share", || state("verified") == 32 && state("waiting") >= 64)?;
        for round in 0..20 {
            let honest = pod(&format!("n{round}"), vec!["good.io/app:v1".to_owned()]);
            let response = world.served.admit(&honest, "developer")?;
            assert_eq!(response["allowed"], true, "{response}");
            assert!(state("verified") <= 33, "the tenant has no more than its share");
        }
        Ok(())
    })
}

/// Tells others to stop when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
