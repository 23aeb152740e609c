//! Docker Content Trust: what a trust server has signed of an image, asked at the namespace's turn and within the review's time.

use std::sync::Arc;
use std::time::Duration;

use countersign_image::Wanted;
use countersign_notary::{Proof as NotaryProof, Repository, RootPins, Signer, TrustServer};
use countersign_policy::{DenialCause, Format, NotaryAsk, Proof, Refusal, SecretProblem, SecretRef};
use countersign_remote::{Ask, Failure, Login, NamedBy, NotaryClient, PinnedCertificate, Seen, Sharing};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use super::{Found, Search, named_by};
use crate::source::{AtHand, Moment, SecretData};

/// The member of a policy that pins the certificate of a trust server.
pub(crate) const CERTIFICATE: &str = "trustServerCertificate";

/// What is demanded of a repository on a trust server, read from the secrets and keys that say it.
#[derive(Debug, Clone)]
pub(crate) struct Demands {
    /// Signers who must have signed.
    pub signers: Vec<Signer>,
    /// Root keys that the repository must stand under.
    pub pins: RootPins,
    /// The one certificate that the trust server must show, if one is pinned.
    pub certificate: Option<PinnedCertificate>,
}

impl Demands {
    /// Nothing but sound metadata.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { signers: Vec::new(), pins: RootPins::none(), certificate: None }
    }

    /// Reads what an entry names.
    ///
    /// # Errors
    /// The first secret or key that is not there, or of no use.
    pub(crate) async fn read(moment: &dyn Moment, ask: &NotaryAsk) -> Result<Self, Refusal> {
        let mut signers = Vec::new();
        for secret in ask.signer_secrets() {
            signers.push(read_signer(&secret, read_secret(moment, &secret).await?.as_deref())?);
        }
        let mut pins = RootPins::none();
        for key in &ask.policy.root_keys {
            pins.add(key).map_err(|_| Refusal::RootKey { origin: "an item of rootKeys".to_owned() })?;
        }
        for secret in ask.root_secrets() {
            let data = read_secret(moment, &secret).await?;
            pins.extend(read_pin(&secret, data.as_deref())?);
        }
        let certificate =
            ask.policy.server_certificate.as_deref().map(|pem| PinnedCertificate::parse(pem, CERTIFICATE)).transpose();
        let certificate = certificate.map_err(|error| undecided(DenialCause::PoliciesUnknown, error.to_string()))?;
        Ok(Self { signers, pins, certificate })
    }
}

/// A question to a trust server: whoever asks one, asks this way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The server.
    pub server: &'a TrustServer,
    /// The repository's name there.
    pub gun: &'a str,
    /// What is demanded of it.
    pub demands: &'a Demands,
    /// The namespace whose policy pins the server's certificate, see [`NotaryAsk::pinned_in`].
    pub pinned_in: Option<&'a str>,
}

impl Question<'_> {
    /// The repository, asked for with the configured credentials only, and for no namespace. `named_by` is who says that the server is
    /// the one to ask: it decides which credentials it is shown.
    ///
    /// # Errors
    /// What kept it from being verified; see [`Self::refusal`].
    pub(crate) async fn repository(&self, client: &NotaryClient, named_by: NamedBy) -> Result<Seen, Failure> {
        let login = Login::none().at(named_by);
        client.repository(self.ask(&login, "", None)).await
    }

    fn ask<'a>(&'a self, login: &'a Login, namespace: &'a str, max_age: Option<Duration>) -> Ask<'a> {
        Ask {
            server: self.server,
            gun: self.gun,
            pins: &self.demands.pins,
            certificate: self.demands.certificate.as_ref(),
            pinned_in: self.pinned_in,
            signers: &self.demands.signers,
            login,
            namespace,
            max_age,
        }
    }

    /// What a repository proves for an image.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub(crate) fn resolve(
        &self,
        repository: &Repository,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<NotaryProof, Refusal> {
        let resolved = repository.resolve(wanted, &self.demands.signers, now);
        resolved.map_err(|error| Refusal::notary(self.server.host_port(), error))
    }

    /// What a failure of the client means for an image.
    #[must_use]
    pub(crate) fn refusal(&self, failure: Failure) -> Refusal {
        match failure {
            Failure::Untrusted(error) => Refusal::notary(self.server.host_port(), *error),
            other => undecided(why(&other), other.to_string()),
        }
    }
}

