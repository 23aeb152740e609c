//! Processes, ports and certificates.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Problem;

/// How long a part may take to start.
const START: Duration = Duration::from_secs(90);

/// A port on loopback that nothing listens on.
///
/// # Errors
/// A system without loopback.
pub fn free_port() -> Result<u16, Problem> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
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
        let end = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}:\n{}", self.name, self.log_text()).into());
            }
            if Instant::now() > end {
                return Err(format!("{} does not listen on {address}:\n{}", self.name, self.log_text()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
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
    /// It has not after a minute and a half.
    pub fn ended(&mut self) -> Result<std::process::ExitStatus, Problem> {
        let end = Instant::now() + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(format!("{} does not end:\n{}", self.name, self.log_text()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
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
/// It is not, after a minute and a half; `what` says what was waited for.
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) -> Result<(), Problem> {
    let end = Instant::now() + START;
    while !is_true() {
        if Instant::now() > end {
            return Err(format!("waited in vain for: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
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
