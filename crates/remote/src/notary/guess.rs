//! Which files of a repository are asked for before the metadata names them, and what of their bytes is of use.
//!
//! Where nothing is at hand, each file says only what the next ones are called: root and timestamp, snapshot, targets, delegations take a round
//! trip each. Their plain names can be guessed. What comes by them is a cache of answers and nothing else: [`countersign_notary::Update`]
//! says which file it needs by its hash, and guessed bytes are its answer if they have that hash. All others are fetched by their hash.

use countersign_image::Sha256;
use countersign_notary::{Memory, Request as Wanted, RoleName, Signer};

/// The most files that are asked for at once where some are guessed: as many as one repository's files are fetched at once.
pub(crate) const MAX_AT_ONCE: usize = 16;

/// The most bytes that the guessed files of one update may bring, all together: with a root and a timestamp no more than what may come
/// without a turn at large updates. That is 4000 tags; of larger files the rest is not read, and they are fetched by their hash.
pub(crate) const GUESSED_BYTES: u64 = 512 << 10;

/// The roles whose files are asked for together with the first ones: those that each repository has, those of the signers who are asked
/// for, and those that were seen before. `beside` is how many files are asked for in any case.
pub(crate) fn roles(signers: &[Signer], memory: Option<&Memory>, beside: usize) -> Vec<RoleName> {
    let mut roles = Vec::new();
    let mut add = |role: RoleName| {
        if roles.len() + beside < MAX_AT_ONCE && !roles.contains(&role) {
            roles.push(role);
        }
    };
    [RoleName::snapshot(), RoleName::targets(), RoleName::releases()].into_iter().for_each(&mut add);
    for signer in signers {
        // The file of a role `a/b` is of no use without that of `a`, which says whose keys sign for it.
        let name = signer.name();
        let above = name.match_indices('/').map(|(at, _)| name.get(..at).unwrap_or_default());
        above.chain([name]).map(RoleName::signer).for_each(&mut add);
    }
    let first = [RoleName::root(), RoleName::timestamp()];
    let seen = memory.into_iter().flat_map(|memory| memory.seen.keys()).filter(|role| !first.contains(role));
    seen.cloned().for_each(&mut add);
    roles
}

/// Bytes that came by a plain name.
#[derive(Debug)]
struct Guessed {
    role: RoleName,
    hash: Sha256,
    bytes: Vec<u8>,
}

/// What was guessed, until it is asked for.
#[derive(Debug, Default)]
pub(crate) struct AtHand(Vec<Guessed>);

impl AtHand {
    /// Keeps what came for a role.
    pub(crate) fn keep(&mut self, role: RoleName, bytes: Vec<u8>) {
        self.0.push(Guessed { role, hash: Sha256::of(&bytes), bytes });
    }

    /// How many bytes there are.
    pub(crate) fn weight(&self) -> u64 {
        self.0.iter().map(|guessed| guessed.bytes.len() as u64).sum()
    }

    /// Whether the bytes for a request are here.
    pub(crate) fn has(&self, request: &Wanted) -> bool {
        self.0.iter().any(|guessed| guessed.is(request))
    }

    /// The bytes for a request, if they are here. Other bytes for the same role are of no use from then on.
    pub(crate) fn take(&mut self, request: &Wanted) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|guessed| guessed.role == request.role)?;
        let guessed = self.0.swap_remove(at);
        guessed.is(request).then_some(guessed.bytes)
    }
}

impl Guessed {
    fn is(&self, request: &Wanted) -> bool {
        self.role == request.role && request.sha256.as_deref() == Some(self.hash.bytes().as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";

    fn named(signers: &[&str], beside: usize) -> Vec<String> {
        let signers: Vec<_> = signers.iter().map(|name| Signer::new(name, KEY.as_bytes()).unwrap()).collect();
        roles(&signers, None, beside).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_policy_names_is_guessed() {
        let plain = ["snapshot", "targets", "targets/releases"];
        assert_eq!(named(&[], 2), plain);
        let signers = ["targets/alice", "targets/team", "targets/team/bob"];
        assert_eq!(named(&["alice", "team/bob", "alice", "team"], 2), [&plain[..], &signers[..]].concat());
    }

    #[test]
    fn guesses_are_bounded() {
        let many: Vec<_> = (0..64).map(|index| format!("s{index}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(named(&many, 2).len(), MAX_AT_ONCE - 2);
        assert_eq!(named(&many, 1).last().unwrap(), "targets/s11");
    }

    #[test]
    fn only_bytes_of_the_wanted_hash_are_an_answer() {
        let request = |role: RoleName, bytes: &[u8]| Wanted {
            file: String::new(),
            limit: 1,
            sha256: Some(Sha256::of(bytes).bytes().to_vec()),
            role,
        };
        let mut at_hand = AtHand::default();
        at_hand.keep(RoleName::snapshot(), b"old".to_vec());
        at_hand.keep(RoleName::targets(), b"right".to_vec());
        assert_eq!(at_hand.weight(), 8);
        assert!(!at_hand.has(&request(RoleName::snapshot(), b"right")), "that is another role's");
        assert_eq!(at_hand.take(&request(RoleName::snapshot(), b"new")), None);
        assert_eq!(at_hand.take(&request(RoleName::snapshot(), b"old")), None, "it was thrown away");
        let plain = Wanted { sha256: None, ..request(RoleName::targets(), b"") };
        assert!(!at_hand.has(&plain), "nothing says which bytes are meant");
        assert_eq!(at_hand.take(&request(RoleName::targets(), b"right")), Some(b"right".to_vec()));
        assert_eq!((at_hand.weight(), at_hand.take(&request(RoleName::targets(), b"right"))), (0, None));
    }
}
