//! A token server, as registries and trust servers with `auth: token` ask for one: it checks passwords, and signs tokens
//! (ES256 or RS256, by the key of the test's authority) for what each user may read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::SigningKey as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::Problem;
use crate::process::Ca;

/// Who may do what.
#[derive(Debug, Clone)]
pub struct User {
    /// The password.
    pub password: String,
    /// Repositories that the user may read and write.
    pub repositories: Vec<String>,
}

/// A running token server. It ends with the test process.
#[derive(Debug)]
pub struct TokenServer {
    /// `https://127.0.0.1:PORT/token`
    pub realm: String,
    /// The certificate that tokens are checked with, PEM: that of the test's authority.
    pub root: std::path::PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: rcgen::KeyPair,
    /// DER of the certificate, in base64.
    certificate: String,
}

impl TokenServer {
    /// Starts it. It serves, and signs, with the certificate of the test.
    ///
    /// # Errors
    /// Certificates that cannot be read, or no free port.
    pub fn start(ca: &Ca, users: BTreeMap<String, User>) -> Result<Self, Problem> {
        let chain = CertificateDer::pem_slice_iter(&fs::read(&ca.certificate)?).collect::<Result<Vec<_>, _>>()?;
        let signer = Arc::new(Signer {
            key: rcgen::KeyPair::from_pem(&fs::read_to_string(&ca.key)?)?,
            certificate: STANDARD.encode(chain.first().ok_or("no certificate")?),
        });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&fs::read(&ca.key)?)?)?;
        let (config, users) = (Arc::new(config), Arc::new(users));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let realm = format!("https://{}/token", listener.local_addr()?);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, users, signer, told) =
                    (Arc::clone(&config), Arc::clone(&users), Arc::clone(&signer), Arc::clone(&told));
                std::thread::spawn(move || drop(answer(stream, config, &users, &signer, &told)));
            }
        });
        Ok(Self { realm, root: ca.ca.clone(), asked })
    }

    /// The names of those who asked, in order; empty for nobody.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    users: &BTreeMap<String, User>,
    signer: &Signer,
    told: &Mutex<Vec<String>>,
) -> Result<(), Problem> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let (mut user, mut password, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => {
                let pair = String::from_utf8(STANDARD.decode(value.trim_start_matches("Basic "))?)?;
                let (name, secret) = pair.split_once(':').ok_or("no password")?;
                (user, password) = (name.to_owned(), secret.to_owned());
            }
            "content-length" => length = value.parse()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let query =
        request.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query).to_owned();
    let query: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    told.lock().unwrap_or_else(PoisonError::into_inner).push(user.clone());
    let known = users.get(&user);
    let (status, text) = if !user.is_empty() && known.is_none_or(|known| known.password != password) {
        ("401 Unauthorized", "{}".to_owned())
    } else {
        let granted = known.map(|known| known.repositories.clone()).unwrap_or_default();
        ("200 OK", json!({"token": token(signer, &query, &user, &granted)?, "expires_in": 300}).to_string())
    };
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// A token for what was asked, as far as it is granted (the distribution token specification).
fn token(signer: &Signer, query: &BTreeMap<String, String>, user: &str, granted: &[String]) -> Result<String, Problem> {
    let mut access = Vec::new();
    for scope in query.get("scope").map_or("", String::as_str).split(' ') {
        // `repository:HOST:PORT/PATH:pull,push`: the name may have colons in it.
        let Some((kind, rest)) = scope.split_once(':') else { continue };
        let Some((name, actions)) = rest.rsplit_once(':') else { continue };
        if granted.iter().any(|allowed| allowed == name) {
            access.push(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}));
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let ecdsa = signer.key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256;
    let header = json!({"typ": "JWT", "alg": if ecdsa { "ES256" } else { "RS256" }, "x5c": [signer.certificate]});
    let claims = json!({
        "iss": "countersign-test", "sub": user, "aud": query.get("service"), "exp": now + 300, "nbf": now - 60,
        "iat": now, "jti": format!("{now}-{user}"), "access": access,
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = signer.key.sign(text.as_bytes())?;
    if ecdsa {
        signature = raw(&signature).ok_or("a signature of an odd form")?;
    }
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The two numbers of an ECDSA signature in DER, each in 32 bytes (RFC 7518 §3.4).
fn raw(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut out = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let number = &number[number.len().saturating_sub(32)..];
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        rest = rest.get(2 + length..)?;
    }
    Some(out)
}
