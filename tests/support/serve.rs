//! A trust server that shows whatever files it is given, over TLS: for repositories that no real server would keep.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge::Files;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Problem;
use crate::process::Ca;

/// How long a connection may stay silent.
const PATIENCE: Duration = Duration::from_secs(30);

type Mounts = Arc<Mutex<BTreeMap<String, Files>>>;

/// A server of files. Each mount is a trust server of its own, told apart by the first part of the path, and shows its
/// files for whatever repository it is asked. It ends with the test process.
#[derive(Debug)]
pub struct FileServer {
    url: String,
    mounts: Mounts,
}

impl FileServer {
    /// Starts it, without files.
    ///
    /// # Errors
    /// Certificates that cannot be read, or no free port.
    pub fn start(ca: &Ca) -> Result<Self, Problem> {
        let certificates =
            CertificateDer::pem_slice_iter(&fs::read(&ca.certificate)?).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&ca.key)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://{}", listener.local_addr()?);
        let mounts = Mounts::default();
        let shown = Arc::clone(&mounts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, shown) = (Arc::clone(&config), Arc::clone(&shown));
                // A client that goes away is no failure of the test: what it made of the answer is judged elsewhere.
                std::thread::spawn(move || drop(answer(stream, config, &shown)));
            }
        });
        Ok(Self { url, mounts })
    }

    /// Shows these files, in place of those that the mount had, and gives the trust server's URL.
    pub fn mount(&self, name: &str, files: Files) -> String {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), files);
        format!("{}/{name}", self.url)
    }
}

/// Answers one request, as `notary-server` would, and closes.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, mounts: &Mounts) -> Result<(), Problem> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = find(path, mounts);
    let body = found.as_deref().unwrap_or(
        br#"{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":{}}]}"#,
    );
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let stream = reader.get_mut();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// The body for `/MOUNT/v2/` or `/MOUNT/v2/GUN/_trust/tuf/FILE`.
fn find(path: &str, mounts: &Mounts) -> Option<Vec<u8>> {
    let (mount, rest) = path.strip_prefix('/')?.split_once("/v2/")?;
    let mounts = mounts.lock().unwrap_or_else(PoisonError::into_inner);
    let files = mounts.get(mount)?;
    if rest.is_empty() {
        return Some(b"{}".to_vec());
    }
    let (_gun, file) = rest.split_once("/_trust/tuf/")?;
    files.get(file).map(<[u8]>::to_vec)
}
