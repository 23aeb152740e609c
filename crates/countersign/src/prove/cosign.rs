//! Signatures of cosign: which digest is asked about, whether a registry has signatures of it by the keys that a policy lists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_cosign::{Demand, Error as CosignError, Key, Proof as CosignProof};
use countersign_image::{ImageReference, Sha256, Wanted, shown};
use countersign_policy::{CosignAsk, DenialCause, Format, Proof, Refusal, SecretProblem, SecretRef};
use countersign_remote::{RegistryClient, RegistryError, Repository, SignatureFailure, SignaturesAsk, Which};
use futures::future::Shared;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::Instant;

use super::{Found, Search, named_by};
use crate::source::{Moment, SecretData};

/// How long the name of a signer may be: as long as that of a secret.
const MAX_NAME_BYTES: usize = 253;

/// How many parts of an unsigned index are looked at: those of the common platforms come first.
const MAX_PARTS: usize = 4;

/// The digest that another ask proves which must hold as well; nothing, if it proves none.
pub(crate) type Beside = Shared<oneshot::Receiver<Option<Sha256>>>;

/// What a registry has for an image, or why that is not known.
type Resolved = Result<Option<Sha256>, RegistryError>;

/// What the tags of a review's images name. Each is asked for once a review: if it moved meanwhile, alternatives of one image would be
/// about different content.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<String, Arc<OnceCell<Resolved>>>>);

impl Digests {
    async fn of(&self, image: &ImageReference, ask: impl Future<Output = Resolved>) -> Resolved {
        let cell = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(image.canonical()).or_default())
        };
        cell.get_or_init(|| ask).await.clone()
    }
}

impl Search<'_> {
    pub(crate) async fn prove_by_cosign(
        &self,
        ask: &CosignAsk,
        wanted: &Wanted,
        beside: Option<Beside>,
        until: Instant,
    ) -> Found {
        let evidence = self.signatures(ask, wanted, beside, until).await.map(Proof::Cosign);
        Found { evidence, seen: None }
    }

    async fn signatures(
        &self,
        ask: &CosignAsk,
        wanted: &Wanted,
        beside: Option<Beside>,
        until: Instant,
    ) -> Result<CosignProof, Refusal> {
        let host = RegistryClient::host(&ask.place);
        let late = |_| self.late(Format::Cosign, &host);
        let no_turn = || self.no_turn(Format::Cosign, &host);
        // Before a turn is taken: what stands beside it needs one of its own.
        let known = match (wanted.digest(), beside) {
            (Some(digest), _) => Some(digest),
            (None, Some(beside)) => tokio::time::timeout_at(until, beside).await.map_err(late)?.ok().flatten(),
            (None, None) => None,
        };
        if Instant::now() >= until {
            return Err(no_turn());
        }
        let turn = tokio::time::timeout_at(until, self.notary.proof(self.namespace, &host)).await;
        let Ok(Ok(_turn)) = turn else { return Err(no_turn()) };
        // It is large, and only those that have a turn are to take room.
        let looked = Box::pin(self.look_for_signatures(ask, known));
        tokio::time::timeout_at(until, looked).await.map_err(late)?
    }

    async fn look_for_signatures(&self, ask: &CosignAsk, known: Option<Sha256>) -> Result<CosignProof, Refusal> {
        let read = read_demand(self.moment, ask);
        let demand = self.cosign_demands.of(&ask.policy, read).await?;
        let login = self.pull.login().await;
        let digest = if let Some(digest) = known {
            digest
        } else {
            let login = login.at(named_by(ask.registry_named_by));
            let asked = self.cosign.digest(&ask.image, &login, self.namespace);
            digest_of(&ask.image, self.digests.of(&ask.image, asked).await)?
        };
        let at_place = login.at(named_by(ask.named_by));
        let (repository, place) = (ask.image.repository(), Repository::of(&ask.place));
        let asked = SignaturesAsk {
            repository: &repository,
            place: &place,
            digest,
            demand: &demand,
            login: &at_place,
            namespace: self.namespace,
            budget: &self.budget,
            denial_age: self.denial_age,
        };
        let host = RegistryClient::host(&ask.place);
        match self.cosign.prove(&asked).await {
            Ok(proof) => Ok(proof),
            Err(SignatureFailure::NotProven(error)) if matches!(*error, CosignError::NoSignature { .. }) => {
                match self.signed_part(ask, &asked).await {
                    None => Err(Refusal::cosign(&host, *error)),
                    Some(part) => {
                        Err(Refusal::OnlyPartsSigned { host, digest: digest.to_string(), part: part.to_string() })
                    }
                }
            }
            Err(failure) => Err(refusal(&host, failure)),
        }
    }

    /// Of an index without signatures a part that is signed as is asked, so that somebody who signed the wrong digest is told. It decides
    /// nothing: what is asked about is what runs.
    async fn signed_part(&self, ask: &CosignAsk, asked: &SignaturesAsk<'_>) -> Option<Sha256> {
        let login = self.pull.login().await.at(named_by(ask.registry_named_by));
        let which = Which::Digest(asked.digest);
        let index = self.registry().manifest(&Repository::of(&ask.image), which, &login).await.ok()??;
        for part in parts(&index.bytes) {
            if self.cosign.prove(&SignaturesAsk { digest: part, ..*asked }).await.is_ok() {
                return Some(part);
            }
        }
        None
    }
}

