//! What a running server takes: memory, and the time until a changed file counts.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_tests::{Ca, Countersign, FileServer, Problem, pod_review};
use forge::{Cert, Key, Repo, digest_of};
use futures::stream::{self, StreamExt as _};
use jiff::{Timestamp, Unit};

use super::{POLICY, ROUNDS, SIZES};

const HEAD: &str = "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ";

/// A policy of a namespace, or of the cluster.
fn document(namespace: Option<&str>, name: &str, entries: &[String]) -> String {
    let kind = namespace.map_or("ClusterImagePolicy", |_| "ImagePolicy");
    let of = namespace.map_or_else(String::new, |namespace| format!(", namespace: {namespace}"));
    let entries: Vec<_> = entries.iter().map(|entry| format!("  - {entry}\n")).collect();
    let entries = entries.concat();
    format!("{HEAD}{kind}\nmetadata: {{name: {name}{of}}}\nspec:\n  repositories:\n{entries}---\n")
}

/// A server with its own folder of policies.
struct Served {
    server: Countersign,
    client: reqwest::Client,
}

impl Served {
    fn start(ca: &Ca, folder: &Path, policies: &Path) -> Result<Self, Problem> {
        let server = Countersign::serve(ca, folder, policies, &["--log-level", "error", "--trust-refresh", "1h"])?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls::pki_types::pem::PemObject::pem_slice_iter(&fs::read(&ca.ca)?) {
            roots.add(certificate?)?;
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build()?;
        Ok(Self { server, client })
    }

    async fn is_allowed(&self, images: &[String]) -> Result<bool, Problem> {
        let answer = self.client.post(format!("{}/admit", self.server.url)).body(pod_review(images)).send().await?;
        Ok(answer.text().await?.contains("\"allowed\":true"))
    }

    /// How many MiB of memory it has.
    fn resident(&self) -> Result<f64, Problem> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.part.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

/// A folder for a server and for its policies.
fn folders() -> Result<(tempfile::TempDir, std::path::PathBuf, Ca), Problem> {
    let folder = tempfile::tempdir()?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let ca = Ca::make(folder.path())?;
    Ok((folder, policies, ca))
}

/// Memory with entries, and the time until one changed file counts.
async fn entries() -> Result<(), Problem> {
    println!("\nPolicies in files, {POLICY} entries each");
    println!("{:>10} {:>14} {:>26}", "entries", "resident", "changed file counts after");
    for size in SIZES {
        let (folder, policies, ca) = folders()?;
        let names: Vec<_> = (0..size).map(|n| format!("name: \"h.io/team{n}/*\"")).collect();
        for (index, names) in names.chunks(POLICY).enumerate() {
            fs::write(policies.join(format!("p{index}.yaml")), document(None, &format!("p{index}"), names))?;
        }
        let served = Served::start(&ca, folder.path(), &policies)?;
        let mut took = Vec::new();
        for round in 0..ROUNDS {
            let image = [format!("new.io/{round}/app:v1")];
            fs::write(policies.join("p0.yaml"), document(None, "p0", &[format!("name: \"new.io/{round}/*\"")]))?;
            let began = Instant::now();
            while !served.is_allowed(&image).await? {
                if began.elapsed() > Duration::from_secs(60) {
                    return Err("a changed file does not count".into());
                }
            }
            took.push(began.elapsed());
        }
        took.sort();
        println!("{size:>10} {:>10.1} MiB {:>23.0?}", served.resident()?, took[ROUNDS / 2]);
    }
    println!("(of which 100 ms are left for further changes to come)");
    Ok(())
}

/// Memory with namespaces that have policies of their own.
async fn namespaces() -> Result<(), Problem> {
    println!("\nNamespaces with a policy of ten entries");
    println!("{:>10} {:>14} {:>14}", "namespaces", "ready after", "resident");
    for count in [50, 500, 5_000] {
        let (folder, policies, ca) = folders()?;
        let names: Vec<_> = (0..10).map(|n| format!("name: \"h.io/team{n}/*\"")).collect();
        let all: Vec<_> = (0..count).map(|n| document(Some(&format!("team-{n}")), "own", &names)).collect();
        fs::write(policies.join("all.yaml"), all.concat() + &document(None, "rest", &["name: \"*\"".to_owned()]))?;
        let began = Instant::now();
        let served = Served::start(&ca, folder.path(), &policies)?;
        let ready = began.elapsed();
        assert!(served.is_allowed(&["h.io/x".to_owned()]).await?);
        println!("{count:>10} {ready:>14.0?} {:>10.1} MiB", served.resident()?);
    }
    Ok(())
}

/// Time for an object with containers, all of one repository that is in memory.
async fn containers(served: &Served) -> Result<(), Problem> {
    println!("\nContainers of one object, signed, all in memory (target: no more for each than for one)");
    println!("{:>10} {:>14} {:>14}", "containers", "a review", "a container");
    for count in [1_u32, 10, 100] {
        let images: Vec<_> = (0..count).map(|n| format!("good.io/app{n}:v1")).collect();
        assert!(served.is_allowed(&images[..images.len().min(60)]).await? || count > 60);
        let mut took = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            // Of more than 64 repositories the others are refused, which is a denial.
            served.is_allowed(&images).await?;
            took.push(began.elapsed());
        }
        took.sort();
        println!("{count:>10} {:>14.0?} {:>14.1?}", took[50], took[50] / count);
    }
    Ok(())
}

/// Memory with repositories that were verified.
async fn repositories() -> Result<(), Problem> {
    let (folder, policies, ca) = folders()?;
    let server = FileServer::start(&ca)?;
    let now = Timestamp::now().round(Unit::Second)?;
    let mut repo = Repo::new("good.io/any", now);
    repo.set_key("root", &Key::p256("root").certified(&Cert::new("good.io/*", now)));
    repo.tag("targets", "v1", &digest_of("v1"));
    let url = server.mount("good", repo.build());
    let entry = format!("{{name: \"good.io/*\", policy: {{trust: {{enabled: true, trustServer: \"{url}\"}}}}}}");
    fs::write(policies.join("p.yaml"), document(None, "p", &[entry]))?;
    let served = Served::start(&ca, folder.path(), &policies)?;
    println!("\nRepositories that were verified, four files of some hundred bytes each (16 384 are kept in memory)");
    println!("{:>10} {:>14} {:>14}", "verified", "resident", "for each");
    let before = served.resident()?;
    let mut from = 0;
    for count in [1_000_u32, 10_000, 20_000] {
        let asked = stream::iter(from..count).map(|n| {
            let (served, image) = (&served, [format!("good.io/app{n}:v1")]);
            async move { served.is_allowed(&image).await }
        });
        let all: Vec<_> = asked.buffer_unordered(16).collect().await;
        for allowed in all {
            assert!(allowed?, "a signed image");
        }
        from = count;
        let (resident, kept) = (served.resident()?, f64::from(count.min(16_384)));
        println!("{count:>10} {resident:>10.1} MiB {:>10.1} KiB", (resident - before) * 1024.0 / kept);
    }
    containers(&served).await
}

/// Measures all of it.
pub(super) fn measure() -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        entries().await?;
        namespaces().await?;
        repositories().await
    })
}
