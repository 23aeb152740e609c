//! A registry over plain HTTP that answers whatever it is told, as no real one would: other bytes than were asked for, for one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_tests::Problem;
use serde_json::Value;

use crate::forgeries::digest;

/// What is answered to a question.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) kind: String,
    /// Further lines of its head.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

type Answers = Arc<Mutex<BTreeMap<String, Answer>>>;

/// It ends with the test process.
pub(crate) struct Liar {
    pub(crate) host: String,
    answers: Answers,
}

impl Liar {
    pub(crate) fn start() -> Result<Self, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let answers = Answers::default();
        let shown = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shown = Arc::clone(&shown);
                // A client that goes away is no failure of the test: what it made of the answer is judged elsewhere.
                std::thread::spawn(move || drop(converse(&stream, &shown)));
            }
        });
        Ok(Self { host, answers })
    }

    /// What is answered to `/v2/` and this path, with its query.
    pub(crate) fn say(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), answer);
    }

    pub(crate) fn blob(&self, repository: &str, bytes: &[u8]) {
        let answer = Answer { kind: "application/octet-stream".to_owned(), head: String::new(), body: bytes.to_vec() };
        self.say(&format!("{repository}/blobs/{}", digest(bytes)), answer);
    }

    /// Keeps a manifest under a tag and its digest, which it gives.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> String {
        let body = manifest.to_string().into_bytes();
        let digest = digest(&body);
        let kind = manifest["mediaType"].as_str().unwrap_or_default().to_owned();
        let answer = Answer { kind, head: format!("Docker-Content-Digest: {digest}\r\n"), body };
        self.say(&format!("{repository}/manifests/{digest}"), answer.clone());
        self.say(&format!("{repository}/manifests/{tag}"), answer);
        digest
    }
}

/// Answers one question.
fn converse(mut stream: &TcpStream, answers: &Answers) -> Result<(), Problem> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.strip_prefix("/v2/").unwrap_or("nowhere").replace("%3A", ":");
    let known = answers.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
    let status = if known.is_some() || path.is_empty() { "200 OK" } else { "404 Not Found" };
    let nothing = || Answer { kind: "application/json".to_owned(), head: String::new(), body: b"{}".to_vec() };
    let Answer { kind, head, body } = known.unwrap_or_else(nothing);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{head}Connection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(stream.flush()?)
}
