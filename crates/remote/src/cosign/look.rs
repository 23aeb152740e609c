//! One look at what registries have for a digest: all places at once, and of what is there the likeliest first.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use countersign_cosign::limits::{MAX_BUNDLE_BYTES, MAX_MANIFESTS, MAX_PAYLOAD_BYTES};
use countersign_cosign::{Budget, Candidate, Descriptor, Fact, Form, Key, Layer, Scan, Skipped, fact};
use countersign_image::Sha256;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::http::HttpError;
use crate::load::AllTurns;
use crate::login::Login;
use crate::registry::{MAX_MANIFEST_BYTES, Manifest, Referrers, RegistryClient, RegistryError, Repository, Which};
use crate::turns::{Ticket, TooMany, Turn};

/// How many manifests and blobs of one digest are fetched at once.
const FETCHES: usize = 4;

/// From how many bytes on a manifest or a list is a large one, of which a namespace fetches one at a time. One with a hundred
/// signatures has less.
const LARGE: u64 = 64 << 10;

/// How many places there are: the tag of signatures, the list of referrers, and the tag in place of that list.
const PLACES: usize = 3;

/// What is looked for.
pub(super) struct Search {
    pub(super) place: Repository,
    pub(super) digest: Sha256,
    /// Payloads that need not be fetched.
    pub(super) guesses: Vec<Vec<u8>>,
    pub(super) keys: Vec<Key>,
    pub(super) login: Login,
    pub(super) budget: Budget,
}

/// Who looks.
pub(super) struct Looker<'a> {
    /// On behalf of the ticket, and with the login of the search.
    pub(super) registry: RegistryClient,
    pub(super) turns: &'a AllTurns,
    pub(super) ticket: &'a Ticket,
    /// When it ends, if it must.
    pub(super) deadline: Option<Instant>,
    pub(super) search: Arc<Search>,
}

/// What a look came to.
pub(super) struct Look {
    pub(super) scan: Scan,
    /// What could not be asked.
    pub(super) trouble: Vec<RegistryError>,
    /// The places that could not be asked.
    silent: usize,
    /// Whether it ended because signatures were computed that many times already.
    pub(super) spent: bool,
    /// Whether it ended as soon as what was found was enough.
    pub(super) enough: bool,
    /// Lists that are not here yet.
    lists: usize,
    /// What was listed and is not looked at yet.
    held: Vec<Descriptor>,
    /// The manifests that are fetched or were.
    fetched: BTreeSet<Sha256>,
    wanted: VecDeque<Wanted>,
    /// Layers whose blobs are known.
    guessed: Vec<(Layer, Vec<u8>)>,
    fetching: usize,
}

/// What is to be fetched.
enum Wanted {
    Manifest(Descriptor),
    Layer(Layer),
}

/// What came.
enum Came {
    SigTag(Result<Option<Manifest>, RegistryError>, Option<Turn>),
    List(Referrers, Option<Turn>),
    Manifest(Descriptor, Result<Option<Manifest>, RegistryError>, Option<Turn>),
    Layer {
        layer: Layer,
        fetched: bool,
        result: Result<Result<Fact, Skipped>, Missed>,
    },
    /// Too many of the namespace wait for a turn that something takes.
    Late(TooMany),
}

/// Why something did not come.
enum Missed {
    Registry(RegistryError),
    /// It is named, and not there.
    Gone,
}

