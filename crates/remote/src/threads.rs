//! Threads for work that takes a processor for long, and much memory.
//!
//! They are few, so that processors stay free for everything else; and always the same ones, as an allocator keeps for each
//! thread what it needed most.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// The most threads there are: large repositories are few, and hostile ones can wait.
const MAX_THREADS: usize = 2;

/// How far the threads stand back: a tenth of the share that others get.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end with the last handle.
#[derive(Clone)]
pub(crate) struct Threads {
    jobs: Sender<Job>,
    threads: usize,
}

impl Threads {
    /// As many threads as half of the processors, within bounds.
    pub(crate) fn start() -> Self {
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (sender, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = (processors / 2).clamp(1, MAX_THREADS);
        for _ in 0..threads {
            let jobs = Arc::clone(&jobs);
            thread::spawn(move || {
                give_way();
                work(&jobs);
            });
        }
        Self { jobs: sender, threads }
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Does something on one of the threads, in the order in which it was asked for; `None` if it panicked. What nobody waits
    /// for any more when its turn comes is not done.
    pub(crate) async fn run<T: Send + 'static>(&self, something: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, waiting) = oneshot::channel();
        let job = move || {
            if !done.is_closed() {
                let _ = done.send(something());
            }
        };
        self.jobs.send(Box::new(job)).ok()?;
        waiting.await.ok()
    }
}

/// Lets the other threads go first (Linux: a thread has a niceness of its own, `setpriority(2)`). Where that is not to be had,
/// they share.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        // A fault costs its own job and not the thread.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_costs_one_job() {
        let threads = Threads::start();
        for round in 0..10 {
            assert_eq!(threads.run(|| panic!("as the test wants it")).await, None::<()>);
            assert_eq!(threads.run(move || round).await, Some(round));
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_done() {
        let threads = Threads::start();
        let (release, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        // All threads are busy until the test lets go.
        let busy: Vec<_> = (0..MAX_THREADS)
            .map(|_| {
                let (threads, held) = (threads.clone(), Arc::clone(&held));
                tokio::spawn(
                    async move { threads.run(move || held.lock().map(|held| held.recv().is_ok()).is_ok()).await },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        let (given_up, still_wanted) = (Arc::new(Mutex::new(false)), threads.clone());
        let done = Arc::clone(&given_up);
        let mut abandoned = Box::pin(threads.run(move || *done.lock().unwrap() = true));
        assert!(futures::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        for _ in 0..MAX_THREADS {
            release.send(()).unwrap();
        }
        for busy in busy {
            busy.await.unwrap();
        }
        still_wanted.run(|| ()).await.unwrap();
        assert!(!*given_up.lock().unwrap());
    }
}
