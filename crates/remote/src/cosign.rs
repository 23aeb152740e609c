//! cosign's signatures in registries: found, verified, kept, and looked for again when they may have changed.
//!
//! What is kept are facts, that a key signed a digest; they never become false, and each question compares them with what it
//! demands. A denial rests on a look that is at most as old as the question says. Where something could not be asked, nothing
//! is decided, and nothing of that is kept. Equal questions of one namespace at the same time share one look.

mod flights;
mod kept;
mod look;
mod recent;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_cosign::{Budget, Demand, Error, Fact, Found, Key, Proof, guesses, judge};
use countersign_image::{ImageReference, NotSha256, Sha256};
use futures::FutureExt as _;
use thiserror::Error as ThisError;

use self::flights::{Boarding, Flights, Wanted};
use self::kept::{Findings, Kept, Place};
use self::look::{Look, Looker, Search};
use self::recent::Recent;
use crate::http::HttpError;
use crate::load::AllTurns;
use crate::login::{Login, LoginId};
use crate::notary::{NotaryClient, Sharing};
use crate::registry::{RegistryClient, RegistryError, Repository};
use crate::turns::{Ticket, TooMany};

/// For how long it is believed where a tag points. What is old here is a digest that the tag had a moment ago, and that one is
/// verified and pinned.
const TAG_AGE: Duration = Duration::from_secs(5);

/// Looks for cosign's signatures in registries. A clone is the same client.
#[derive(Clone)]
pub struct CosignClient {
    registry: RegistryClient,
    turns: Arc<AllTurns>,
    /// How long one look may take in all.
    flight: Duration,
    sharing: Sharing,
    refresh: Duration,
    tag_age: Duration,
    kept: Arc<Mutex<Kept>>,
    denials: Arc<Mutex<Recent<Question, Denial>>>,
    looks: Arc<Flights<Question, Outcome>>,
    tags: Arc<Mutex<Recent<Tag, Sha256>>>,
    tag_looks: Arc<Flights<Tag, Asked>>,
}

impl std::fmt::Debug for CosignClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("CosignClient");
        shown.field("refresh", &self.refresh).field("tag_age", &self.tag_age).finish_non_exhaustive()
    }
}

/// What is asked, by whom, and as whom. Another namespace has looks of its own, so that nobody waits for another's turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    namespace: String,
    repository: String,
    place: Repository,
    digest: Sha256,
    demand: Demand,
    login: LoginId,
}

/// Which tag, by whom, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tag {
    namespace: String,
    repository: Repository,
    name: String,
    login: LoginId,
}

/// What a registry said of a tag; nothing, if nobody wanted to know any more.
type Asked = Option<Result<Option<Sha256>, RegistryError>>;

/// A denial, and when the look began that it rests on.
struct Denial {
    error: Box<Error>,
    began: Instant,
}

/// What a look comes to.
type Outcome = Result<Proof, Short>;

/// Why there is no proof.
#[derive(Debug, Clone)]
enum Short {
    Failure(SignatureFailure),
    /// Signatures were computed as many times as one review may. Another review has a budget of its own.
    Spent(Box<Error>),
    /// Nobody waited for it any more when its turn came.
    Abandoned,
}

/// What is asked of the signatures of one digest.
#[derive(Debug, Clone, Copy)]
pub struct SignaturesAsk<'a> {
    /// The image's repository, canonical: what the proof is for.
    pub repository: &'a str,
    /// The repository in which the signatures are: mostly the same.
    pub place: &'a Repository,
    /// The digest.
    pub digest: Sha256,
    /// What must be signed by whom.
    pub demand: &'a Demand,
    /// Credentials that may be tried before the configured ones.
    pub login: &'a Login,
    /// The namespace that it is asked for, which takes turns with others; empty for none.
    pub namespace: &'a str,
    /// How many signatures the review may still compute.
    pub budget: &'a Budget,
    /// How old a look may be that a denial rests on.
    pub denial_age: Duration,
}

