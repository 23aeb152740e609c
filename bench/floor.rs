//! The floor: a server on the same libraries as Countersign's, which reads each body and answers with a file.
//!
//! It is what TLS, HTTP and the router cost, and nothing else: no limits, no connections to keep count of, nothing of a review.
//! `floor PORT CERTIFICATE KEY FOLDER`: the answer to a POST to `/NAME` is the file `NAME` of the folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{env, fs};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use countersign_bench::Problem;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

/// The answers by the last part of the path.
type Answers = Arc<BTreeMap<String, Bytes>>;

async fn answer(State(answers): State<Answers>, Path(name): Path<String>, request: Request<Body>) -> Response {
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    match answers.get(&name) {
        Some(answer) if !bytes.is_empty() => {
            ([(header::CONTENT_TYPE, "application/json")], answer.clone()).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn connection(acceptor: TlsAcceptor, router: Router, stream: TcpStream) -> Result<(), Problem> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await }
    });
    if http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await?;
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    }
    Ok(())
}

async fn serve(port: u16, acceptor: TlsAcceptor, answers: Answers) -> Result<(), Problem> {
    let router = Router::new().route("/{name}", post(answer)).with_state(answers);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            // Whoever measures opens and closes connections as it likes.
            let _ = connection(acceptor, router, stream).await;
        });
    }
}

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [port, certificate, key, folder] = arguments.as_slice() else {
        return Err("floor PORT CERTIFICATE KEY FOLDER".into());
    };
    let mut answers = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        answers.insert(file.file_name().to_string_lossy().into_owned(), Bytes::from(fs::read(file.path())?));
    }
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(port.parse()?, acceptor, Arc::new(answers)))
}
