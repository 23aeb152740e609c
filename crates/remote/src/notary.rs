//! Repositories on trust servers: fetched, verified, kept, and fetched again when they may have changed.
//!
//! Concurrent reviews of one repository share one flight. What a flight verifies is kept and looked at again after
//! [`Options::refresh`]; a flight that ends badly is shared with those who waited for it and then forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_notary::{Answer, Error, Memory, Repository, Request, RootPins, Step, Update};
use countersign_policy::TrustServer;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use thiserror::Error as ThisError;
use url::Url;

use crate::credentials::{AuthError, Authenticator};
use crate::http::{HttpClient, HttpError, host_port};
use crate::state::{StateError, StateStore};

/// How many files of one repository are fetched at once.
const PARALLEL_FETCHES: usize = 16;

/// The most bytes that one update of one repository may bring in all: twice the largest file that is read.
const MAX_UPDATE_BYTES: u64 = 64 << 20;

/// How many verified repositories are kept. Beyond that the one that was used longest ago is dropped; what is
/// remembered against rollback stays.
const MAX_KEPT: usize = 4096;

/// The wall clock, which expiries are compared with.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Told of trouble that changes no decision, such as a memory that could not be written.
pub type OnTrouble = Arc<dyn Fn(&StateError) + Send + Sync>;

/// How the client behaves.
#[derive(Clone)]
pub struct Options {
    /// For how long a verified repository is believed without asking its server again.
    pub refresh: Duration,
    /// For how long after that an unexpired one may still be used if its server cannot be reached.
    pub stale: Duration,
    /// How long one flight may take in all.
    pub flight: Duration,
    /// The wall clock.
    pub clock: Clock,
    /// Where memories are kept across restarts, if anywhere.
    pub state: Option<Arc<dyn StateStore>>,
    /// Told of memories that could not be written.
    pub on_trouble: OnTrouble,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("refresh", &self.refresh)
            .field("stale", &self.stale)
            .field("flight", &self.flight)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Why a repository is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Failure {
    /// It was looked at, and is not trusted.
    #[error("{0}")]
    Untrusted(Box<Error>),
    /// The server could not be asked.
    #[error("{0}")]
    Http(HttpError),
    /// The server wants a login that we do not have.
    #[error("{0}")]
    Auth(AuthError),
    /// What is remembered of it cannot be read, so it cannot be told whether it went backwards.
    #[error("{0}")]
    State(StateError),
    /// The repository is larger than anything sound.
    #[error("the metadata of {gun} on {host} is more than {} MiB", MAX_UPDATE_BYTES >> 20)]
    TooMuch {
        /// The repository.
        gun: String,
        /// `HOST:PORT`
        host: String,
    },
    /// The server did not bring everything in time.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// `HOST:PORT`
        host: String,
    },
    /// The name cannot be put into an address of the server.
    #[error("{gun:?} cannot be asked for")]
    BadName {
        /// The repository.
        gun: String,
    },
    /// The flight broke off.
    #[error("the verification of {gun} broke off; this is a fault of Countersign")]
    Broken {
        /// The repository.
        gun: String,
    },
}

impl Failure {
    /// Whether nothing was decided: the server was not reached, or would not talk.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !matches!(self, Self::Untrusted(_) | Self::TooMuch { .. } | Self::BadName { .. })
    }
}

type Outcome = Result<Arc<Repository>, Failure>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// Which repository on which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    server: String,
    gun: String,
}

/// What is kept of one repository.
#[derive(Default)]
struct Slot {
    kept: Option<Kept>,
    /// Kept even where the repository is dropped: against rollback.
    memory: Option<Memory>,
    flights: HashMap<RootPins, Flight>,
}

#[derive(Clone)]
struct Kept {
    repository: Arc<Repository>,
    asked: Instant,
    used: Instant,
}

/// Client of any number of trust servers.
#[derive(Clone)]
pub struct NotaryClient {
    http: HttpClient,
    auth: Arc<Authenticator>,
    options: Options,
    slots: Arc<Mutex<HashMap<Key, Slot>>>,
    /// Held while a memory is written, so that an older one never replaces a newer one.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl std::fmt::Debug for NotaryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotaryClient").field("options", &self.options).finish_non_exhaustive()
    }
}