/// Why a digest is not proven.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum SignatureFailure {
    /// All could be asked, and it does not do.
    #[error("{0}")]
    NotProven(Box<Error>),
    /// Something could not be asked, so nothing is decided.
    #[error("{0}")]
    Undecided(RegistryError),
    /// The turn of the namespace did not come.
    #[error("{0}")]
    Turn(TooMany),
}

/// What there is for a digest, for people.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Signatures by the keys that were asked for.
    pub facts: Vec<Fact>,
    /// What else there is.
    pub found: Found,
    /// What could not be asked: something may be missing.
    pub trouble: Vec<RegistryError>,
}

impl CosignClient {
    /// Makes a client. Facts are believed for `refresh` before registries are asked again. `notary` lends its turns, and says
    /// whether what one login brought is for everybody, and how long one look may take.
    #[must_use]
    pub fn new(registry: RegistryClient, notary: &NotaryClient, refresh: Duration) -> Self {
        Self {
            registry,
            turns: Arc::clone(notary.turns()),
            flight: notary.flight(),
            sharing: notary.sharing(),
            refresh,
            tag_age: TAG_AGE,
            kept: Arc::default(),
            denials: Arc::default(),
            looks: Arc::default(),
            tags: Arc::default(),
            tag_looks: Arc::default(),
        }
    }

    /// The same client, which believes for so long where a tag points. It shares all that is kept with the other.
    #[must_use]
    pub fn with_tag_age(self, tag_age: Duration) -> Self {
        Self { tag_age, ..self }
    }