/// The digest that is asked about where nothing names one: what the registry has for the tag.
///
/// # Errors
/// It has none, or did not say.
pub(crate) fn digest_of(
    image: &ImageReference,
    resolved: Result<Option<Sha256>, RegistryError>,
) -> Result<Sha256, Refusal> {
    let host = RegistryClient::host(image);
    match resolved {
        Ok(Some(digest)) => Ok(digest),
        Ok(None) => Err(Refusal::NoImage { host, image: shown(image.as_written()) }),
        Err(error) => Err(not_asked(&host, &error)),
    }
}

/// The first parts of an index; nothing, if it is none.
fn parts(index: &[u8]) -> Vec<Sha256> {
    let index: serde_json::Value = serde_json::from_slice(index).unwrap_or_default();
    let parts = index.get("manifests").and_then(serde_json::Value::as_array);
    let digest = |part: &serde_json::Value| Sha256::parse(part.get("digest")?.as_str()?);
    parts.into_iter().flatten().take(MAX_PARTS).filter_map(digest).collect()
}

/// What a failure of the client means for an image.
pub(crate) fn refusal(host: &str, failure: SignatureFailure) -> Refusal {
    match failure {
        SignatureFailure::NotProven(error) => Refusal::cosign(host, *error),
        SignatureFailure::Undecided(error) => not_asked(host, &error),
        other => undecided(DenialCause::Busy, other.to_string()),
    }
}

fn not_asked(host: &str, error: &RegistryError) -> Refusal {
    undecided(why(error), format!("{host} could not be asked: {error} (trying again may help)"))
}

/// The kind of reason for which a registry gave no answer.
pub(crate) fn why(error: &RegistryError) -> DenialCause {
    match error {
        RegistryError::Auth(_) => DenialCause::LoginFailed,
        RegistryError::NotSha256(_) => DenialCause::BadReference,
        RegistryError::Broken { .. } => DenialCause::Internal,
        _ => DenialCause::Unreachable,
    }
}

fn undecided(why: DenialCause, cause: String) -> Refusal {
    Refusal::Undecided { format: Format::Cosign, why, cause }
}

