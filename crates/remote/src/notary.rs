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
use reqwest::header::HeaderValue;
use thiserror::Error as ThisError;
use url::Url;

use crate::connections::PinnedCertificate;
use crate::credentials::{AuthError, Authenticator, Login, LoginError};
use crate::http::{HttpClient, HttpError, Response, host_port};
use crate::state::{Remembered, StateError, StateStore};

/// How many files of one repository are fetched at once.
const PARALLEL_FETCHES: usize = 16;

/// The most bytes that one update of one repository may bring in all: twice the largest file that is read.
const MAX_UPDATE_BYTES: u64 = 64 << 20;

/// From how many bytes on the files of one step are heavy work: some milliseconds of it. Ordinary repositories have a tenth.
const HEAVY_BYTES: usize = 256 << 10;

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
    /// Whether what one login brought is kept from those who have not shown that they may read it too.
    pub private: bool,
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

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Auth(error) => Self::Auth(error),
            LoginError::Http(error) => Self::Http(error),
        }
    }
}

/// A question to a trust server.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The server.
    pub server: &'a TrustServer,
    /// The repository's name there.
    pub gun: &'a str,
    /// Root keys, one of which must have signed the repository's root.
    pub pins: &'a RootPins,
    /// The one certificate that the server must show, if one is pinned.
    pub certificate: Option<&'a PinnedCertificate>,
    /// Credentials that may be tried before the configured ones.
    pub login: &'a Login,
}

type Outcome = Result<Arc<Repository>, Failure>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// Which repository on which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    server: String,
    gun: String,
    /// What came over a connection that a policy would not take does not count for it.
    certificate: Option<PinnedCertificate>,
}

/// What a flight is for: who is let in, and which roots count, differs from policy to policy and from pod to pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    pins: RootPins,
    login: Login,
}

/// What is kept of one repository.
#[derive(Default)]
struct Slot {
    kept: Option<Kept>,
    /// Kept even where the repository is dropped: against rollback.
    memory: Option<Memory>,
    /// When an administrator last accepted a change, as far as is known here.
    accepted: Option<String>,
    /// Whether the store has it: if it is gone from there, somebody took it away.
    stored: bool,
    flights: Vec<(Terms, Flight)>,
    /// Which logins were let in, and when.
    let_in: Vec<(Login, Instant)>,
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
    /// Turns at verifying what is heavy: half of the processors stay free for everything else.
    heavy: Arc<tokio::sync::Semaphore>,
}

impl std::fmt::Debug for NotaryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotaryClient").field("options", &self.options).finish_non_exhaustive()
    }
}