    /// The digest that a tag has now, or had a moment ago; `None` if it is not there. A reference with a digest is that digest,
    /// and nobody is asked.
    ///
    /// # Errors
    /// The registry did not say, or the digest of the reference is no sha256.
    pub async fn digest(
        &self,
        image: &ImageReference,
        login: &Login,
        namespace: &str,
    ) -> Result<Option<Sha256>, RegistryError> {
        if let Some(digest) = image.digest() {
            let other = || RegistryError::NotSha256(NotSha256 { algorithm: digest.algorithm().to_owned() });
            return digest.sha256().map(Some).ok_or_else(other);
        }
        let repository = Repository::of(image);
        let broken = Some(Err(RegistryError::Broken { host: repository.host().to_owned() }));
        let tag = Tag {
            namespace: namespace.to_owned(),
            repository,
            name: image.tag().unwrap_or("latest").to_owned(),
            login: login.id(),
        };
        let known = || locked(&self.tags).get(&tag).map(|digest| Some(Ok(Some(*digest))));
        loop {
            let start = |wanted| {
                let (client, image, tag, login) = (self.clone(), image.clone(), tag.clone(), login.clone());
                async move { client.ask_for_tag(&image, tag, &login, &wanted).await }.boxed()
            };
            let found = match self.tag_looks.board(&tag, known, start, broken.clone()) {
                Boarding::Known(digest) => digest,
                Boarding::Joined(flight) | Boarding::Started(flight) => flight.outcome.clone().await,
            };
            // Nobody waited for it any more when its turn came, but for whoever is here.
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits for a turn, and asks if somebody still wants to know by then.
    async fn ask_for_tag(&self, image: &ImageReference, tag: Tag, login: &Login, wanted: &Wanted) -> Asked {
        let ticket = Ticket::new(&tag.namespace, tag.repository.host());
        let late = || {
            self.turns.count_late();
            Some(Err(RegistryError::Http(HttpError::Busy { host: tag.repository.host().to_owned() })))
        };
        let Ok(Ok(_turn)) = tokio::time::timeout(self.flight, self.turns.flights.take(&ticket)).await else {
            return late();
        };
        if !wanted.by_anybody() {
            return None;
        }
        let began = Instant::now();
        let asked = self.registry.for_namespace(&tag.namespace).digest(image, login).await;
        let found = match asked {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        // That it is not there may change at any moment: who pushes then deploys.
        if let Some(digest) = found
            && let Some(until) = began.checked_add(self.tag_age)
        {
            let party = tag.namespace.clone();
            locked(&self.tags).keep(tag, &party, digest, until);
        }
        Some(Ok(found))
    }

    /// Whether a digest is signed as is demanded.
    ///
    /// # Errors
    /// It is not, or that could not be found out.
    pub async fn prove(&self, ask: &SignaturesAsk<'_>) -> Result<Proof, SignatureFailure> {
        let asked = Instant::now();
        let question = Question {
            namespace: ask.namespace.to_owned(),
            repository: ask.repository.to_owned(),
            place: ask.place.clone(),
            digest: ask.digest,
            demand: ask.demand.clone(),
            login: ask.login.id(),
        };
        if let Some(proof) = self.known(&question) {
            return Ok(proof);
        }
        loop {
            let known = || {
                let denied = || self.denied(&question, asked, ask.denial_age);
                let denied = || denied().map(|error| Err(Short::Failure(SignatureFailure::NotProven(error))));
                self.known(&question).map(Ok).or_else(denied)
            };
            let start = |wanted| {
                let (client, question, login) = (self.clone(), question.clone(), ask.login.clone());
                let (budget, denial_age) = (ask.budget.clone(), ask.denial_age);
                async move { client.take_off(question, login, budget, denial_age, wanted).await }.boxed()
            };
            let broken = RegistryError::Broken { host: ask.place.host().to_owned() };
            let broken = Err(Short::Failure(SignatureFailure::Undecided(broken)));
            let (outcome, is_ours, is_young) = match self.looks.board(&question, known, start, broken) {
                Boarding::Known(outcome) => (outcome, true, true),
                Boarding::Started(flight) => (flight.outcome.clone().await, true, true),
                Boarding::Joined(flight) => {
                    (flight.outcome.clone().await, false, is_young(flight.began, asked, ask.denial_age))
                }
            };
            match outcome {
                Ok(proof) => return Ok(proof),
                Err(Short::Abandoned) => {}
                // Another review's budget is no reason to deny this one anything.
                Err(Short::Spent(_)) if !is_ours => {}
                Err(Short::Failure(SignatureFailure::NotProven(_))) if !is_young => {}
                Err(Short::Spent(error)) => return Err(SignatureFailure::NotProven(error)),
                Err(Short::Failure(failure)) => return Err(failure),
            }
        }
    }

    /// The proof that facts give which are young enough.
    fn known(&self, question: &Question) -> Option<Proof> {
        self.proof(question, Some(self.refresh))
    }

    fn proof(&self, question: &Question, within: Option<Duration>) -> Option<Proof> {
        let facts = locked(&self.kept).facts(&self.place(question), within);
        let Question { repository, digest, demand, .. } = question;
        judge(repository, *digest, demand, &facts, &Found::default()).ok()
    }

    fn place(&self, question: &Question) -> Place {
        let login = (self.sharing == Sharing::SameLogin).then_some(question.login);
        Place { repository: question.place.clone(), digest: question.digest, login }
    }

    /// The denial that a look came to which was young enough when the question was asked.
    fn denied(&self, question: &Question, asked: Instant, age: Duration) -> Option<Box<Error>> {
        let denials = locked(&self.denials);
        let young = |denial: &&Denial| is_young(denial.began, asked, age);
        let denial = denials.get(question).filter(young);
        denial.map(|denial| denial.error.clone())
    }

    /// Waits for a turn, and looks if somebody still wants to know by then.
    async fn take_off(
        &self,
        question: Question,
        login: Login,
        budget: Budget,
        denial_age: Duration,
        wanted: Wanted,
    ) -> Outcome {
        let ticket = Ticket::new(&question.namespace, question.place.host());
        let turn = tokio::time::timeout(self.flight, self.turns.flights.take(&ticket)).await;
        let Ok(Ok(_turn)) = turn else { return self.late(&question) };
        if !wanted.by_anybody() {
            return Err(Short::Abandoned);
        }
        let began = Instant::now();
        let looker = Looker {
            registry: self.registry.session(&ticket),
            turns: &self.turns,
            ticket: &ticket,
            deadline: began.checked_add(self.flight),
            search: Arc::new(Search {
                guesses: payloads(&question.repository, &question.place, question.digest),
                place: question.place.clone(),
                digest: question.digest,
                keys: question.demand.keys().to_vec(),
                login,
                budget,
            }),
        };
        let Question { repository, demand, .. } = &question;
        let look = looker.look(|scan| scan.judge(repository, demand).is_ok()).await;
        match look {
            Ok(look) => self.conclude(question, &look, began, denial_age),
            Err(TooMany) => self.late(&question),
        }
    }

    /// A turn did not come. What was found before counts, as where a registry cannot be asked.
    fn late(&self, question: &Question) -> Outcome {
        self.turns.count_late();
        self.proof(question, None).ok_or(Short::Failure(SignatureFailure::Turn(TooMany)))
    }

    /// What a look comes to, with what is known from before.
    fn conclude(&self, question: Question, look: &Look, began: Instant, denial_age: Duration) -> Outcome {
        let facts = look.scan.facts();
        let (keys, by, all) = (question.demand.keys(), question.login, look.saw_all());
        let findings = Findings { keys, facts, began, by, all };
        locked(&self.kept).note(&self.place(&question), &question.namespace, &findings);
        let error = match look.scan.judge(&question.repository, &question.demand) {
            Ok(proof) => return Ok(proof),
            Err(error) => Box::new(error),
        };
        if let Some(trouble) = look.trouble.first() {
            // Signatures that were found with a login are kept from it once the registry refuses that login.
            let shut_out = look.trouble.iter().any(|trouble| matches!(trouble, RegistryError::Auth(_)));
            let may_see = self.sharing == Sharing::Everybody || !shut_out;
            let before = may_see.then(|| self.proof(&question, None)).flatten();
            return before.ok_or_else(|| Short::Failure(SignatureFailure::Undecided(trouble.clone())));
        }
        if look.spent {
            return Err(Short::Spent(error));
        }
        if let Some(until) = began.checked_add(denial_age) {
            let party = question.namespace.clone();
            locked(&self.denials).keep(question, &party, Denial { error: error.clone(), began }, until);
        }
        Err(Short::Failure(SignatureFailure::NotProven(error)))
    }

    /// All that is there for a digest, for people: nothing is kept, and nothing stops early. `repository` is that of the image,
    /// whose signatures are in `place`.
    ///
    /// # Errors
    /// The registry could not be asked at all.
    pub async fn inspect(
        &self,
        place: &Repository,
        repository: &str,
        digest: Sha256,
        keys: &[Key],
        login: &Login,
    ) -> Result<Inspected, RegistryError> {
        let ticket = Ticket::new("", place.host());
        let looker = Looker {
            registry: self.registry.session(&ticket),
            turns: &self.turns,
            ticket: &ticket,
            deadline: None,
            search: Arc::new(Search {
                place: place.clone(),
                digest,
                guesses: payloads(repository, place, digest),
                keys: keys.to_vec(),
                login: login.clone(),
                budget: Budget::new(),
            }),
        };
        let busy = |TooMany| RegistryError::Http(HttpError::Busy { host: place.host().to_owned() });
        let look = looker.look(|_| false).await.map_err(busy)?;
        match look.trouble.first() {
            Some(trouble) if look.saw_nothing() => Err(trouble.clone()),
            _ => {
                let (facts, found) = (look.scan.facts().to_vec(), look.scan.found().clone());
                Ok(Inspected { facts, found, trouble: look.trouble })
            }
        }
    }
}

/// The payloads that need not be fetched: cosign names the image's repository in them, or the one in which it puts signatures.
fn payloads(repository: &str, place: &Repository, digest: Sha256) -> Vec<Vec<u8>> {
    let mut all = guesses(repository, digest);
    let place = place.name();
    if place != repository {
        all.extend(guesses(&place, digest));
    }
    all
}

/// Whether a denial may rest on a look. One that began after the question is as good as one of its own.
fn is_young(began: Instant, asked: Instant, age: Duration) -> bool {
    began >= asked || asked.duration_since(began) < age
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
