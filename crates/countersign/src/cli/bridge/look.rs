//! Asks for the signatures of images on both sides: a trust server as the entry says, and the registry for those of cosign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_cosign::{Budget, Key};
use countersign_image::{ImageReference, Sha256, Wanted, shown};
use countersign_policy::{
    Applies, Ask, Check, ContainerImage, CosignAsk, CosignPolicy, Defaults, DenyReason, EntryRef, Evidence, Match,
    Mode, NamedBy, Need, ProofPolicy, Refusal, Requirement, Within, plan,
};
use countersign_remote::{Login, RegistryClient, Repository, Which};
use futures::FutureExt as _;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::images::Asked;
use super::state::{Alone, Dct, EntryAt, Looked, Manner, Outcome, Signatures, Signed, Stage};
use crate::cli::clients::Clients;
use crate::cli::progress::Progress;
use crate::prove::{ByEntry, Digests, PullSecrets, Search, named_by};
use crate::source::Moment;

/// How many images are looked at at once.
const PARALLEL_IMAGES: usize = 16;

/// How old the metadata may be that a refusal rests on: all images of a repository share one look at it.
const REFUSAL_AGE: Duration = Duration::from_secs(60);

/// Who looks.
pub(super) struct Looker<'a> {
    /// The clients.
    pub(super) clients: &'a Clients,
    /// The policies and secrets.
    pub(super) moment: &'a dyn Moment,
    /// What holds where policies are silent.
    pub(super) defaults: &'a Defaults,
    /// The keys of the command line, for entries that name none.
    pub(super) keys: &'a [Key],
    /// How long one image may take.
    pub(super) timeout: Duration,
    /// The time at which everything is judged.
    pub(super) now: Timestamp,
}

/// What an entry asks for: whether it is Docker Content Trust, and whom to ask.
type Tree = Requirement<(bool, Result<Ask, Refusal>)>;