impl NotaryClient {
    /// Makes a client.
    #[must_use]
    pub fn new(http: HttpClient, auth: Authenticator, options: Options) -> Self {
        Self { http, auth: Arc::new(auth), options, slots: Arc::default(), writing: Arc::default() }
    }

    /// The verified repository `gun` of a server, whose root stands under the pins.
    ///
    /// Whether it is still valid is checked against the clock by whoever asks it something.
    ///
    /// # Errors
    /// Why it is not trusted, or could not be looked at.
    pub async fn repository(&self, server: &TrustServer, gun: &str, pins: &RootPins) -> Outcome {
        let key = Key { server: server.as_str().to_owned(), gun: gun.to_owned() };
        let flight = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.entry(key.clone()).or_default();
            if let Some(kept) = &mut slot.kept
                && kept.asked.elapsed() < self.options.refresh
                && kept.repository.root().satisfies(pins)
            {
                kept.used = Instant::now();
                return Ok(Arc::clone(&kept.repository));
            }
            let start = || self.start(key.clone(), pins.clone());
            slot.flights.entry(pins.clone()).or_insert_with(start).clone()
        };
        flight.await
    }

    /// A flight runs on its own, so that a review which gives up takes nobody else's answer with it.
    fn start(&self, key: Key, pins: RootPins) -> Flight {
        let client = self.clone();
        let broken = Failure::Broken { gun: key.gun.clone() };
        let task = tokio::spawn(async move {
            let timed_out = Failure::TimedOut { host: host_of(&key.server) };
            let flown = tokio::time::timeout(client.options.flight, client.fly(&key, &pins)).await;
            let (outcome, changed) = client.land(&key, &pins, flown.unwrap_or(Err(timed_out)));
            if changed {
                client.remember(&key).await;
            }
            outcome
        });
        async move { task.await.unwrap_or(Err(broken)) }.boxed().shared()
    }

    async fn fly(&self, key: &Key, pins: &RootPins) -> Outcome {
        let (held, mut memory) = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(key);
            let held = slot.and_then(|slot| slot.kept.as_ref()).map(|kept| Arc::clone(&kept.repository));
            (held, slot.and_then(|slot| slot.memory.clone()))
        };
        if let (None, Some(state)) = (&memory, &self.options.state) {
            let (state, server, gun) = (Arc::clone(state), key.server.clone(), key.gun.clone());
            let loaded = tokio::task::spawn_blocking(move || state.load(&server, &gun)).await;
            memory = loaded.map_err(|_| Failure::Broken { gun: key.gun.clone() })?.map_err(Failure::State)?;
        }
        let now = (self.options.clock)();
        let untrusted = |error| Failure::Untrusted(Box::new(error));
        let mut update = Update::start(&key.gun, held, memory.as_ref(), pins.clone(), now).map_err(untrusted)?;
        let fetcher = Fetcher { client: self, key, budget: AtomicU64::new(MAX_UPDATE_BYTES) };
        let mut answers = Vec::new();
        loop {
            match update.advance(answers).map_err(untrusted)? {
                Step::Done(repository) => return Ok(Arc::new(*repository)),
                Step::Fetch(requests) => {
                    let fetches: Vec<_> = requests.iter().map(|request| fetcher.fetch(request)).collect();
                    answers = stream::iter(fetches).buffered(PARALLEL_FETCHES).try_collect().await?;
                }
            }
        }
    }

    /// Keeps what a flight brought. A server that could not be reached leaves what is kept; one that was, and whose
    /// repository is not trusted, does not.
    /// Says too whether there is something new to remember.
    fn land(&self, key: &Key, pins: &RootPins, outcome: Outcome) -> (Outcome, bool) {
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(key) else {
            return (outcome, false);
        };
        slot.flights.remove(pins);
        let mut changed = false;
        let outcome = match outcome {
            Ok(repository) => {
                let memory = repository.memory().clone();
                changed = slot.memory.as_ref() != Some(&memory);
                slot.memory = Some(memory);
                slot.kept = Some(Kept { repository: Arc::clone(&repository), asked: now, used: now });
                Ok(repository)
            }
            Err(failure) if failure.is_undecided() => match &slot.kept {
                Some(kept)
                    if kept.asked.elapsed() < self.options.refresh + self.options.stale
                        && kept.repository.root().satisfies(pins) =>
                {
                    Ok(Arc::clone(&kept.repository))
                }
                _ => Err(failure),
            },
            Err(failure) => {
                // Pins are one policy's demand; that they are not met says nothing to the others.
                if !matches!(&failure, Failure::Untrusted(error) if matches!(**error, Error::RootNotPinned { .. })) {
                    slot.kept = None;
                }
                Err(failure)
            }
        };
        if slot.kept.is_none() && slot.memory.is_none() && slot.flights.is_empty() {
            slots.remove(key);
        }
        drop_oldest(&mut slots);
        (outcome, changed)
    }

    /// Writes a memory down, before the answer that rests on it is given: a restart right after must not forget it. Only a
    /// repository that changed is written, so most reviews never come here.
    async fn remember(&self, key: &Key) {
        let Some(state) = self.options.state.clone() else {
            return;
        };
        let _one_at_a_time = self.writing.lock().await;
        let memory = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.get(key).and_then(|slot| slot.memory.clone())
        };
        let (Some(memory), key) = (memory, key.clone()) else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || state.save(&key.server, &key.gun, &memory)).await;
        if let Ok(Err(error)) = written {
            (self.options.on_trouble)(&error);
        }
    }
}

