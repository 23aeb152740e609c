//! The two servers: reviews over TLS, and probes and metrics in plain HTTP on a port of their own.

pub(crate) mod admit;
pub(crate) mod answer;
pub(crate) mod bodies;
mod bytes;
pub(crate) mod health;
pub(crate) mod seats;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use futures::future;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::io::InspectReader;
use tower::Service as _;
use tracing::debug;

use crate::metrics::SharedMetrics;
use crate::tls::clients::Clients;
use seats::{Closed, SWEEP, Seat, Seats};

/// How much is read ahead of one connection, and so how large the head of a request may be: API servers send a few hundred
/// bytes. It bounds what the connections that say much and mean nothing can take together.
const READ_AHEAD: usize = 16 << 10;

/// How large the head of a request may be with HTTP/2, once it is unpacked: a byte on the wire may stand for a hundred.
const MAX_HEAD: u32 = 8 << 10;

/// How much of the bodies of HTTP/2 may arrive before somebody reads it, of a connection and of each of its requests.
const WINDOW: u32 = 64 << 10;

/// How much the system keeps of what a client has not taken yet: by default it may be megabytes of a connection, which count for the
/// container's memory too.
const SEND_BUFFER: usize = 64 << 10;

/// How many requests may be under way on one connection of HTTP/2. Clients open another one for more.
const MAX_STREAMS: u32 = 64;

/// How often a quiet connection of HTTP/2 is asked whether the other end is still there, and how long it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// How long a connection that is told to close has to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long requests under way may take to end once a stop was asked for: more than any review's deadline.
const GRACE: Duration = Duration::from_secs(35);

/// Becomes true when the process is to stop.
pub(crate) type Stop = watch::Receiver<bool>;

/// Opens a port.
///
/// # Errors
/// The address, with the system's reason.
pub(crate) async fn listen(address: SocketAddr, flag: &str) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{flag} {address}: {error}"));
    TcpListener::bind(address).await.map_err(named)
}

/// Lets this process open as many files as it may: each connection is one. Where the limit cannot be raised, connections beyond it
/// wait until others are closed.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A port, and what answers there.
pub(crate) struct Port {
    /// Where connections come in.
    pub listener: TcpListener,
    /// How connections are encrypted; `None` for plain HTTP.
    pub tls: Option<ServerConfig>,
    /// Takes note of clients that TLS refuses for their certificates.
    pub clients: Option<Arc<Clients>>,
    /// Answers requests.
    pub router: Router,
    /// As the metrics name it.
    pub name: &'static str,
    /// Becomes true some time before the stop. From then on requests are still answered, and clients are told to use other
    /// connections for the next: to close one at once may cross a request that is on its way.
    pub leaving: Stop,
    /// Told when connections that are open now are better made anew, as this replica can decide nothing; `None` for never.
    pub turn_away: Option<watch::Receiver<u64>>,
}

/// Serves a port until a stop is asked for, then finishes what has begun.
pub(crate) async fn serve(port: Port, metrics: SharedMetrics, mut stop: Stop) {
    let Port { listener, tls, clients, router, name, leaving, turn_away } = port;
    let server = Server {
        acceptor: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
        clients,
        router,
        seats: Arc::default(),
        stop: stop.clone(),
        leaving,
        turn_away,
        name,
        metrics,
    };
    let sweeping = tokio::spawn(sweep(server.clone()));
    // Every connection holds a sender, so that the receiver ends with the last of them.
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: others are about to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(seat) = server.seat(peer.ip()) else {
            continue;
        };
        let (server, open) = (server.clone(), open.clone());
        tokio::spawn(async move {
            let _open = open;
            if let Err(problem) = server.connection(stream, peer, &seat).await {
                debug!(%problem, source = %seat.source(), "connection ended");
            }
            server.seats.give_back(&seat);
        });
    }
    drop((listener, open));
    let _ = tokio::time::timeout(GRACE, ended.recv()).await;
    sweeping.abort();
}

/// Looks at the connections every now and then, for ever.
async fn sweep(server: Server) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for reason in server.seats.sweep(Instant::now()) {
            server.closed(reason);
        }
        server.metrics.connections(server.name, server.seats.count());
        server.metrics.connections_max(server.name, seats::SEATS);
    }
}

/// What all connections of a port share.
#[derive(Clone)]
struct Server {
    acceptor: Option<TlsAcceptor>,
    clients: Option<Arc<Clients>>,
    router: Router,
    seats: Arc<Seats>,
    stop: Stop,
    leaving: Stop,
    turn_away: Option<watch::Receiver<u64>>,
    name: &'static str,
    metrics: SharedMetrics,
}

impl Server {
    fn closed(&self, reason: Closed) {
        self.metrics.connection_closed(self.name, reason.label());
    }