/// Reads what an entry demands: the keys of its secrets, and its own.
///
/// # Errors
/// The first secret that is not there, or of no use; keys that do not go together.
pub(crate) async fn read_demand(moment: &dyn Moment, ask: &CosignAsk) -> Result<Demand, Refusal> {
    let mut keys = Vec::new();
    for secret in ask.signer_secrets() {
        let data =
            moment.secret(&secret).await.map_err(|error| undecided(DenialCause::PoliciesUnknown, error.to_string()))?;
        keys.push(read_key(&secret, data.as_deref())?);
    }
    let policy = &ask.policy;
    keys.extend(policy.keys.iter().cloned());
    let demand = Demand::new(keys, policy.threshold, policy.required.clone(), policy.annotations.clone());
    demand.map_err(|problem| Refusal::CosignDemand { problem })
}

/// The key that a secret holds, under the name of its signer: that in `name`, or else that of the secret, as cosign writes no name.
///
/// # Errors
/// A secret that is not there, or is incomplete or of no use.
pub(crate) fn read_key(secret: &SecretRef, data: Option<&SecretData>) -> Result<Key, Refusal> {
    let not_found = || Refusal::SignerSecret { secret: secret.clone(), problem: SecretProblem::NotFound };
    let data = data.ok_or_else(not_found)?;
    data.taken.cosign.get_or_init(|| key(secret, data)).clone()
}

fn key(secret: &SecretRef, data: &SecretData) -> Result<Key, Refusal> {
    let problem = |problem| Refusal::SignerSecret { secret: secret.clone(), problem };
    let name = match data.name() {
        None => secret.name.as_str(),
        // One that came from a file usually ends in a line feed.
        Some(name) if name.len() <= MAX_NAME_BYTES => {
            std::str::from_utf8(name.trim_ascii()).map_err(|_| problem(SecretProblem::BadName))?
        }
        Some(_) => return Err(problem(SecretProblem::BadName)),
    };
    let read =
        |pem: &[u8]| Key::from_pem(name, pem).map_err(|problem| Refusal::CosignKey { secret: secret.clone(), problem });
    let (of_policies, of_cosign) = (data.public_key().map(read).transpose()?, data.cosign_pub().map(read).transpose()?);
    match (of_policies, of_cosign) {
        (Some(one), Some(other)) if one != other => Err(problem(SecretProblem::TwoKeys)),
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(problem(SecretProblem::NoCosignKey)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(values: &[(&str, &str)]) -> SecretData {
        let value =
            |key: &str| values.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_bytes().to_vec());
        SecretData::read::<()>("Opaque", |key| Ok(value(key))).unwrap()
    }

    #[test]
    fn keys_are_read_as_people_and_cosign_write_them() {
        let (one, other) = (forge::Key::p256("one").pem(), forge::Key::p256("other").pem());
        let secret = SecretRef { namespace: "n".into(), name: "alice-cosign".into() };
        let name = |values: &[(&str, &str)]| read_key(&secret, Some(&data(values))).map(|key| key.name().to_owned());
        assert_eq!(name(&[("name", "alice\n"), ("publicKey", &one)]), Ok("alice".into()));
        // `cosign generate-key-pair k8s://` writes no name, and the private key beside.
        let own = [("cosign.key", "x"), ("cosign.password", ""), ("cosign.pub", one.as_str())];
        assert_eq!(name(&own), Ok("alice-cosign".into()));
        assert_eq!(name(&[("publicKey", &one), ("cosign.pub", &format!("{one}\n"))]), Ok("alice-cosign".into()));
        let long = "x".repeat(254);
        for (values, problem) in [
            (&[("publicKey", one.as_str()), ("cosign.pub", &other)][..], "publicKey and cosign.pub are different keys"),
            (&[("name", "alice")], "publicKey and cosign.pub are empty"),
            (&[("name", long.as_str()), ("publicKey", &one)], "name is not a text of at most 253 bytes"),
        ] {
            let refused = name(values).unwrap_err();
            assert!(refused.to_string().contains(problem), "{refused}");
        }
        assert!(matches!(name(&[("publicKey", "x")]), Err(Refusal::CosignKey { .. })));
        assert!(matches!(read_key(&secret, None), Err(Refusal::SignerSecret { problem: SecretProblem::NotFound, .. })));
    }
}
