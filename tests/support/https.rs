//! A small HTTPS server for the parts that tests play themselves: one request a connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::Problem;
use crate::process::Ca;

/// How long a connection may stay silent: so that a thread which waits for nothing ends some time.
const PATIENCE: Duration = Duration::from_secs(600);

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// The path, with its query.
    pub(crate) path: String,
    /// Headers, by their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// A status line's end, such as `200 OK`, and a body.
pub(crate) type Response = (&'static str, Vec<u8>);

/// Serves on a free port of loopback, with the certificate of the test, until the test process ends. Gives the address.
///
/// # Errors
/// Certificates that cannot be read, or no free port.
pub(crate) fn serve(
    ca: &Ca,
    answer: impl Fn(&Request) -> Result<Response, Problem> + Send + Sync + 'static,
) -> Result<SocketAddr, Problem> {
    let chain = CertificateDer::pem_slice_iter(&fs::read(&ca.certificate)?).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&fs::read(&ca.key)?)?)?;
    let (config, answer) = (Arc::new(config), Arc::new(answer));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, answer) = (Arc::clone(&config), Arc::clone(&answer));
            // A client that goes away is no failure of the test: what it made of the answer is judged elsewhere.
            std::thread::spawn(move || drop(converse(stream, config, answer.as_ref())));
        }
    });
    Ok(address)
}

fn converse(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answer: &(impl Fn(&Request) -> Result<Response, Problem> + ?Sized),
) -> Result<(), Problem> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let request = read(&mut reader)?;
    let (status, body) = answer(&request)?;
    let stream = reader.get_mut();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn read(reader: &mut impl BufRead) -> Result<Request, Problem> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { path, headers, body })
}
