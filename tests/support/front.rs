//! Stands in for a Service: passes connections on to whichever of its backends takes them.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Problem;

/// A port of loopback with backends behind it. It ends with the test process.
#[derive(Debug, Clone)]
pub struct Front {
    /// The port.
    pub port: u16,
    backends: Arc<Mutex<Vec<u16>>>,
}

impl Front {
    /// Opens a port, without backends.
    ///
    /// # Errors
    /// No free port.
    pub fn open() -> Result<Self, Problem> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let backends = Arc::new(Mutex::new(Vec::new()));
        let shown: Arc<Mutex<Vec<u16>>> = Arc::clone(&backends);
        let turn = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let ports = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                let backend = (0..ports.len())
                    .filter_map(|next| ports.get((first + next) % ports.len()))
                    .find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok());
                if let Some(backend) = backend {
                    join(&client, &backend);
                }
            }
        });
        Ok(Self { port, backends })
    }

    /// Passes new connections to these ports; those that are open stay where they are.
    pub fn set(&self, ports: &[u16]) {
        ports.clone_into(&mut self.backends.lock().unwrap_or_else(PoisonError::into_inner));
    }
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
