//! Processes, ports and certificates.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Problem;

/// How long anything is waited for: so that a test which hangs ends, and far longer than what comes takes on a busy machine.
const HANGS: Duration = Duration::from_secs(600);

/// How long a wait may go on.
struct Patience(Instant);

impl Patience {
    fn start() -> Self {
        Self(Instant::now() + HANGS)
    }

    /// Pauses before the next look, as long as there is patience left.
    fn pause(&self) -> bool {
        std::thread::sleep(Duration::from_millis(20));
        Instant::now() < self.0
    }
}

/// Ports that no system gives to clients by itself, by default (Linux: those from 32 768 on): they are still free when a part has
/// come so far that it listens.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// A port on loopback that nothing listens on, and that was not given away before.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16, Problem> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Other test programs begin elsewhere.
    let begin = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + number)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("all ports of loopback are taken".into())
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Part {
    /// Starts a program; what it prints goes to a file in `folder`.
    ///
    /// # Errors
    /// A program that is not there: the package that brings it is named by `scripts/test`.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self, Problem> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.map_err(|error| format!("cannot start {name} (scripts/test installs it): {error}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until something listens on a port of loopback.
    ///
    /// # Errors
    /// The program ended, or nothing listens in time; with the program's log.
    pub fn listening_on(&mut self, port: u16) -> Result<(), Problem> {
        self.listening_at(&format!("127.0.0.1:{port}"))
    }

    /// Waits until something listens at an address.
    ///
    /// # Errors
    /// The program ended, or nothing listens in time; with the program's log.
    pub fn listening_at(&mut self, address: &str) -> Result<(), Problem> {
        let patience = Patience::start();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}:\n{}", self.name, self.log_text()).into());
            }
            if !patience.pause() {
                return Err(format!("{} does not listen on {address}:\n{}", self.name, self.log_text()).into());
            }
        }
        Ok(())
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not, in ten minutes; with its log.
    pub fn ended(&mut self) -> Result<std::process::ExitStatus, Problem> {
        let patience = Patience::start();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if !patience.pause() {
                return Err(format!("{} does not end:\n{}", self.name, self.log_text()).into());
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until something is true.
///
/// # Errors
/// It is not, after ten minutes; `what` says what was waited for.
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) -> Result<(), Problem> {
    let patience = Patience::start();
    while !is_true() {
        if !patience.pause() {
            return Err(format!("waited in vain for: {what}").into());
        }
    }
    Ok(())
}

/// A certificate authority for tests, and a certificate for loopback.
#[derive(Debug)]
pub struct Ca {
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
    /// A certificate for 127.0.0.1, localhost and the Service `countersign` of the namespace `countersign`, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Ca {
    /// Makes them and writes them to a folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn make(folder: &Path) -> Result<Self, Problem> {
        Self::with_key(folder, &rcgen::KeyPair::generate()?)
    }

    /// As [`Self::make`], for an RSA key of 2048 bits.
    ///
    /// # Errors
    /// No openssl to make one with, or a folder that cannot be written.
    pub fn make_rsa(folder: &Path) -> Result<Self, Problem> {
        let made = crate::run(Command::new("openssl").args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ]))?;
        Self::with_key(folder, &rcgen::KeyPair::from_pem(&made.stdout)?)
    }

    fn with_key(folder: &Path, key: &rcgen::KeyPair) -> Result<Self, Problem> {
        use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let ca_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Countersign test CA");
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::from_params(&params, &ca_key);
        // Loopback, and the Service of an installation in a cluster.
        let names = ["localhost", "127.0.0.1", "::1", "countersign.countersign.svc"];
        let mut leaf = CertificateParams::new(names.map(str::to_owned))?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = leaf.signed_by(key, &issuer)?;
        let write = |name: &str, text: String| -> Result<PathBuf, Problem> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            ca: write("ca.pem", ca.pem())?,
            certificate: write("tls.pem", leaf.pem())?,
            key: write("tls.key", key.serialize_pem())?,
        })
    }
}
