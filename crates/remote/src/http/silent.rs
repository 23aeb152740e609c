//! Hosts that are left alone for a while, since they did not answer: a dead server costs one review its time, not every one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::HttpError;

/// For how long a host is left alone that did not answer in time.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// How often in a row a host may take a connection and not answer before it is left alone.
const SILENT_TIMES: u32 = 3;

/// How many such hosts are remembered.
const MAX_SILENT: usize = 1024;

/// A host that did not answer in time since it last did.
struct Silence {
    /// How often.
    times: u32,
    /// Until when it is left alone, if it is.
    until: Option<Instant>,
    /// What was wrong.
    error: HttpError,
}

/// Hosts that did not answer a moment ago, by the namespace that was not answered and `HOST:PORT`. What one namespace asks for may be
/// slow by its own doing: that says nothing of what others ask the same host for.
#[derive(Default)]
pub(super) struct Silent(Mutex<HashMap<Key, Silence>>);

type Key = (String, String);

fn key(namespace: &str, host: &str) -> Key {
    (namespace.to_owned(), host.to_owned())
}

impl Silent {
    fn hosts(&self) -> MutexGuard<'_, HashMap<Key, Silence>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails at once for a host that let somebody wait in vain a moment ago: a dead server costs one review its time, not
    /// every one.
    pub(super) fn left_alone(&self, namespace: &str, host: &str) -> Result<(), HttpError> {
        match self.hosts().get(&key(namespace, host)) {
            Some(silence) if silence.until.is_some_and(|until| until > Instant::now()) => Err(silence.error.clone()),
            _ => Ok(()),
        }
    }

    /// Takes note of a host that answers.
    pub(super) fn answers(&self, namespace: &str, host: &str) {
        let mut hosts = self.hosts();
        if !hosts.is_empty() {
            hosts.remove(&key(namespace, host));
        }
    }

    /// Takes note of a host that did not answer in time. One that does not even take a connection is down; one that does may
    /// be slow with one request, and is left alone when that goes on.
    pub(super) fn says_nothing(&self, namespace: &str, host: &str, error: &HttpError, unconnected: bool) {
        let key = key(namespace, host);
        let mut silent = self.hosts();
        let now = Instant::now();
        if silent.len() >= MAX_SILENT {
            silent.retain(|_, silence| silence.until.is_some_and(|until| until > now));
        }
        if silent.len() >= MAX_SILENT && !silent.contains_key(&key) {
            return;
        }
        let silence = silent.entry(key).or_insert_with(|| Silence { times: 0, until: None, error: error.clone() });
        silence.times += 1;
        if unconnected || silence.times >= SILENT_TIMES {
            silence.until = Some(now + LEFT_ALONE);
        }
    }

    /// Moves the moment until when a host is left alone; says whether it is.
    #[cfg(test)]
    pub(super) fn leave_alone_until(&self, namespace: &str, host: &str, until: Instant) -> bool {
        self.hosts().get_mut(&key(namespace, host)).and_then(|silence| silence.until.replace(until)).is_some()
    }
}