impl NotaryClient {
    /// Makes a client.
    #[must_use]
    pub fn new(http: HttpClient, auth: Arc<Authenticator>, options: Options) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let heavy = Arc::new(tokio::sync::Semaphore::new((processors / 2).max(1)));
        Self { http, auth, options, slots: Arc::default(), writing: Arc::default(), heavy }
    }

    /// The verified repository of a server, whose root stands under the pins.
    ///
    /// Whether it is still valid is checked against the clock by whoever asks it something.
    ///
    /// # Errors
    /// Why it is not trusted, or could not be looked at.
    pub async fn repository(&self, ask: Ask<'_>) -> Outcome {
        let key = Key {
            server: ask.server.as_str().to_owned(),
            gun: ask.gun.to_owned(),
            certificate: ask.certificate.cloned(),
        };
        let flight = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.entry(key.clone()).or_default();
            let fresh = |at: &Instant| at.elapsed() < self.options.refresh;
            let may_see =
                !self.options.private || slot.let_in.iter().any(|(login, at)| login == ask.login && fresh(at));
            if let Some(kept) = &mut slot.kept
                && may_see
                && fresh(&kept.asked)
                && kept.repository.root().satisfies(ask.pins)
            {
                kept.used = Instant::now();
                return Ok(Arc::clone(&kept.repository));
            }
            let terms = Terms { pins: ask.pins.clone(), login: ask.login.clone() };
            let under_way = slot.flights.iter().find(|(theirs, _)| *theirs == terms);
            if let Some((_, flight)) = under_way {
                flight.clone()
            } else {
                let flight = self.start(key, terms.clone());
                slot.flights.push((terms, flight.clone()));
                flight
            }
        };
        flight.await
    }

    /// A flight runs on its own, so that a review which gives up takes nobody else's answer with it.
    fn start(&self, key: Key, terms: Terms) -> Flight {
        let client = self.clone();
        let broken = Failure::Broken { gun: key.gun.clone() };
        let task = tokio::spawn(async move {
            let timed_out = Failure::TimedOut { host: host_of(&key.server) };
            let flown = tokio::time::timeout(client.options.flight, client.fly(&key, &terms)).await;
            let (outcome, changed) = client.land(&key, &terms, flown.unwrap_or(Err(timed_out)));
            if changed {
                client.remember(&key).await;
            }
            outcome
        });
        async move { task.await.unwrap_or(Err(broken)) }.boxed().shared()
    }

    async fn fly(&self, key: &Key, terms: &Terms) -> Outcome {
        let (held, memory) = self.known(key).await?;
        let now = (self.options.clock)();
        let untrusted = |error| Failure::Untrusted(Box::new(error));
        let (gun, pins) = (key.gun.clone(), terms.pins.clone());
        let mut update = Update::start(&gun, held, memory.as_ref(), pins, now).map_err(untrusted)?;
        let fetcher = Fetcher::new(self, key, &terms.login);
        let mut answers = Vec::new();
        loop {
            // To verify a large or hostile repository takes a processor seconds; others must not wait for a thread, nor find
            // every processor taken.
            let turn = match weight(&answers) {
                0..HEAVY_BYTES => None,
                _ => Arc::clone(&self.heavy).acquire_owned().await.ok(),
            };
            let worked = tokio::task::spawn_blocking(move || {
                let step = update.advance(answers);
                // Held until the work is done, even where nobody waits for it any more.
                drop(turn);
                (update, step)
            });
            let (after, step) = worked.await.map_err(|_| Failure::Broken { gun: key.gun.clone() })?;
            update = after;
            match step.map_err(untrusted)? {
                Step::Done(repository) => return Ok(Arc::new(*repository)),
                Step::Fetch(requests) => {
                    let fetches: Vec<_> = requests.iter().map(|request| fetcher.fetch(request)).collect();
                    answers = stream::iter(fetches).buffered(PARALLEL_FETCHES).try_collect().await?;
                }
            }
        }
    }

    /// What is held of a repository, and what is remembered. A store, where there is one, says what is remembered: others
    /// write to it too, and an administrator may take something away or accept a change.
    async fn known(&self, key: &Key) -> Result<(Option<Arc<Repository>>, Option<Memory>), Failure> {
        let stored = match &self.options.state {
            Some(state) => Some(state.load(&key.server, &key.gun).await.map_err(Failure::State)?),
            None => None,
        };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(key.clone()).or_default();
        match stored {
            Some(None) if slot.stored => {
                (slot.kept, slot.memory, slot.stored, slot.accepted) = (None, None, false, None);
            }
            None | Some(None) => {}
            Some(Some(remembered)) => {
                let own = slot.memory.take().filter(|_| slot.accepted == remembered.accepted);
                if own.is_none() {
                    slot.kept = None;
                }
                slot.memory = Some(own.unwrap_or_default().join(&remembered.memory));
                (slot.stored, slot.accepted) = (true, remembered.accepted);
            }
        }
        let held = slot.kept.as_ref().map(|kept| Arc::clone(&kept.repository));
        Ok((held, slot.memory.clone()))
    }

    /// Keeps what a flight brought. A server that could not be reached leaves what is kept; one that was, and whose
    /// repository is not trusted, does not.
    /// Says too whether there is something new to remember.
    fn land(&self, key: &Key, terms: &Terms, outcome: Outcome) -> (Outcome, bool) {
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(key) else {
            return (outcome, false);
        };
        slot.flights.retain(|(theirs, _)| theirs != terms);
        let mut changed = false;
        let outcome = match outcome {
            Ok(repository) => {
                let memory = repository.memory().clone();
                changed = slot.memory.as_ref() != Some(&memory);
                slot.memory = Some(memory);
                slot.kept = Some(Kept { repository: Arc::clone(&repository), asked: now, used: now });
                if self.options.private {
                    slot.let_in.retain(|(login, at)| *login != terms.login && at.elapsed() < self.options.refresh);
                    slot.let_in.push((terms.login.clone(), now));
                }
                Ok(repository)
            }
            // Whoever is not let in gets nothing, however fresh it is.
            Err(failure @ Failure::Auth(_)) => Err(failure),
            Err(failure) if failure.is_undecided() => match &slot.kept {
                Some(kept)
                    if kept.asked.elapsed() < self.options.refresh + self.options.stale
                        && !self.options.private
                        && kept.repository.root().satisfies(&terms.pins) =>
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
        let seen = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots
                .get(key)
                .and_then(|slot| Some(Remembered { memory: slot.memory.clone()?, accepted: slot.accepted.clone() }))
        };
        let Some(seen) = seen else {
            return;
        };
        match state.save(&key.server, &key.gun, &seen).await {
            Ok(()) => {
                let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(slot) = slots.get_mut(key) {
                    slot.stored = true;
                }
            }
            Err(error) => (self.options.on_trouble)(&error),
        }
    }
}