impl Looker<'_> {
    /// Looks at images, several at once; gives them in their order.
    pub(super) async fn look(&self, images: Vec<Asked>) -> Vec<Looked> {
        let (progress, all, mut looked) = (Progress::new(), images.len(), Vec::new());
        let mut looks = stream::iter(images).map(|asked| self.look_at(asked).boxed()).buffered(PARALLEL_IMAGES);
        while let Some(next) = looks.next().await {
            looked.push(next);
            progress.say(&format!("{} of {all} images looked at", looked.len()));
        }
        looked
    }

    async fn look_at(&self, asked: Asked) -> Looked {
        let container = ContainerImage { pointer: "/".into(), path: "bridge".into(), image: asked.image.clone() };
        let policies = self.moment.policies();
        let images = std::slice::from_ref(&container);
        // What is ready for another format is what would hold if it were enforced.
        let within = Within { namespace: &asked.namespace, mode: Mode::Enforce, now: self.now.as_second() };
        let planned = plan(policies, within, images, self.defaults).remove(0);
        let denied = |reason: &DenyReason| Outcome::Denied {
            reason: reason.to_string(),
            unlisted: matches!(
                reason,
                DenyReason::NoPolicies | DenyReason::NotListedInNamespace | DenyReason::NotListedInCluster { .. }
            ),
        };
        let Ok(reference) = ImageReference::parse(&asked.image) else {
            return Looked { asked, entry: None, outcome: denied(&DenyReason::InvalidName) };
        };
        let found = match policies.applies(&asked.namespace, &reference, Mode::Enforce) {
            Applies::Entry(found) => Some(found),
            _ => None,
        };
        let entry = found.as_ref().map(|found| (place(found), EntryRef::of(found)));
        let check = found.map(|found| &found.entry.check);
        let wanted = Wanted::of(&reference);
        let outcome = match (planned.need, check, wanted) {
            (Need::Nothing, ..) => Outcome::Unchecked,
            (Need::Proof(need), Some(check), _) => {
                let tree = tree(check, &need.requirement);
                let by = need.registry_named_by;
                let asking = Asking { reference: &reference, wanted: need.wanted, tree, by };
                Outcome::Signatures(Box::new(self.signatures(&asked, asking).await))
            }
            // Nobody can be asked for Docker Content Trust (a server that is gone, say); cosign can all the same.
            (
                Need::Denied(DenyReason::Refused(refusal)),
                Some(check @ Check::Proof(Requirement::One(_))),
                Ok(wanted),
            ) => {
                let tree = tree(check, &Requirement::One(Err(refusal)));
                let asking = Asking { reference: &reference, wanted, tree, by: NamedBy::Image };
                Outcome::Signatures(Box::new(self.signatures(&asked, asking).await))
            }
            (Need::Denied(reason), ..) => denied(&reason),
            (Need::Proof(_), None, _) => denied(&DenyReason::InvalidName),
        };
        Looked { asked, entry, outcome }
    }

    async fn signatures(&self, asked: &Asked, asking: Asking<'_>) -> Signatures {
        let Asking { reference, wanted, tree, by } = asking;
        let pull = PullSecrets::of(self.moment, &asked.namespace, &asked.workload);
        let search = Search {
            notary: &self.clients.notary,
            registry: &self.clients.registry,
            cosign: &self.clients.cosign,
            moment: self.moment,
            pull: &pull,
            namespace: &asked.namespace,
            deadline: self.timeout,
            denial_age: REFUSAL_AGE,
            demands: ByEntry::default(),
            cosign_demands: ByEntry::default(),
            digests: Digests::default(),
            budget: Budget::new(),
            now: self.now,
        };
        let until = Instant::now() + self.timeout;
        let asker = Asker { search: &search, reference, by, until };
        let (dct, alone) =
            tokio::join!(asker.dct(only(&tree, true, false), &wanted), asker.alone(&wanted, self.timeout));
        let demanded = only(&tree, false, false);
        let (demanded, manner) = match (demanded, self.keys) {
            (Some(demanded), _) => {
                let manner = manner(&demanded);
                (Some(demanded), manner)
            }
            (None, []) => (None, Manner::default()),
            (None, keys) => (Some(by_keys(reference, by, keys)), Manner::default()),
        };
        let runs_of_index = match (asked.running, alone.digest()) {
            (Some(running), Some(index)) if running != index => asker.lists(index, running).await,
            _ => false,
        };
        let mut digests: BTreeSet<Sha256> = asked.running.filter(|_| !runs_of_index).into_iter().collect();
        if let Dct::Proves(digest) = dct {
            digests.insert(digest);
        }
        digests.extend(alone.digest());
        let of_digest = |digest| {
            let (asker, demanded) = (&asker, demanded.as_ref());
            async move {
                let signed = match demanded {
                    Some(demanded) => asker.signed(demanded, digest).await,
                    None => asker.anybody(digest, self.timeout).await,
                };
                (digest, signed)
            }
        };
        let cosign: BTreeMap<_, _> = join_all(digests.into_iter().map(of_digest)).await.into_iter().collect();
        Signatures {
            repository: reference.repository(),
            stage: stage(&tree),
            dct,
            alone,
            runs_of_index,
            cosign,
            manner,
        }
    }
}

fn place(found: &Match<'_>) -> EntryAt {
    EntryAt { kind: found.policy.kind.clone(), policy: found.policy.name.clone(), index: found.index }
}

/// What is asked of an image.
struct Asking<'a> {
    reference: &'a ImageReference,
    wanted: Wanted,
    tree: Tree,
    /// Who says that its registry is the one to ask.
    by: NamedBy,
}

/// Both trees have the same form: one is made from the other.
fn tree(check: &Check, requirement: &Requirement<Result<Ask, Refusal>>) -> Tree {
    let mut proofs = check.proofs();
    requirement.map(&mut |ask| (matches!(proofs.next(), Some(ProofPolicy::Trust(_))), ask.clone()))
}

/// What is left of a tree if only one format counts. An alternative that asks for another format too is none then; beside each other, the
/// other one is left out.
fn only(tree: &Tree, trust: bool, within: bool) -> Option<Requirement<Result<Ask, Refusal>>> {
    match tree {
        Requirement::One((is_trust, ask)) => (*is_trust == trust).then(|| Requirement::One(ask.clone())),
        // Docker Content Trust is only asked what it has; cosign must be able to do without it.
        Requirement::All(_) if within && !trust && tree.asks().any(|(is_trust, _)| *is_trust) => None,
        Requirement::All(parts) => {
            Requirement::all(parts.iter().filter_map(|part| only(part, trust, within)).collect())
        }
        Requirement::Any(parts) => Requirement::any(parts.iter().filter_map(|part| only(part, trust, true)).collect()),
    }
}