impl Looker<'_> {
    /// Looks until all is seen, or what was found is enough.
    ///
    /// # Errors
    /// Too many of the namespace wait for a turn that it takes.
    pub(super) async fn look(&self, enough: impl Fn(&Scan) -> bool) -> Result<Look, TooMany> {
        let mut look = Look::new(self.search.digest);
        let mut under_way: FuturesUnordered<BoxFuture<'_, Came>> = FuturesUnordered::new();
        under_way.push(self.sig_tag().boxed());
        under_way.push(self.list().boxed());
        under_way.push(self.tagged().boxed());
        loop {
            // What needs no fetching does not wait for what is fetched.
            for (layer, blob) in look.guessed.drain(..) {
                under_way.push(self.verify(layer, blob, false).boxed());
            }
            while look.fetching < FETCHES
                && let Some(wanted) = look.wanted.pop_front()
            {
                look.fetching += 1;
                under_way.push(match wanted {
                    Wanted::Manifest(listed) => self.manifest(listed).boxed(),
                    Wanted::Layer(layer) => self.layer(layer).boxed(),
                });
            }
            let next = match self.deadline {
                None => Ok(under_way.next().await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), under_way.next()).await,
            };
            match next {
                Ok(None) => return Ok(look),
                Ok(Some(came)) => look.take(came, &self.search)?,
                Err(_) => {
                    look.trouble.push(RegistryError::Http(HttpError::TimedOut { host: self.host() }));
                    return Ok(look);
                }
            }
            look.enough = enough(&look.scan);
            if look.enough || look.spent {
                return Ok(look);
            }
        }
    }

    fn host(&self) -> String {
        self.search.place.host().to_owned()
    }

    /// What is tagged or listed is asked for as if it were small, and once more at a turn for what is large if it is not: a
    /// namespace that names many registries which send much has one of them send at a time.
    async fn sig_tag(&self) -> Came {
        let Search { place, digest, login, .. } = &*self.search;
        let tag = format!("sha256-{}.sig", digest.hex());
        let small = self.registry.manifest_within(place, Which::Tag(&tag), LARGE, login).await;
        if !matches!(small, Err(RegistryError::TooLong { .. })) {
            return Came::SigTag(small, None);
        }
        match self.turns.large.take(self.ticket).await {
            Ok(turn) => Came::SigTag(self.registry.manifest(place, Which::Tag(&tag), login).await, Some(turn)),
            Err(late) => Came::Late(late),
        }
    }

    async fn list(&self) -> Came {
        let Search { place, digest, login, .. } = &*self.search;
        let small = self.registry.listed(place, *digest, LARGE, login).await;
        if !small.is_too_long() {
            return Came::List(small, None);
        }
        match self.turns.large.take(self.ticket).await {
            Ok(turn) => Came::List(self.registry.listed(place, *digest, MAX_MANIFEST_BYTES, login).await, Some(turn)),
            Err(late) => Came::Late(late),
        }
    }

    async fn tagged(&self) -> Came {
        let Search { place, digest, login, .. } = &*self.search;
        let small = self.registry.tagged(place, *digest, LARGE, login).await;
        if !small.is_too_long() {
            return Came::List(small, None);
        }
        match self.turns.large.take(self.ticket).await {
            Ok(turn) => Came::List(self.registry.tagged(place, *digest, MAX_MANIFEST_BYTES, login).await, Some(turn)),
            Err(late) => Came::Late(late),
        }
    }

    async fn manifest(&self, listed: Descriptor) -> Came {
        let Search { place, login, .. } = &*self.search;
        let mut turn = None;
        if listed.size > LARGE {
            match self.turns.large.take(self.ticket).await {
                Ok(large) => turn = Some(large),
                Err(late) => return Came::Late(late),
            }
        }
        let came = self.registry.manifest_within(place, Which::Digest(listed.digest), listed.size, login).await;
        Came::Manifest(listed, came, turn)
    }

    async fn layer(&self, layer: Layer) -> Came {
        let Search { place, login, .. } = &*self.search;
        let turn = if layer.size() > LARGE { Some(self.turns.large.take(self.ticket).await) } else { None };
        let _turn = match turn.transpose() {
            Ok(turn) => turn,
            Err(late) => return Came::Late(late),
        };
        let most = match layer.form() {
            Form::Bundle => MAX_BUNDLE_BYTES,
            Form::SigTag | Form::SigReferrer => MAX_PAYLOAD_BYTES,
        };
        let blob = self.registry.blob(place, layer.digest(), layer.size().min(most as u64), login).await;
        let missed = match blob {
            Ok(Some(blob)) => return self.verify(layer, blob, true).await,
            Ok(None) => Missed::Gone,
            Err(error) => Missed::Registry(error),
        };
        Came::Layer { layer, fetched: true, result: Err(missed) }
    }

    /// Verifies one blob. With many keys that takes a processor for some milliseconds, so it is not done on a thread on which
    /// others wait for their answers.
    async fn verify(&self, layer: Layer, blob: Vec<u8>, fetched: bool) -> Came {
        let turn = match self.turns.light.take(self.ticket).await {
            Ok(turn) => turn,
            Err(late) => return Came::Late(late),
        };
        let work = {
            let (search, layer) = (Arc::clone(&self.search), layer.clone());
            move || {
                let candidate = Candidate::new(&layer, &blob);
                let result =
                    candidate.and_then(|candidate| fact(search.digest, &candidate, &search.keys, &search.budget));
                // Here, and not where nobody may wait for it any more: it is over now.
                drop(turn);
                result
            }
        };
        let result = tokio::task::spawn_blocking(work).await;
        let broken = |_| Missed::Registry(RegistryError::Broken { host: self.host() });
        Came::Layer { layer, fetched, result: result.map_err(broken) }
    }
}

