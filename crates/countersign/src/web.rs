//! The two servers: reviews over TLS, and probes and metrics in plain HTTP on a port of their own.

pub mod admit;
pub mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

/// How long a TLS handshake, and after it the headers of a request, may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections are served at once. An API server keeps a handful open.
const MAX_CONNECTIONS: usize = 1024;

/// How long requests under way may take to end once a stop was asked for: more than any review's deadline.
const GRACE: Duration = Duration::from_secs(35);

/// Becomes true when the process is to stop.
pub type Stop = watch::Receiver<bool>;

/// Opens a port.
///
/// # Errors
/// The address, with the system's reason.
pub async fn listen(address: SocketAddr, flag: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{flag} {address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// Serves a router until a stop is asked for, then finishes what has begun.
pub async fn serve(listener: TcpListener, tls: Option<ServerConfig>, router: Router, mut stop: Stop) {
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let graceful = GracefulShutdown::new();
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(256).max_header_list_size(64 << 10);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: others are about to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, builder, router, watcher) =
            (acceptor.clone(), builder.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _seat = seat;
            let service = TowerToHyperService::new(router);
            let served = match shake_hands(acceptor, stream).await {
                Ok(Connection::Tls(stream)) => {
                    let connection = builder.serve_connection(TokioIo::new(*stream), service);
                    watcher.watch(connection.into_owned()).await
                }
                Ok(Connection::Plain(stream)) => {
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    watcher.watch(connection.into_owned()).await
                }
                Err(problem) => {
                    debug!(%problem, "handshake failed");
                    return;
                }
            };
            if let Err(problem) = served {
                debug!(%problem, "connection ended");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
}

enum Connection {
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    Plain(TcpStream),
}

async fn shake_hands(acceptor: Option<TlsAcceptor>, stream: TcpStream) -> io::Result<Connection> {
    let Some(acceptor) = acceptor else {
        return Ok(Connection::Plain(stream));
    };
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    Ok(Connection::Tls(Box::new(stream)))
}

/// Two receivers: the first turns true at SIGTERM or SIGINT, the second that long after it, or at the next signal.
///
/// # Errors
/// A system without signals.
pub fn stop_on_signals(delay: Duration) -> io::Result<(Stop, Stop)> {
    use tokio::signal::unix::{SignalKind, signal};
    let (asked, is_asked) = watch::channel(false);
    let (sender, receiver) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = asked.send(true);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = sender.send(true);
        // Held so that receivers see the value and not a closed channel.
        std::future::pending::<()>().await;
    });
    Ok((is_asked, receiver))
}
