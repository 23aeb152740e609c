//! Lines on their way to the log: a thread of its own writes them, many at once, so that no review waits for each write.
//!
//! Nothing is lost: where whoever reads the log is behind by more than [`MOST`], reviews wait for it, as they would if they wrote
//! themselves; and a process that ends writes first what is left.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes may wait to be written: some hundred lines of the largest workloads, a thousand of pods.
const MOST: usize = 1 << 20;

/// After how long it is tried again to write where that would have to be waited for.
const AGAIN: Duration = Duration::from_millis(10);

/// How long a process that ends waits for whoever reads its log, and reads nothing.
const AT_END: Duration = Duration::from_secs(5);

/// Lines that wait to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when something waits.
    more: Condvar,
    /// Told when something was written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Whether the thread writes something just now.
    writes: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Starts a thread that writes to this.
    ///
    /// # Errors
    /// The system has no thread.
    pub(crate) fn to(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let shared = Arc::clone(&lines.0);
        let write = move || {
            let mut taken = Vec::new();
            loop {
                let mut state = shared.state();
                state.writes = false;
                shared.written.notify_all();
                while state.waiting.is_empty() {
                    state = shared.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut state.waiting, &mut taken);
                state.writes = true;
                drop(state);
                // A log that cannot be written must not keep reviews from being answered.
                write(&mut out, &taken);
                taken.clear();
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(lines)
    }

    /// Adds a whole line, with what ends it. It waits while too much waits already.
    pub(crate) fn add(&self, line: &[u8]) {
        let mut state = self.0.state();
        // However long a line is, it is written if nothing else waits.
        while !state.waiting.is_empty() && state.waiting.len() + line.len() > MOST {
            state = self.0.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let wake = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if wake {
            self.0.more.notify_one();
        }
    }

    /// Waits until everything is written that was added before, or nothing was for [`AT_END`].
    pub(crate) fn flush(&self) {
        let mut state = self.0.state();
        while state.writes || !state.waiting.is_empty() {
            let waited = self.0.written.wait_timeout(state, AT_END).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return;
            }
            state = waited.0;
        }
    }
}

/// Writes all of it. Where nobody may wait for whoever reads, it is tried again and again.
fn write(out: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(_) => return,
        }
    }
    let _ = out.flush();
}

/// `tracing` hands over each line as a whole.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What somebody reads of a log, when they like.
    struct Read(mpsc::SyncSender<Vec<u8>>);

    impl Write for Read {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whoever reads slowly gets every line, in its order, and holds up those who write once too much waits.
    #[test]
    fn nothing_is_lost_and_not_too_much_waits() {
        let (sender, read) = mpsc::sync_channel(0);
        let lines = Lines::to(Read(sender)).unwrap();
        let line = |number: usize| format!("{number} {}\n", "x".repeat(MOST / 8));
        let writing = lines.clone();
        let writer = std::thread::spawn(move || {
            for number in 0..100 {
                writing.add(line(number).as_bytes());
                assert!(writing.0.state().waiting.len() <= MOST);
            }
            writing.flush();
        });
        let all: Vec<u8> = (0..100).flat_map(|number| line(number).into_bytes()).collect();
        let mut seen = Vec::new();
        while seen.len() < all.len() {
            seen.extend(read.recv().unwrap());
        }
        writer.join().unwrap();
        assert_eq!(seen, all);
    }

    /// Takes three bytes at most, and nothing each second time.
    struct Reluctant(mpsc::Sender<Vec<u8>>, bool);

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = &bytes[..bytes.len().min(3)];
            self.0.send(taken.to_vec()).map_err(io::Error::other)?;
            Ok(taken.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_must_not_be_waited_for_gets_everything() {
        let (sender, read) = mpsc::channel();
        let lines = Lines::to(Reluctant(sender, false)).unwrap();
        lines.add(b"one line\n");
        lines.flush();
        assert_eq!(read.try_iter().flatten().collect::<Vec<_>>(), b"one line\n");
    }

    #[test]
    fn a_line_of_any_length_is_written() {
        let (sender, read) = mpsc::sync_channel(4);
        let lines = Lines::to(Read(sender)).unwrap();
        lines.add(&vec![b'x'; 2 * MOST]);
        lines.flush();
        assert_eq!(read.try_recv().unwrap().len(), 2 * MOST);
    }
}