impl Search<'_> {
    pub(crate) async fn prove_by_notary(&self, ask: &NotaryAsk, wanted: &Wanted, until: Instant) -> Found {
        match self.in_turn(ask, wanted, until).await {
            Ok((proof, seen)) => Found { evidence: Ok(Proof::Notary(proof)), seen: Some(seen) },
            Err(refusal) => Found { evidence: Err(refusal), seen: None },
        }
    }

    /// Proves an image once the namespace has a turn, as long as there is time.
    async fn in_turn(&self, ask: &NotaryAsk, wanted: &Wanted, until: Instant) -> Result<(NotaryProof, Seen), Refusal> {
        let server = ask.server.host_port();
        let no_turn = || Err(self.no_turn(Format::Notary, server));
        // What is in memory takes nothing that there is little of.
        if let Some(proven) = self.at_hand(ask, wanted) {
            return Ok(proven);
        }
        // Past its time a review of a thousand images does not stand in line a thousand times.
        if Instant::now() >= until {
            return no_turn();
        }
        let Ok(Ok(_turn)) = tokio::time::timeout_at(until, self.notary.proof(self.namespace, server)).await else {
            return no_turn();
        };
        // It is large, and only those that have a turn are to take room.
        let proven = Box::pin(self.look_up(ask, wanted));
        tokio::time::timeout_at(until, proven).await.unwrap_or_else(|_| {
            let certificate = ask
                .policy
                .server_certificate
                .as_deref()
                .and_then(|pem| PinnedCertificate::parse(pem, CERTIFICATE).ok());
            if self.notary.waits_for_its_turn(&ask.server, &ask.gun, certificate, ask.pinned_in()) {
                return no_turn();
            }
            Err(self.late(Format::Notary, server))
        })
    }

    /// What is proven by what is in memory and may be shown to everybody. That it proves nothing is for [`Self::look_up`] to say, which
    /// asks again.
    fn at_hand(&self, ask: &NotaryAsk, wanted: &Wanted) -> Option<(NotaryProof, Seen)> {
        if self.notary.sharing() != Sharing::Everybody {
            return None;
        }
        let known = AtHand(self.moment);
        let demands = self.demands.of(&ask.policy, Demands::read(&known, ask)).now_or_never()?.ok()?;
        let question =
            Question { server: &ask.server, gun: &ask.gun, demands: demands.as_ref(), pinned_in: ask.pinned_in() };
        let login = Login::none().at(named_by_in(ask, question.demands));
        let seen = self.notary.at_hand(&question.ask(&login, self.namespace, None))?;
        let proof = question.resolve(&seen, wanted, self.now).ok()?;
        Some((proof, seen))
    }

    async fn look_up(&self, ask: &NotaryAsk, wanted: &Wanted) -> Result<(NotaryProof, Seen), Refusal> {
        let demands = self.demands.of(&ask.policy, Demands::read(self.moment, ask)).await?;
        let question =
            Question { server: &ask.server, gun: &ask.gun, demands: demands.as_ref(), pinned_in: ask.pinned_in() };
        let resolve = |repository: &Repository| question.resolve(repository, wanted, self.now);
        let mut seen = self.ask_server(ask, &question, None).await.map_err(|failure| question.refusal(failure))?;
        let mut resolved = resolve(&seen);
        if resolved.is_err() {
            // An older answer may allow; a denial rests on one that was asked for just now.
            let asked = self.ask_server(ask, &question, Some(self.denial_age)).await;
            seen = asked.map_err(|failure| question.refusal(failure))?;
            resolved = resolve(&seen);
        }
        // Another replica, which has not asked again yet, may have pinned the image a moment ago to what the tag was before.
        if resolved.is_err()
            && wanted.digest().is_some()
            && let Some(former) = seen.former()
            && let Ok(before) = resolve(&former)
        {
            resolved = Ok(before);
        }
        Ok((resolved?, seen))
    }

    /// Asks without the pod's credentials first, as most of what is kept was verified already; where somebody wants a
    /// login, or what one login brought is not for everybody, with them.
    async fn ask_server(
        &self,
        ask: &NotaryAsk,
        question: &Question<'_>,
        max_age: Option<Duration>,
    ) -> Result<Seen, Failure> {
        let send = async |login: &Login| {
            let login = login.at(named_by_in(ask, question.demands));
            let began = Instant::now();
            let asked = self.notary.repository(question.ask(&login, self.namespace, max_age)).await;
            let (server, repository, took) = (ask.server.host_port(), &ask.gun, began.elapsed());
            debug!(
                server,
                ?repository,
                with_login = !login.is_empty(),
                answered = asked.is_ok(),
                ?took,
                "asked a trust server"
            );
            asked
        };
        if self.notary.sharing() == Sharing::Everybody {
            let asked = send(&Login::none()).await;
            if !matches!(asked, Err(Failure::Auth(_))) || self.pull.login().await.is_empty() {
                return asked;
            }
        }
        send(self.pull.login().await).await
    }
}

