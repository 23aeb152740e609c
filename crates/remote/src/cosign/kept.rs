//! Which keys are known to have signed which digests. Nothing in here is a verdict: what is demanded is compared with it at
//! each question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_cosign::{Fact, Key};
use countersign_image::Sha256;

use crate::login::LoginId;
use crate::registry::Repository;

/// Of how many digests facts are kept.
const MAX_DIGESTS: usize = 16_384;

/// How many bytes they may take. One fact without claims takes some hundred.
const MAX_BYTES: usize = 32 << 20;

/// How many bytes the facts of one digest may take: claims can be long, and those of one digest are not worth those of all others.
const MAX_BYTES_OF_ONE: usize = 1 << 20;

/// The part of a bound that is left after something had to go, so that not every newcomer has to look for the oldest again.
const AFTERWARDS: (usize, usize) = (15, 16);

/// Where what was found, and who may be told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) repository: Repository,
    pub(super) digest: Sha256,
    /// The login that found it, where what one login brought is for that one alone.
    pub(super) login: Option<LoginId>,
}

impl Place {
    fn size(&self) -> usize {
        OVERHEAD + self.repository.name().len()
    }
}

/// What an entry or a fact takes beside its texts.
const OVERHEAD: usize = 256;

fn size(fact: &Fact) -> usize {
    let claims: usize = fact.claims().iter().map(|(name, value)| name.len() + value.len() + OVERHEAD).sum();
    // The longest key that is taken has a thousand bytes; others come out too large here, which is safe.
    OVERHEAD + fact.material().spki().len() + claims + fact.docker_reference().map_or(0, str::len)
}

#[derive(Clone)]
struct Seen {
    fact: Fact,
    /// When the look began that saw it last.
    at: Instant,
    /// The login of that look: another one may not be shown what this one was.
    by: LoginId,
}

struct Slot {
    facts: Vec<Seen>,
    /// The namespace that asked first, for whose share it counts.
    party: Arc<str>,
    used: u64,
    bytes: usize,
}

/// What a look at a place came to.
pub(super) struct Findings<'a> {
    /// The keys that were looked for.
    pub(super) keys: &'a [Key],
    pub(super) facts: &'a [Fact],
    pub(super) began: Instant,
    /// As whom it was looked.
    pub(super) by: LoginId,
    /// Whether all of the place was looked at: what was not found is not there.
    pub(super) all: bool,
}

/// The facts. Whoever fills this up makes others ask again, and those of their own namespace first.
#[derive(Default)]
pub(super) struct Kept {
    slots: HashMap<Place, Slot>,
    bytes: usize,
    uses: u64,
}

impl Kept {
    /// The facts that were seen less than so long ago; all of them if that is not said.
    pub(super) fn facts(&mut self, place: &Place, within: Option<Duration>) -> Vec<Fact> {
        let Some(slot) = self.slots.get_mut(place) else { return Vec::new() };
        self.uses += 1;
        slot.used = self.uses;
        let young = |seen: &&Seen| within.is_none_or(|age| seen.at.elapsed() < age);
        slot.facts.iter().filter(young).map(|seen| seen.fact.clone()).collect()
    }

    /// Takes note of what a look came to.
    pub(super) fn note(&mut self, place: &Place, party: &str, findings: &Findings<'_>) {
        let mut slot = self.slots.remove(place).unwrap_or_else(|| Slot {
            facts: Vec::new(),
            party: party.into(),
            used: 0,
            bytes: 0,
        });
        self.bytes -= slot.bytes;
        if findings.all {
            // Of keys that nobody looked for, nothing was found out.
            let looked_for = |fact: &Fact| findings.keys.iter().any(|key| key.material() == fact.material());
            slot.facts.retain(|seen| {
                let is_others = seen.at > findings.began || seen.by != findings.by;
                is_others || !looked_for(&seen.fact) || findings.facts.contains(&seen.fact)
            });
        }
        for fact in findings.facts {
            match slot.facts.iter_mut().find(|seen| seen.fact == *fact) {
                Some(seen) if seen.at < findings.began => (seen.at, seen.by) = (findings.began, findings.by),
                Some(_) => {}
                None => slot.facts.push(Seen { fact: fact.clone(), at: findings.began, by: findings.by }),
            }
        }
        // Whoever may push can add facts with long claims: those go, and not the others.
        slot.facts.sort_by_key(|seen| size(&seen.fact));
        slot.bytes = place.size();
        slot.facts.retain(|seen| {
            slot.bytes += size(&seen.fact);
            slot.bytes <= MAX_BYTES_OF_ONE
        });
        slot.bytes = place.size() + slot.facts.iter().map(|seen| size(&seen.fact)).sum::<usize>();
        if slot.facts.is_empty() {
            return;
        }
        self.uses += 1;
        slot.used = self.uses;
        self.bytes += slot.bytes;
        self.slots.insert(place.clone(), slot);
        if self.slots.len() > MAX_DIGESTS || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    /// The namespace for which most is kept loses what it did not use for longest, until there is room.
    fn drop_oldest(&mut self) {
        let (of, whole) = AFTERWARDS;
        let (slots, bytes) = (MAX_DIGESTS / whole * of, MAX_BYTES / whole * of);
        let mut shares: HashMap<Arc<str>, Share> = HashMap::new();
        for (place, slot) in &self.slots {
            let share = shares.entry(Arc::clone(&slot.party)).or_default();
            share.bytes += slot.bytes;
            share.places.push((slot.used, place.clone()));
        }
        let mut shares: Vec<Share> = shares.into_values().collect();
        for share in &mut shares {
            share.places.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        }
        while self.slots.len() > slots || self.bytes > bytes {
            let Some(share) = shares.iter_mut().max_by_key(|share| share.weight()) else { return };
            let Some((_, place)) = share.places.pop() else { return };
            if let Some(slot) = self.slots.remove(&place) {
                self.bytes -= slot.bytes;
                share.bytes -= slot.bytes;
            }
        }
    }
}

/// What is kept for one namespace.
#[derive(Default)]
struct Share {
    bytes: usize,
    /// What was not used for longest stands last.
    places: Vec<(u64, Place)>,
}

impl Share {
    /// To compare namespaces: many small ones weigh as much as few large ones.
    fn weight(&self) -> usize {
        self.bytes.max(self.places.len() * (MAX_BYTES / MAX_DIGESTS))
    }
}

#[cfg(test)]
mod tests {
    use crate::login::Login;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use countersign_cosign::{Budget, Candidate, fact, guesses, sig_tag};
    use forge::Key as Secret;
    use serde_json::json;

    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn key(name: &str) -> Key {
        Key::from_pem(name, Secret::p256(name).pem().as_bytes()).unwrap()
    }

