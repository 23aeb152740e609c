//! Stands in for a Service: passes connections on to whichever of its backends takes them.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Problem;

/// A port of this machine's own address with backends behind it. It ends with the test process.
///
/// Not of loopback: API servers keep connections to loopback apart from others, and open one for each webhook and path elsewhere.
#[derive(Debug, Clone)]
pub struct Front {
    /// The machine's address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    backends: Arc<Mutex<Vec<u16>>>,
    /// Those that were opened since [`Self::only`].
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Front {
    /// Opens a port, without backends.
    ///
    /// # Errors
    /// No free port, or no address but loopback.
    pub fn open() -> Result<Self, Problem> {
        let address = own_address()?;
        let listener = TcpListener::bind((address, 0))?;
        let port = listener.local_addr()?.port();
        let backends = Arc::new(Mutex::new(Vec::new()));
        let shown: Arc<Mutex<Vec<u16>>> = Arc::clone(&backends);
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let opened = Arc::clone(&open);
        let turn = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let ports = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let backend = (0..ports.len())
                    .filter_map(|next| ports.get((first + next) % ports.len()))
                    .find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok());
                if let Some(backend) = backend {
                    opened.lock().unwrap_or_else(PoisonError::into_inner).extend(client.try_clone());
                    join(&client, &backend);
                }
            }
        });
        Ok(Self { address, port, backends, open })
    }

    /// Passes new connections to these ports; those that are open stay where they are.
    pub fn set(&self, ports: &[u16]) {
        ports.clone_into(&mut self.backends.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Passes new connections to this port, and ends those that are open: whoever has some asks this backend from now on.
    pub fn only(&self, port: u16) {
        self.set(&[port]);
        self.end_all();
    }

    /// Passes nothing on, and ends what is open: nobody answers until the next [`Self::set`].
    pub fn nobody(&self) {
        self.set(&[]);
        self.end_all();
    }

    fn end_all(&self) {
        for open in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = open.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The address that this machine would send from. Nothing is sent: a datagram socket that is connected only looks up the way.
fn own_address() -> Result<IpAddr, Problem> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9").map_err(|error| format!("this machine has no address but loopback: {error}"))?;
    let address = socket.local_addr()?.ip();
    if address.is_loopback() { Err("this machine has no address but loopback".into()) } else { Ok(address) }
}

/// Copies both ways until either side is done.
fn join(client: &TcpStream, backend: &TcpStream) {
    let pump = |from: &TcpStream, to: &TcpStream| -> io::Result<()> {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
        });
        Ok(())
    };
    let _ = pump(client, backend).and_then(|()| pump(backend, client));
}