/// Who says that the server of an ask is the one to ask.
pub(crate) fn named_by_in(ask: &NotaryAsk, demands: &Demands) -> NamedBy {
    match ask.named_by {
        countersign_policy::NamedBy::Tenant if demands.certificate.is_some() => NamedBy::TenantWithCertificate,
        other => named_by(other),
    }
}

/// What a secret holds.
///
/// # Errors
/// It cannot be told now.
async fn read_secret(moment: &dyn Moment, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, Refusal> {
    moment.secret(secret).await.map_err(|error| undecided(DenialCause::PoliciesUnknown, error.to_string()))
}

/// The kind of reason for which the client has no answer.
pub(crate) fn why(failure: &Failure) -> DenialCause {
    match failure {
        Failure::Http(_) | Failure::TimedOut { .. } => DenialCause::Unreachable,
        Failure::Auth(_) => DenialCause::LoginFailed,
        Failure::State(_) => DenialCause::MemoryUnreadable,
        Failure::TooMuch { .. } => DenialCause::Limit,
        Failure::BadName { .. } => DenialCause::BadReference,
        Failure::Contradicted { .. } => DenialCause::Rollback,
        Failure::Busy { .. } | Failure::Abandoned { .. } => DenialCause::Busy,
        // An untrusted repository is told by its own error.
        _ => DenialCause::Internal,
    }
}

fn undecided(why: DenialCause, cause: String) -> Refusal {
    Refusal::Undecided { format: Format::Notary, why, cause }
}

fn problem(secret: &SecretRef, problem: SecretProblem) -> Refusal {
    Refusal::SignerSecret { secret: secret.clone(), problem }
}

/// The signer that a secret describes.
///
/// # Errors
/// A secret that is not there, or is incomplete or of no use.
pub(crate) fn read_signer(secret: &SecretRef, data: Option<&SecretData>) -> Result<Signer, Refusal> {
    let data = data.ok_or_else(|| problem(secret, SecretProblem::NotFound))?;
    data.taken.signer.get_or_init(|| signer(secret, data)).clone()
}

fn signer(secret: &SecretRef, data: &SecretData) -> Result<Signer, Refusal> {
    let name = data.name().ok_or_else(|| problem(secret, SecretProblem::NoName))?;
    let key = data.public_key().ok_or_else(|| problem(secret, SecretProblem::NoPublicKey))?;
    // A name that came from a file usually ends in a line feed.
    let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
    Signer::new(&name, key).map_err(|problem| Refusal::SignerKey { secret: secret.clone(), problem })
}

/// The root key that a secret pins.
///
/// # Errors
/// A secret that is not there, or holds no key.
pub(super) fn read_pin(secret: &SecretRef, data: Option<&SecretData>) -> Result<RootPins, Refusal> {
    let data = data.ok_or_else(|| problem(secret, SecretProblem::NotFound))?;
    data.taken.pins.get_or_init(|| pin(secret, data)).clone()
}

fn pin(secret: &SecretRef, data: &SecretData) -> Result<RootPins, Refusal> {
    let key = data.public_key().ok_or_else(|| problem(secret, SecretProblem::NoPublicKey))?;
    let bad = || Refusal::RootKey { origin: format!("secret {}", secret.name) };
    let mut pins = RootPins::none();
    pins.add(std::str::from_utf8(key).map_err(|_| bad())?).map_err(|_| bad())?;
    Ok(pins)
}