    /// A seat for a newcomer, if there is one.
    fn seat(&self, source: IpAddr) -> Option<Arc<Seat>> {
        match self.seats.take(source, Instant::now()) {
            Ok((seat, displaced)) => {
                if let Some(reason) = displaced {
                    self.closed(reason);
                }
                Some(seat)
            }
            Err(reason) => {
                self.closed(reason);
                None
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, seat: &Arc<Seat>) -> Result<(), String> {
        let _ = stream.set_nodelay(true);
        // Where this cannot be had, the system's own size is as good.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
        let listener = Arc::clone(seat);
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            if !bytes.is_empty() {
                listener.heard(Instant::now());
            }
        });
        let Some(acceptor) = &self.acceptor else {
            seat.established(false, Instant::now());
            return self.http1(stream, seat).await;
        };
        let stream = tokio::select! {
            stream = acceptor.accept(stream) => stream.map_err(|error| {
                if let Some(clients) = &self.clients {
                    clients.failed(peer, &error);
                }
                format!("handshake: {error}")
            })?,
            () = seat.told_to_leave() => return Err("handshake: it took too long".to_owned()),
        };
        // What was agreed on decides, not what arrives first: to guess from that means to wait for it.
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        seat.established(http2, Instant::now());
        if http2 { self.http2(stream, seat).await } else { self.http1(stream, seat).await }
    }

    /// Answers a request, and takes note of it.
    async fn answer(
        mut router: Router,
        seat: Arc<Seat>,
        leaving: Stop,
        request: hyper::Request<Incoming>,
    ) -> Result<axum::response::Response, Infallible> {
        let _request = seat.request();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&seat));
        let is_http1 = request.version() < Version::HTTP_2;
        let mut response = router.call(request).await?;
        if response.status().is_success() {
            seat.prove();
        }
        if is_http1 && *leaving.borrow() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn http1<S>(&self, stream: S, seat: &Arc<Seat>) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service =
            service_fn(|request| Self::answer(self.router.clone(), Arc::clone(seat), self.leaving.clone(), request));
        let mut builder = http1::Builder::new();
        // How long a head may take is for the seats.
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(READ_AHEAD);
        let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        self.drive(seat, connection, &self.stop, http1::Connection::graceful_shutdown).await
    }

    async fn http2<S>(&self, stream: S, seat: &Arc<Seat>) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, requests, leaving) = (self.router.clone(), Arc::clone(seat), self.leaving.clone());
        let service =
            service_fn(move |request| Self::answer(router.clone(), Arc::clone(&requests), leaving.clone(), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD);
        builder.initial_connection_window_size(WINDOW).initial_stream_window_size(WINDOW);
        builder.keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
        let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        // It can be told to stop early: it says which requests it still takes.
        self.drive(seat, connection, &self.leaving, http2::Connection::graceful_shutdown).await
    }

    /// Serves a connection to its end: its own, or the one that it is told to come to once it has lost its seat, or is to stop.
    async fn drive<C, E>(
        &self,
        seat: &Seat,
        mut connection: Pin<&mut C>,
        stop: &Stop,
        graceful_shutdown: impl Fn(Pin<&mut C>),
    ) -> Result<(), String>
    where
        C: Future<Output = Result<(), E>>,
        E: std::fmt::Display,
    {
        let text = |served: Result<(), E>| served.map_err(|error| error.to_string());
        let end = tokio::select! {
            served = connection.as_mut() => return text(served),
            end = self.end(seat, stop) => end,
        };
        graceful_shutdown(connection.as_mut());
        if end == End::WhenDone {
            tokio::select! {
                served = connection.as_mut() => return text(served),
                () = seat.told_to_leave() => {}
            }
        }
        tokio::time::timeout(GOODBYE, connection).await.map_or(Ok(()), text)
    }

    /// Resolves when a connection is to end, with how.
    async fn end(&self, seat: &Seat, stop: &Stop) -> End {
        let (mut stop, turn_away) = (stop.clone(), self.turn_away.clone());
        let turned_away = async {
            match turn_away {
                Some(mut turn_away) => {
                    turn_away.mark_unchanged();
                    // Whoever could tell is there as long as the server is.
                    if turn_away.changed().await.is_err() {
                        future::pending::<()>().await;
                    }
                }
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = seat.told_to_leave() => End::Soon,
            _ = stop.wait_for(|stop| *stop) => End::WhenDone,
            () = turned_away => End::WhenDone,
        }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has lost its seat.
    Soon,
    /// After the requests that are under way.
    WhenDone,
}

/// Two receivers: the first turns true at SIGTERM or SIGINT, the second that long after it, or at the next signal.
///
/// # Errors
/// A system without signals.
pub(crate) fn stop_on_signals(delay: Duration) -> io::Result<(Stop, Stop)> {
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"fine") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed before the answer");
        }
    }

    /// A replica that can decide nothing closes the connections that are open, and takes new ones; one that stops closes all.
    #[tokio::test]
    async fn connections_are_made_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "fine" }));
        let (turn_away, away) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let (leave, leaving) = watch::channel(false);
        let turn_away_too = Some(away);
        let port = Port { listener, tls: None, clients: None, router, name: "test", leaving, turn_away: turn_away_too };
        let served = tokio::spawn(serve(port, SharedMetrics::default(), stopped));
        let mut first = TcpStream::connect(address).await.unwrap();
        ask(&mut first).await;
        ask(&mut first).await;
        turn_away.send_modify(|times| *times += 1);
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        let (mut second, mut third) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        ask(&mut second).await;
        ask(&mut third).await;
        // One more request is answered, and then the client knows.
        leave.send(true).unwrap();
        ask(&mut second).await;
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        let mut fourth = TcpStream::connect(address).await.unwrap();
        ask(&mut fourth).await;
        assert_eq!(fourth.read(&mut [0]).await.unwrap(), 0);
        stop.send(true).unwrap();
        assert_eq!(third.read(&mut [0]).await.unwrap(), 0);
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