/// How far an entry is: whether it can be met without the one, and without the other.
fn stage(tree: &Tree) -> Stage {
    fn without(tree: &Tree, trust: bool) -> bool {
        match tree {
            Requirement::One((is_trust, _)) => *is_trust != trust,
            Requirement::All(parts) => parts.iter().all(|part| without(part, trust)),
            Requirement::Any(parts) => parts.iter().any(|part| without(part, trust)),
        }
    }
    if tree.asks().all(|(is_trust, _)| *is_trust) {
        Stage::Trust
    } else if tree.asks().all(|(is_trust, _)| !*is_trust) {
        Stage::Cosign
    } else if without(tree, true) {
        Stage::Either
    } else {
        Stage::Both
    }
}

/// How the first of the policies that are asked for wants to be signed.
fn manner(demanded: &Requirement<Result<Ask, Refusal>>) -> Manner {
    let first = demanded.asks().find_map(|ask| match ask {
        Ok(Ask::Cosign(ask)) => Some(&ask.policy),
        _ => None,
    });
    first.map_or_else(Manner::default, |policy| Manner {
        repository: policy.repository.as_ref().map(ImageReference::repository),
        annotations: policy.annotations.clone(),
    })
}

/// That all keys of the command line must have signed.
fn by_keys(reference: &ImageReference, by: NamedBy, keys: &[Key]) -> Requirement<Result<Ask, Refusal>> {
    let policy = CosignPolicy { keys: keys.to_vec(), ..CosignPolicy::default() };
    Requirement::One(Ok(Ask::Cosign(Box::new(CosignAsk {
        image: reference.clone(),
        place: reference.clone(),
        named_by: by,
        registry_named_by: by,
        policy: Arc::new(policy),
        secrets_namespace: String::new(),
    }))))
}

/// Asks about one image.
struct Asker<'a> {
    search: &'a Search<'a>,
    reference: &'a ImageReference,
    /// Who says that the image's registry is the one to ask.
    by: NamedBy,
    until: Instant,
}