    /// That somebody signed, with a claim of so many bytes.
    fn signed(name: &str, claim: usize) -> Fact {
        let digest = Sha256::of(b"image");
        let payload = String::from_utf8(guesses("h.io/r", digest).remove(0)).unwrap();
        let payload = payload.replace(":null}", &format!(":{{\"claim\":\"{}\"}}}}", "x".repeat(claim)));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "size": payload.len(),
            "digest": Sha256::of(payload.as_bytes()).to_string(),
            "annotations": {
                "dev.cosignproject.cosign/signature": STANDARD.encode(Secret::p256(name).sign(payload.as_bytes()).bytes)
            }
        }]});
        let layers = sig_tag(manifest.to_string().as_bytes(), MANIFEST).unwrap();
        let candidate = Candidate::new(&layers[0], payload.as_bytes()).unwrap();
        fact(digest, &candidate, &[key(name)], &Budget::new()).unwrap()
    }

    fn place(number: usize) -> Place {
        let repository = Repository::parse("h.io/r").unwrap();
        Place { repository, digest: Sha256::of(&number.to_le_bytes()), login: None }
    }

    fn found(facts: &[Fact], began: Instant) -> Findings<'_> {
        Findings { keys: &[], facts, began, by: Login::none().id(), all: false }
    }

    /// However much one namespace asks for, another one keeps what it has, even if it did not use it for longest.
    #[test]
    fn nobody_loses_anything_to_a_greedy_namespace() {
        for (claim, count) in [(1, MAX_DIGESTS + 2000), (60_000, 1000)] {
            let (mut kept, facts) = (Kept::default(), [signed("alice", claim)]);
            for number in 0..count {
                let party = if number < 100 { "honest" } else { "greedy" };
                kept.note(&place(number), party, &found(&facts, Instant::now()));
                assert!(kept.slots.len() <= MAX_DIGESTS && kept.bytes <= MAX_BYTES);
            }
            assert_eq!(kept.bytes, kept.slots.values().map(|slot| slot.bytes).sum::<usize>());
            assert!((0..100).all(|number| kept.facts(&place(number), None).len() == 1));
            assert!(kept.facts(&place(100), None).is_empty() && kept.facts(&place(count - 1), None).len() == 1);
        }
    }

    #[test]
    fn what_is_too_much_for_one_digest_is_not_kept() {
        let mut kept = Kept::default();
        let facts: Vec<Fact> = (0..20).map(|more| signed("alice", 60_000 + more)).collect();
        kept.note(&place(0), "a", &found(&facts[..10], Instant::now()));
        assert_eq!(kept.facts(&place(0), None).len(), 10);
        // Whoever may push can add these; the first one is somebody else's, and stays.
        let honest = signed("bob", 1);
        kept.note(&place(0), "a", &found(std::slice::from_ref(&honest), Instant::now()));
        kept.note(&place(0), "a", &found(&facts, Instant::now()));
        assert!(kept.facts(&place(0), None).contains(&honest));
        assert!(kept.bytes <= MAX_BYTES_OF_ONE && kept.facts(&place(0), None).len() < 21);
    }

    /// Only a look that saw everything, and later than another, takes away what that one found.
    #[test]
    fn what_is_not_found_any_more() {
        let (alice, bob) = (signed("alice", 1), signed("bob", 1));
        let (before, after) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let keys = [key("alice")];
        let none = |began, all| Findings { keys: &keys, facts: &[], began, by: Login::none().id(), all };
        let mut kept = Kept::default();
        kept.note(&place(0), "a", &found(&[alice.clone(), bob.clone()], after));
        for looked in [none(after + Duration::from_secs(1), false), none(before, true)] {
            kept.note(&place(0), "a", &looked);
            assert_eq!(kept.facts(&place(0), None), [alice.clone(), bob.clone()]);
        }
        // A registry may hide from one what it shows to another.
        let stranger = Login::none().at(crate::login::NamedBy::Tenant);
        let of_stranger = Findings { by: stranger.id(), ..none(after + Duration::from_secs(1), true) };
        kept.note(&place(0), "b", &of_stranger);
        assert_eq!(kept.facts(&place(0), None), [alice.clone(), bob.clone()]);
        kept.note(&place(0), "a", &none(after + Duration::from_secs(1), true));
        assert_eq!(kept.facts(&place(0), None), [bob]);
        assert!(kept.facts(&place(0), Some(Duration::ZERO)).is_empty());
    }
}