/// How many bytes are to be verified.
fn weight(answers: &[Answer]) -> usize {
    let bytes = |answer: &Answer| match answer {
        Answer::Found(bytes) => bytes.len(),
        Answer::Missing => 0,
    };
    answers.iter().map(bytes).sum()
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
    login: &'a Login,
    budget: AtomicU64,
    /// What the server let in last: the other files of the repository are asked for with it.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Fetcher<'a> {
    fn new(client: &'a NotaryClient, key: &'a Key, login: &'a Login) -> Self {
        Self { client, key, login, budget: AtomicU64::new(MAX_UPDATE_BYTES), authorization: Mutex::default() }
    }

    async fn fetch(&self, request: &Request) -> Result<Answer, Failure> {
        let url = self.url(&request.file)?;
        let left = self.budget.load(Ordering::Relaxed);
        let limit = request.limit.min(left);
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = self.get(&url, known, limit).await?;
        if matches!(response.status, 401 | 403) {
            response = self.log_in(&url, response, limit).await?;
        }
        let length = response.body.len() as u64;
        let spent = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
        match response.status {
            200 if spent.is_err() || (length > limit && limit < request.limit) => {
                Err(Failure::TooMuch { gun: self.key.gun.clone(), host: host_port(&url) })
            }
            200 => Ok(Answer::Found(response.body)),
            404 => Ok(Answer::Missing),
            status => {
                let path = url.path().to_owned();
                Err(Failure::Http(HttpError::Status { host: host_port(&url), status, path }))
            }
        }
    }

    async fn get(&self, url: &Url, authorization: Option<HeaderValue>, limit: u64) -> Result<Response, Failure> {
        let certificate = self.key.certificate.as_ref();
        self.client.http.get_from(url, certificate, authorization, limit).await.map_err(Failure::Http)
    }

    /// Answers a challenge; what the server lets in is kept for the other files of the repository.
    async fn log_in(&self, url: &Url, refusal: Response, limit: u64) -> Result<Response, Failure> {
        let (http, auth) = (&self.client.http, &self.client.auth);
        let send = |header| {
            let certificate = self.key.certificate.as_ref();
            http.get_from(url, certificate, Some(header), limit).boxed()
        };
        let (response, header) = auth.log_in(http, url, &self.key.gun, self.login, &refusal, &send).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(response)
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