impl Asker<'_> {
    /// The login that the image's registry is asked with.
    async fn login(&self) -> Login {
        self.search.pull.login().await.at(named_by(self.by))
    }

    async fn gather(&self, demanded: &Requirement<Result<Ask, Refusal>>, wanted: &Wanted) -> Vec<Option<Evidence>> {
        let ask = async |ask: &Result<Ask, Refusal>| match ask {
            Ok(ask) => Some(self.search.prove(ask, wanted, None, self.until).await.evidence),
            Err(refusal) => Some(Err(refusal.clone())),
        };
        join_all(demanded.asks().map(|one| ask(one).boxed())).await
    }

    /// What Docker Content Trust proves. Of a tag with a digest it is the digest of the tag that tells what is trusted now.
    async fn dct(&self, demanded: Option<Requirement<Result<Ask, Refusal>>>, wanted: &Wanted) -> Dct {
        let Some(demanded) = demanded else { return Dct::NotAsked };
        let by_tag;
        let asked = match wanted {
            Wanted::TagAndDigest(tag, _) => {
                by_tag = Wanted::Tag(tag.clone());
                &by_tag
            }
            other => other,
        };
        match demanded.judge(self.reference, asked, &self.gather(&demanded, asked).await) {
            Ok(proven) => Dct::Proves(proven.digest()),
            Err(reason) if reason.is_undecided() => Dct::Undecided(reason.to_string()),
            Err(reason) => Dct::Refuses(reason.to_string()),
        }
    }

    /// By which digest cosign alone would go.
    async fn alone(&self, wanted: &Wanted, timeout: Duration) -> Alone {
        if let Some(digest) = wanted.digest() {
            return Alone::Named(digest);
        }
        let host = RegistryClient::host(self.reference);
        let login = self.login().await;
        let asked = self.search.cosign.digest(self.reference, &login, self.search.namespace);
        match tokio::time::timeout_at(self.until, asked).await {
            Ok(Ok(Some(digest))) => Alone::Tagged(digest),
            Ok(Ok(None)) => Alone::Missing(format!(
                "{host} has no {}, so there is nothing that cosign could sign; push it, or correct its name",
                shown(self.reference.as_written())
            )),
            Ok(Err(error)) => Alone::Undecided(format!("{host} could not be asked: {error}")),
            Err(_) => Alone::Undecided(format!("{host} did not bring an answer within {} s", timeout.as_secs_f32())),
        }
    }

    /// Whether a digest is that of an index that lists another one. Where that cannot be found out, it is not taken for one.
    async fn lists(&self, index: Sha256, digest: Sha256) -> bool {
        let place = Repository::of(self.reference);
        let login = self.login().await;
        let registry = self.search.registry();
        let asked = registry.manifest(&place, Which::Digest(index), &login);
        let Ok(Ok(Some(manifest))) = tokio::time::timeout_at(self.until, asked).await else { return false };
        let document: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
        let digest = digest.to_string();
        document["manifests"].as_array().into_iter().flatten().any(|listed| listed["digest"] == digest.as_str())
    }

    /// Whether a digest is signed as is demanded.
    async fn signed(&self, demanded: &Requirement<Result<Ask, Refusal>>, digest: Sha256) -> Signed {
        let wanted = Wanted::Digest(digest);
        match demanded.judge(self.reference, &wanted, &self.gather(demanded, &wanted).await) {
            Ok(_) => Signed::Proven,
            Err(reason) if reason.is_undecided() => Signed::Undecided(reason.to_string()),
            Err(reason) => Signed::No(reason.to_string()),
        }
    }

    /// Whether a digest has any signature of cosign, whoever made it.
    async fn anybody(&self, digest: Sha256, timeout: Duration) -> Signed {
        let (place, repository) = (Repository::of(self.reference), self.reference.repository());
        let host = RegistryClient::host(self.reference);
        let login = self.login().await;
        let looked = Box::pin(self.search.cosign.inspect(&place, &repository, digest, &[], &login));
        match tokio::time::timeout_at(self.until, looked).await {
            Ok(Ok(found)) if found.found.signatures().values().any(|count| *count > 0) => Signed::Unverified,
            Ok(Ok(found)) => match found.trouble.first() {
                Some(trouble) => Signed::Undecided(format!("{host} could not be asked: {trouble}")),
                None => Signed::No(format!("{host} has no signature of cosign of {digest}")),
            },
            Ok(Err(error)) => Signed::Undecided(format!("{host} could not be asked: {error}")),
            Err(_) => Signed::Undecided(format!("{host} did not bring an answer within {} s", timeout.as_secs_f32())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::State;
    use super::*;
    use crate::cli::clients::{self, Reach};
    use crate::config::{ClusterPolicySecrets, Span};
    use crate::source::files::Loaded;

    fn pem() -> String {
        forge::Key::p256("alice").pem().replace('\n', "\\n")
    }

    fn folder(policy: &str) -> Loaded {
        let text = format!(
            "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: p}}\nspec: {{repositories: [{{name: '127.0.0.1:1/*', policy: {policy}}}]}}\n"
        );
        Loaded::of(&crate::documents::parse("f", &text).unwrap()).unwrap()
    }

    /// How far an entry is, and how many of its asks are left for the trust server alone and for cosign alone.
    fn parts(policy: &str) -> (Stage, usize, usize) {
        let loaded = folder(policy);
        let container = ContainerImage { pointer: "/".into(), path: "x".into(), image: "127.0.0.1:1/a:1".into() };
        let defaults = clients::defaults("c", ClusterPolicySecrets::OwnNamespace, BTreeMap::new());
        let within = Within { namespace: "n", mode: Mode::Enforce, now: 0 };
        let planned = plan(loaded.policies(), within, std::slice::from_ref(&container), &defaults).remove(0);
        let Need::Proof(need) = planned.need else { panic!("{policy}") };
        let policies: Vec<_> = loaded.policies().policies().collect();
        let tree = tree(&policies[0].entries[0].check, &need.requirement);
        let count = |trust| only(&tree, trust, false).map_or(0, |left| left.asks().count());
        (stage(&tree), count(true), count(false))
    }

    #[test]
    fn each_side_is_asked_what_is_its_own() {
        let trust = "trust: {enabled: true}";
        let cosign = format!("cosign: {{keys: [\"{}\"]}}", pem());
        for (policy, expected) in [
            (format!("{{{trust}}}"), (Stage::Trust, 1, 0)),
            (format!("{{{cosign}}}"), (Stage::Cosign, 0, 1)),
            (format!("{{{trust}, {cosign}}}"), (Stage::Both, 1, 1)),
            (format!("{{anyOf: [{{{cosign}}}, {{{trust}}}]}}"), (Stage::Either, 1, 1)),
            // An alternative that wants trust too is none that cosign could meet alone.
            (format!("{{anyOf: [{{{cosign}, {trust}}}, {{{trust}}}]}}"), (Stage::Both, 2, 0)),
            (format!("{{anyOf: [{{{cosign}}}, {{{cosign}, {trust}}}]}}"), (Stage::Either, 1, 1)),
            (format!("{{{trust}, anyOf: [{{{cosign}}}, {{{trust}}}]}}"), (Stage::Both, 2, 1)),
            (format!("{{{cosign}, anyOf: [{{{cosign}}}, {{{trust}}}]}}"), (Stage::Either, 1, 2)),
        ] {
            assert_eq!(parts(&policy), expected, "{policy}");
        }
    }

    async fn looked(policy: &str, image: &str) -> Looked {
        let loaded = folder(policy);
        let reach = Reach {
            trust_ca: Vec::new(),
            registry_config: None,
            insecure_registry: Vec::new(),
            timeout: Span(Duration::from_secs(20)),
        };
        let (clients, defaults) = (
            reach.clients(&crate::config::Settings::default()).unwrap(),
            clients::defaults("c", ClusterPolicySecrets::OwnNamespace, BTreeMap::new()),
        );
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let looker = Looker {
            clients: &clients,
            moment: &loaded,
            defaults: &defaults,
            keys: &[],
            timeout: Duration::from_secs(20),
            now,
        };
        let asked = Asked {
            namespace: "n".into(),
            image: image.into(),
            running: None,
            workload: countersign_policy::Workload::default(),
        };
        looker.look(vec![asked]).await.remove(0)
    }

    /// A server that is shut down is an answer; a registry where nobody listens is none.
    #[tokio::test]
    async fn what_cannot_be_asked_is_told() {
        let digest = Sha256::of(b"");
        let named = format!("127.0.0.1:1/a@{digest}");
        let retired = "{trust: {enabled: true, trustServer: 'https://notary.docker.io'}}";
        let found = looked(retired, &named).await;
        let signatures = found.signatures().unwrap();
        assert!(
            matches!(&signatures.dct, Dct::Refuses(reason) if reason.contains("was shut down on 2026-12-08")),
            "{found:?}"
        );
        assert_eq!((signatures.stage, &signatures.alone), (Stage::Trust, &Alone::Named(digest)));
        assert_eq!((found.state(), found.ready()), (State::Undecided, false));
        assert!(found.advice().contains("127.0.0.1:1"), "{}", found.advice());
        // The registry does not say what the tag names.
        let found = looked("{trust: {enabled: true, trustServer: 'https://127.0.0.1:1'}}", "127.0.0.1:1/a:1").await;
        assert!(matches!(&found.signatures().unwrap().alone, Alone::Undecided(_)), "{found:?}");
        assert_eq!(found.state(), State::Undecided);
    }

    #[tokio::test]
    async fn nobody_is_asked_about_what_is_not_asked_for() {
        for (policy, image, state, counts) in [
            ("{}", "127.0.0.1:1/a", State::Unchecked, false),
            ("{trust: {enabled: false}}", "127.0.0.1:1/a", State::Unchecked, false),
            ("{}", "other.io/a", State::Denied, false),
            ("{}", "A", State::Denied, true),
        ] {
            let found = looked(policy, image).await;
            assert_eq!((found.state(), found.counts(), found.ready()), (state, counts, false), "{policy} {image}");
        }
        let sha512 = format!("127.0.0.1:1/a@sha512:{}", "a".repeat(128));
        let found = looked("{trust: {enabled: true}}", &sha512).await;
        assert_eq!((found.state(), found.counts()), (State::Denied, true), "{found:?}");
    }
}