impl Look {
    fn new(digest: Sha256) -> Self {
        Self {
            scan: Scan::new(digest),
            trouble: Vec::new(),
            silent: 0,
            spent: false,
            enough: false,
            lists: PLACES - 1,
            held: Vec::new(),
            fetched: BTreeSet::new(),
            wanted: VecDeque::new(),
            guessed: Vec::new(),
            fetching: 0,
        }
    }

    /// Whether no place at all could be asked.
    pub(super) fn saw_nothing(&self) -> bool {
        self.silent == PLACES
    }

    /// Whether all that is there was looked at.
    pub(super) fn saw_all(&self) -> bool {
        self.trouble.is_empty() && !self.spent && !self.enough
    }

    /// Takes what came, and makes of it what is wanted next.
    fn take(&mut self, came: Came, search: &Search) -> Result<(), TooMany> {
        match came {
            Came::SigTag(Ok(None), _) => {}
            Came::SigTag(Ok(Some(manifest)), _turn) => {
                let layers = self.scan.sig_tag(&manifest.bytes, &manifest.media_type);
                self.want(layers, search);
            }
            Came::SigTag(Err(error), _) => {
                self.silent += usize::from(error.is_undecided());
                self.note(error);
            }
            Came::List(list, _turn) => {
                self.silent += usize::from(list.trouble.iter().any(RegistryError::is_undecided));
                self.list(list);
            }
            Came::Manifest(listed, came, _turn) => {
                self.fetching -= 1;
                match came {
                    Ok(Some(manifest)) => {
                        let layers = self.scan.referrer(&listed, &manifest.bytes, &manifest.media_type);
                        self.want(layers, search);
                    }
                    Ok(None) => self.missed(Missed::Gone, "manifest", listed.digest, &search.place),
                    Err(error) => self.note(error),
                }
            }
            Came::Layer { layer, fetched, result } => {
                self.fetching -= usize::from(fetched);
                match result {
                    Ok(result) => {
                        self.spent |= matches!(result, Err(Skipped::BudgetSpent));
                        self.scan.take(&layer, result);
                    }
                    Err(missed) => self.missed(missed, "blob", layer.digest(), &search.place),
                }
            }
            Came::Late(late) => return Err(late),
        }
        Ok(())
    }

    /// Takes a list of referrers. One that could take all the room that there is waits for the other one, so that the
    /// likeliest of both are looked at.
    fn list(&mut self, list: Referrers) {
        self.lists -= 1;
        for error in list.trouble {
            self.note(error);
        }
        // What one list says of a manifest may be wrong, so that it is passed over; what the other says counts then.
        let new = list.descriptors.into_iter().filter(|listed| !self.fetched.contains(&listed.digest));
        self.held.extend(new);
        if self.lists == 0 || self.held.len() <= MAX_MANIFESTS / 2 {
            for listed in self.scan.referrers(std::mem::take(&mut self.held)) {
                if self.fetched.insert(listed.digest) {
                    self.wanted.push_back(Wanted::Manifest(listed));
                }
            }
        }
    }

    /// Layers come before other manifests: they are nearer to a proof.
    fn want(&mut self, layers: Vec<Layer>, search: &Search) {
        for layer in layers.into_iter().rev() {
            match layer.guessed(&search.guesses) {
                Some(blob) => {
                    let blob = blob.to_vec();
                    self.guessed.push((layer, blob));
                }
                None => self.wanted.push_front(Wanted::Layer(layer)),
            }
        }
        // The newest stands first, and is verified first.
        self.guessed.reverse();
    }

    /// A registry that could not be asked leaves it open which signatures there are. One that answered with something malformed, or too
    /// long, does not.
    fn note(&mut self, error: RegistryError) {
        if error.is_undecided() {
            self.trouble.push(error);
        } else {
            self.scan.unusable(&error.to_string());
        }
    }

    fn missed(&mut self, missed: Missed, what: &str, digest: Sha256, place: &Repository) {
        match missed {
            Missed::Registry(error) => self.note(error),
            Missed::Gone => {
                let host = place.host();
                self.scan.unusable(&format!("the registry {host} names the {what} {digest}, and does not have it"));
            }
        }
    }
}