fn drop_oldest(slots: &mut HashMap<Key, Slot>) {
    let kept = |slot: &Slot| slot.kept.as_ref().map(|kept| kept.used);
    if slots.values().filter(|slot| slot.kept.is_some()).count() <= MAX_KEPT {
        return;
    }
    let oldest = slots.iter().filter_map(|(key, slot)| Some((kept(slot)?, key.clone()))).min_by_key(|(used, _)| *used);
    if let Some(slot) = oldest.and_then(|(_, key)| slots.get_mut(&key)) {
        slot.kept = None;
    }
}

fn host_of(server: &str) -> String {
    Url::parse(server).map_or_else(|_| server.to_owned(), |url| host_port(&url))
}

/// Fetches the files of one update.
struct Fetcher<'a> {
    client: &'a NotaryClient,
    key: &'a Key,
    budget: AtomicU64,
}

impl Fetcher<'_> {
    async fn fetch(&self, request: &Request) -> Result<Answer, Failure> {
        let url = self.url(&request.file)?;
        let left = self.budget.load(Ordering::Relaxed);
        let limit = request.limit.min(left);
        let http = &self.client.http;
        let mut response = http.get(&url, None, limit).await.map_err(Failure::Http)?;
        if response.status == 401 {
            let answer = self.client.auth.answer(http, &url, &response.challenges).await.map_err(Failure::Auth)?;
            response = http.get(&url, Some(answer), limit).await.map_err(Failure::Http)?;
        }
        let length = response.body.len() as u64;
        let spent = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
        match response.status {
            200 if spent.is_err() || (length > limit && limit < request.limit) => {
                Err(Failure::TooMuch { gun: self.key.gun.clone(), host: host_port(&url) })
            }
            200 => Ok(Answer::Found(response.body)),
            404 => Ok(Answer::Missing),
            401 | 403 => Err(Failure::Auth(self.client.auth.refused(&url))),
            status => {
                let path = url.path().to_owned();
                Err(Failure::Http(HttpError::Status { host: host_port(&url), status, path }))
            }
        }
    }

    /// `<server>/v2/<GUN>/_trust/tuf/<file>`. The GUN goes in as it is; one that a URL would change is refused, or another
    /// repository would be asked for.
    fn url(&self, file: &str) -> Result<Url, Failure> {
        let tail = format!("/v2/{}/_trust/tuf/{file}", self.key.gun);
        let url = Url::parse(&format!("{}{tail}", self.key.server)).ok();
        let url = url.filter(|url| url.path().ends_with(&tail) && url.query().is_none() && url.fragment().is_none());
        url.ok_or_else(|| Failure::BadName { gun: self.key.gun.clone() })
    }
}
