//! The real Notary server with its signer, and the real `notary` client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::process::{Ca, Part, free_port};
use crate::tokens::TokenServer;
use crate::{Finished, Problem, run};

/// A running `notary-server` and the `notary-signer` that it uses.
#[derive(Debug)]
pub struct NotaryServer {
    /// `https://127.0.0.1:PORT`
    pub url: String,
    server: Part,
    _signer: Part,
}

impl NotaryServer {
    /// What the server has logged: a line for each request.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.server.log_text()
    }

    /// Starts both, with memory for storage.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        Self::start_at(free_port()?, ca, folder)
    }

    /// Starts both, the server on a given port: where another one was before.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start_at(port: u16, ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        Self::start_as(&format!("127.0.0.1:{port}"), None, ca, folder)
    }

    /// Starts both, the server on a given address (`127.0.0.1:PORT` or `[::1]:PORT`), for whoever has a token of this server.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start_as(address: &str, tokens: Option<&TokenServer>, ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        let signer_port = free_port()?;
        let common = json!({"level": "info"});
        let signer = json!({
            "server": {"grpc_addr": format!("127.0.0.1:{signer_port}"), "tls_cert_file": ca.certificate,
                       "tls_key_file": ca.key, "client_ca_file": ca.ca},
            "logging": common, "storage": {"backend": "memory"},
        });
        let mut server = json!({
            "server": {"http_addr": address, "tls_cert_file": ca.certificate, "tls_key_file": ca.key},
            "trust_service": {"type": "remote", "hostname": "127.0.0.1", "port": signer_port.to_string(),
                              "key_algorithm": "ecdsa", "tls_ca_file": ca.ca,
                              "tls_client_cert": ca.certificate, "tls_client_key": ca.key},
            "logging": common, "storage": {"backend": "memory"},
        });
        if let Some(tokens) = tokens {
            server["auth"] = json!({"type": "token", "options": {
                "realm": tokens.realm, "service": "notary-server", "issuer": "countersign-test", "rootcertbundle": tokens.root,
            }});
        }
        let (signer_file, server_file) = (folder.join("signer.json"), folder.join("server.json"));
        fs::write(&signer_file, signer.to_string())?;
        fs::write(&server_file, server.to_string())?;
        let mut command = Command::new("notary-signer");
        command
            .arg("-config")
            .arg(&signer_file)
            .env("NOTARY_SIGNER_DEFAULT_ALIAS", "test")
            .env("NOTARY_SIGNER_TEST", "test");
        let mut signer = Part::start("notary-signer", &mut command, folder)?;
        signer.listening_on(signer_port)?;
        let mut server =
            Part::start("notary-server", Command::new("notary-server").arg("-config").arg(&server_file), folder)?;
        server.listening_at(address)?;
        Ok(Self { url: format!("https://{address}"), server, _signer: signer })
    }
}

/// The `notary` client with the keys of one person.
#[derive(Debug)]
pub struct Client {
    /// `NAME:PASSWORD` for the token server, if there is one.
    login: Option<String>,
    url: String,
    ca: PathBuf,
    folder: PathBuf,
}

impl Client {
    /// A person with a folder of their own for keys and trust data.
    #[must_use]
    pub fn new(url: &str, ca: &Ca, folder: &Path) -> Self {
        Self { login: None, url: url.to_owned(), ca: ca.ca.clone(), folder: folder.to_owned() }
    }

    /// The same person, who logs in as `NAME:PASSWORD`.
    #[must_use]
    pub fn with_login(self, login: &str) -> Self {
        Self { login: Some(login.to_owned()), ..self }
    }

    /// Runs the client.
    ///
    /// # Errors
    /// It is not installed.
    pub fn try_run(&self, arguments: &[&str]) -> Result<Finished, Problem> {
        let mut command = Command::new("notary");
        command.args(["-s", &self.url]).arg("--tlscacert").arg(&self.ca).arg("-d").arg(&self.folder).args(arguments);
        if let Some(login) = &self.login {
            command.env("NOTARY_AUTH", STANDARD.encode(login));
        }
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), "a test passphrase");
        }
        run(&mut command)
    }

    /// Runs the client, which must succeed.
    ///
    /// # Errors
    /// It does not; with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Problem> {
        let finished = self.try_run(arguments)?;
        if finished.code == 0 {
            return Ok(finished.stdout);
        }
        Err(format!("notary {arguments:?}: exit {}\n{}{}", finished.code, finished.stdout, finished.stderr).into())
    }

    /// What the client says the tag's digest is (hex), as someone who knows nothing of the repository yet.
    ///
    /// # Errors
    /// The client is not installed.
    pub fn lookup_afresh(&self, gun: &str, tag: &str) -> Result<Option<String>, Problem> {
        let folder = tempfile::tempdir()?;
        let afresh = Self {
            login: self.login.clone(),
            url: self.url.clone(),
            ca: self.ca.clone(),
            folder: folder.path().to_owned(),
        };
        let finished = afresh.try_run(&["lookup", gun, tag])?;
        // `v1 sha256:<hex> 523`
        let digest = finished.stdout.split_whitespace().find_map(|word| word.strip_prefix("sha256:"));
        Ok(digest.filter(|_| finished.code == 0).map(str::to_owned))
    }
}
