//! From a plan to a verdict: gathers the evidence, for all images at once, within a deadline.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_image::{Sha256, Wanted, shown};
use countersign_notary::{Proof, Repository, RootPins, Signer};
use countersign_policy::{
    ContainerImage, Defaults, DenyReason, ImageVerdict, Need, Outcome, PlannedImage, Reviewed, SecretProblem,
    SecretRef, TrustNeed, Verdict, Workload, plan,
};
use countersign_remote::{
    Ask, Clock, Committed, DockerConfig, Failure, Login, MAX_LOOKS, NamedBy, NotaryClient, PinnedCertificate,
    RegistryClient, Seen, Sharing,
};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::warn;

use crate::source::{Moment, PullData, SecretData, Source};

/// How many pull secrets of one workload are tried.
const MAX_PULL_SECRETS: usize = 16;

/// How many images of one review are proven at once.
const PARALLEL_IMAGES: usize = 32;

/// How many repositories on trust servers one review may ask for: pods have a handful, and whoever wants more could make this
/// process ask for, and remember, any number.
const MAX_REPOSITORIES: usize = 64;

/// How many images and entries are compared at once: some milliseconds of it.
const MATCHES_AT_ONCE: usize = 20_000;

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The namespace whose policies count.
    pub namespace: &'a str,
    /// The workload, which says with which credentials its images are pulled.
    pub workload: &'a Workload,
    /// Those of its images that are to be judged.
    pub images: &'a [ContainerImage],
    /// When there must be an answer.
    pub until: Instant,
    /// How old the metadata may be that a denial rests on.
    pub denial_age: Duration,
    /// What stood there before, whose digests are put back where nothing can be decided; `None` where nothing may be changed.
    pub before: Option<&'a Reviewed>,
    /// Whether what an admission rests on is written to the store of memories.
    pub record: bool,
}

/// Decides about images. One engine serves the webhook and the command line.
#[derive(Clone)]
pub struct Engine {
    /// Where policies and secrets come from.
    pub source: Arc<dyn Source>,
    /// Where signatures come from.
    pub notary: NotaryClient,
    /// Where images are.
    pub registry: RegistryClient,
    /// What holds where policies are silent.
    pub defaults: Defaults,
    /// The wall clock, read once a review.
    pub clock: Clock,
    /// How long one review may take.
    pub deadline: Duration,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Engine {
    /// Judges images of one workload. Whatever goes wrong on the way is a denial with its cause.
    pub async fn judge(&self, job: &Job<'_>) -> Verdict {
        for _ in 0..MAX_LOOKS {
            let (mut verdict, proven) = self.judge_once(job).await;
            if let Some(before) = job.before {
                put_back(&mut verdict, before);
            }
            if !job.record || !verdict.allowed() {
                return verdict;
            }
            match self.record(&proven, job).await {
                Ok(true) => return verdict,
                Ok(false) => {}
                Err(cause) => return all_undecided(job.images, &cause),
            }
        }
        // Each time somebody else had seen more of a repository in the meantime.
        all_undecided(job.images, "what is remembered of a repository changed while it was looked at; try again")
    }

    async fn judge_once(&self, job: &Job<'_>) -> (Verdict, Vec<Seen>) {
        let now = (self.clock)();
        let moment = match self.source.now() {
            Ok(moment) => moment,
            Err(error) => return (all_undecided(job.images, &error.to_string()), Vec::new()),
        };
        let mut planned = match self.plan(moment.as_ref(), job, now).await {
            Ok(planned) => planned,
            Err(cause) => return (all_undecided(job.images, &cause), Vec::new()),
        };
        limit_repositories(&mut planned);
        let pull = PullSecrets {
            moment: moment.as_ref(),
            namespace: job.namespace,
            workload: job.workload,
            login: OnceCell::new(),
        };
        let pull = &pull;
        // One after the other: what it takes to prove an image is not made before its turn comes.
        let judged = stream::iter(planned).map(|planned| {
            let moment = Arc::clone(&moment);
            async move {
                let evidence = match &planned.need {
                    Need::Trust(need) => Some(self.prove_in_turn(moment.as_ref(), need, pull, now, job).await),
                    Need::Nothing | Need::Denied(_) => None,
                };
                let (evidence, seen) = match evidence {
                    Some(Ok((proof, seen))) => (Some(Ok(proof)), Some(seen)),
                    Some(Err(reason)) => (Some(Err(reason)), None),
                    None => (None, None),
                };
                (ImageVerdict::judge(planned, evidence), seen)
            }
            .boxed()
        });
        let judged: Vec<_> = judged.buffered(PARALLEL_IMAGES).collect().await;
        let (images, seen): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
        (Verdict { images }, seen.into_iter().flatten().collect())
    }

    /// Finds the entry that applies to each image. A tenant with thousands of entries and images could take a processor for seconds:
    /// that is done in pieces, at the namespace's turns.
    async fn plan(&self, moment: &dyn Moment, job: &Job<'_>, now: Timestamp) -> Result<Vec<PlannedImage>, String> {
        let policies = moment.policies();
        let plan = |images| plan(policies, job.namespace, images, &self.defaults, now.as_second());
        let piece = (MATCHES_AT_ONCE / policies.entries(job.namespace).max(1)).max(1);
        if job.images.len() <= piece {
            return Ok(plan(job.images));
        }
        let late = || format!("the policies of namespace {} could not be looked through in time", job.namespace);
        let mut planned = Vec::new();
        for images in job.images.chunks(piece) {
            let turn = tokio::time::timeout_at(job.until, self.notary.processor(job.namespace)).await;
            let _turn = turn.map_err(|_| late())?.map_err(|error| error.to_string())?;
            planned.extend(plan(images));
            tokio::task::yield_now().await;
        }
        Ok(planned)
    }

    /// Writes down what an admission rests on, before it is answered: a restart right after must not forget it. False if
    /// others saw more of a repository meanwhile, so that it must be judged again.
    async fn record(&self, seen: &[Seen], job: &Job<'_>) -> Result<bool, String> {
        let all = async {
            for seen in seen {
                match self.notary.commit(seen, job.namespace).await.map_err(|failure| failure.to_string())? {
                    Committed::Done => {}
                    Committed::Behind => return Ok(false),
                }
            }
            Ok(true)
        };
        let late = || Err("what was seen of a repository could not be written down in time".to_owned());
        tokio::time::timeout_at(job.until, all).await.unwrap_or_else(|_| late())
    }

    /// Proves an image once the namespace has a turn, as long as there is time.
    async fn prove_in_turn(
        &self,
        moment: &dyn Moment,
        need: &TrustNeed,
        pull: &PullSecrets<'_>,
        now: Timestamp,
        job: &Job<'_>,
    ) -> Result<(Proof, Seen), DenyReason> {
        let (server, seconds) = (need.server.host_port(), self.deadline.as_secs_f32());
        let no_turn = || {
            let cause = format!(
                "its turn to be verified with {server} did not come within {seconds} s, as much else is asked for in namespace {}; try again",
                job.namespace
            );
            Err(DenyReason::Undecided { cause })
        };
        // Past its time a review of a thousand images does not stand in line a thousand times.
        if Instant::now() >= job.until {
            return no_turn();
        }
        let Ok(Ok(_turn)) = tokio::time::timeout_at(job.until, self.notary.proof(job.namespace)).await else {
            return no_turn();
        };
        // It is large, and only those that have a turn are to take room.
        let proven = Box::pin(self.prove(moment, need, pull, now, job.denial_age));
        tokio::time::timeout_at(job.until, proven).await.unwrap_or_else(|_| {
            let certificate = need.server_certificate.as_deref().and_then(|pem| PinnedCertificate::parse(pem).ok());
            if self.notary.waits_for_its_turn(&need.server, &need.gun, certificate) {
                return no_turn();
            }
            Err(DenyReason::Undecided { cause: format!("{server} did not bring an answer within {seconds} s") })
        })
    }

    async fn prove(
        &self,
        moment: &dyn Moment,
        need: &TrustNeed,
        pull: &PullSecrets<'_>,
        now: Timestamp,
        denial_age: Duration,
    ) -> Result<(Proof, Seen), DenyReason> {
        let demands = Demands::read(moment, need).await?;
        let server = need.server.host_port();
        let resolve = |repository: &Repository| repository.resolve(&need.wanted, &demands.signers, now);
        let asked = self.repository(need, &demands, pull, None).await;
        let mut seen = asked.map_err(|failure| deny(server, failure))?;
        let mut resolved = resolve(&seen);
        if resolved.is_err() {
            // An older answer may allow; a denial rests on one that was asked for just now.
            let asked = self.repository(need, &demands, pull, Some(denial_age)).await;
            seen = asked.map_err(|failure| deny(server, failure))?;
            resolved = resolve(&seen);
        }
        // Another replica, which has not asked again yet, may have pinned the image a moment ago to what the tag was before.
        if resolved.is_err()
            && !matches!(need.wanted, Wanted::Tag(_))
            && let Some(former) = seen.former()
            && let Ok(before) = resolve(&former)
        {
            resolved = Ok(before);
        }
        let proof = resolved.map_err(|error| DenyReason::untrusted(server, error))?;
        if need.require_present {
            self.check_present(need, proof.digest(), pull).await?;
        }
        Ok((proof, seen))
    }

    /// Whether the registry has what was signed.
    async fn check_present(&self, need: &TrustNeed, digest: Sha256, pull: &PullSecrets<'_>) -> Result<(), DenyReason> {
        let registry = self.registry.for_namespace(pull.namespace);
        let found = registry.has(&need.reference, &digest, pull.login().await).await;
        match found {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(DenyReason::NotPresent { digest: digest.to_string(), host: RegistryClient::host(&need.reference) })
            }
            Err(error) => Err(DenyReason::Undecided { cause: error.to_string() }),
        }
    }

    /// Asks without the pod's credentials first, as most of what is kept was verified already; where somebody wants a
    /// login, or what one login brought is not for everybody, with them.
    async fn repository(
        &self,
        need: &TrustNeed,
        demands: &Demands,
        pull: &PullSecrets<'_>,
        max_age: Option<Duration>,
    ) -> Result<Seen, Failure> {
        let ask = async |login: &Login| {
            let ask = Ask {
                server: &need.server,
                gun: &need.gun,
                pins: &demands.pins,
                certificate: demands.certificate.as_ref(),
                login: &login.at(NamedBy::of(need.named_by_tenant, demands.certificate.is_some())),
                namespace: pull.namespace,
                max_age,
            };
            self.notary.repository(ask).await
        };
        if self.notary.sharing() == Sharing::Everybody {
            let asked = ask(&Login::none()).await;
            if !matches!(asked, Err(Failure::Auth(_))) || pull.login().await.is_empty() {
                return asked;
            }
        }
        ask(pull.login().await).await
    }
}

/// What an entry demands of a repository, read from the secrets that it names.
#[derive(Debug, Clone)]
pub struct Demands {
    /// Signers who must have signed.
    pub signers: Vec<Signer>,
    /// Root keys that the repository must stand under.
    pub pins: RootPins,
    /// The one certificate that the trust server must show, if one is pinned.
    pub certificate: Option<PinnedCertificate>,
}

impl Demands {
    /// Reads what an entry names.
    ///
    /// # Errors
    /// The first secret or key that is not there, or of no use.
    pub async fn read(moment: &dyn Moment, need: &TrustNeed) -> Result<Self, DenyReason> {
        let mut signers = Vec::new();
        for secret in &need.signer_secrets {
            signers.push(read_signer(secret, read_secret(moment, secret).await?.as_ref())?);
        }
        let mut pins = RootPins::none();
        for key in &need.root_keys {
            pins.add(key).map_err(|_| DenyReason::RootKey { origin: "an item of rootKeys".to_owned() })?;
        }
        for secret in &need.root_secrets {
            let data = read_secret(moment, secret).await?;
            pins.extend(read_pin(secret, data.as_ref())?);
        }
        let certificate = need.server_certificate.as_deref().map(PinnedCertificate::parse).transpose();
        let certificate = certificate.map_err(|error| DenyReason::Undecided { cause: error.to_string() })?;
        Ok(Self { signers, pins, certificate })
    }
}

/// The credentials that a workload's pods pull their images with, read when somebody first asks for them.
struct PullSecrets<'a> {
    moment: &'a dyn Moment,
    namespace: &'a str,
    workload: &'a Workload,
    login: OnceCell<Login>,
}

impl PullSecrets<'_> {
    /// Those of the pod, then those of its service account, as the kubelet has them. What is not there, or cannot be read,
    /// is left out, as the kubelet does; the denial that may come of it says what was missing.
    async fn login(&self) -> &Login {
        self.login.get_or_init(|| self.read()).await
    }

    async fn read(&self) -> Login {
        let account = self.workload.service_account.as_deref().unwrap_or("default");
        let of_account = self.moment.account_pull_secrets(self.namespace, account).await.unwrap_or_else(|problem| {
            warn!(problem = ?problem.to_string(), "the pull secrets of a service account are left out");
            Vec::new()
        });
        let mut names: Vec<&String> = Vec::new();
        for name in self.workload.pull_secrets.iter().chain(&of_account) {
            if !names.contains(&name) && names.len() < MAX_PULL_SECRETS {
                names.push(name);
            }
        }
        let mut configs = Vec::new();
        for name in names {
            let secret = SecretRef { namespace: self.namespace.to_owned(), name: name.clone() };
            let read = match self.moment.secret(&secret).await {
                Ok(Some(SecretData { pull: Some(PullData::Config(text)), .. })) => DockerConfig::parse(&text),
                Ok(Some(SecretData { pull: Some(PullData::Legacy(text)), .. })) => DockerConfig::parse_legacy(&text),
                Ok(_) => continue,
                Err(problem) => {
                    warn!(problem = ?problem.to_string(), "a pull secret is left out");
                    continue;
                }
            };
            match read {
                Ok(config) => configs.push(Arc::new(config)),
                Err(problem) => {
                    warn!(namespace = self.namespace, secret = ?shown(name), problem = ?problem.to_string(), "a pull secret is left out");
                }
            }
        }
        Login::with(configs)
    }
}

/// What a failure of the client means for an image.
#[must_use]
pub fn deny(server: &str, failure: Failure) -> DenyReason {
    match failure {
        Failure::Untrusted(error) => DenyReason::untrusted(server, *error),
        other => DenyReason::Undecided { cause: other.to_string() },
    }
}

async fn read_secret(moment: &dyn Moment, secret: &SecretRef) -> Result<Option<SecretData>, DenyReason> {
    moment.secret(secret).await.map_err(|error| DenyReason::Undecided { cause: error.to_string() })
}

fn problem(secret: &SecretRef, problem: SecretProblem) -> DenyReason {
    DenyReason::SignerSecret { secret: secret.clone(), problem }
}

/// The signer that a secret describes.
///
/// # Errors
/// A secret that is not there, or is incomplete or of no use.
pub fn read_signer(secret: &SecretRef, data: Option<&SecretData>) -> Result<Signer, DenyReason> {
    let data = data.ok_or_else(|| problem(secret, SecretProblem::NotFound))?;
    let present = |bytes: &Option<Vec<u8>>| bytes.clone().filter(|bytes| !bytes.trim_ascii().is_empty());
    let name = present(&data.name).ok_or_else(|| problem(secret, SecretProblem::NoName))?;
    let key = present(&data.public_key).ok_or_else(|| problem(secret, SecretProblem::NoPublicKey))?;
    // A name that came from a file usually ends in a line feed.
    let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
    Signer::new(&name, &key).map_err(|problem| DenyReason::SignerKey { secret: secret.clone(), problem })
}

/// The root key that a secret pins.
///
/// # Errors
/// A secret that is not there, or holds no key.
pub fn read_pin(secret: &SecretRef, data: Option<&SecretData>) -> Result<RootPins, DenyReason> {
    let data = data.ok_or_else(|| problem(secret, SecretProblem::NotFound))?;
    let key = data.public_key.as_deref().filter(|key| !key.trim_ascii().is_empty());
    let key = key.ok_or_else(|| problem(secret, SecretProblem::NoPublicKey))?;
    let bad = || DenyReason::RootKey { origin: format!("secret {}", secret.name) };
    let mut pins = RootPins::none();
    pins.add(std::str::from_utf8(key).map_err(|_| bad())?).map_err(|_| bad())?;
    Ok(pins)
}

/// Where nothing could be decided about an image whose digest an update takes away, the digest is put back: then the image
/// stands unchanged. So applying the same file again keeps working while a trust server is down.
fn put_back(verdict: &mut Verdict, before: &Reviewed) {
    for image in &mut verdict.images {
        if matches!(&image.outcome, Outcome::Denied(reason) if reason.is_undecided())
            && let Some(with_digest) = before.with_digest(&image.image)
        {
            image.outcome = Outcome::PutBack(with_digest.to_owned());
        }
    }
}

/// Denies the images of all repositories beyond as many as one review may ask for.
fn limit_repositories(planned: &mut [PlannedImage]) {
    let mut asked = HashSet::new();
    for image in planned {
        let Need::Trust(need) = &image.need else {
            continue;
        };
        // Under other pins it is asked for anew.
        let pins = (need.root_keys.clone(), need.root_secrets.clone(), need.server_certificate.clone());
        let repository = (need.server.as_str().to_owned(), need.gun.clone(), pins);
        if asked.len() >= MAX_REPOSITORIES && !asked.contains(&repository) {
            image.need = Need::Denied(DenyReason::TooManyRepositories { limit: MAX_REPOSITORIES });
        } else {
            asked.insert(repository);
        }
    }
}

fn all_undecided(images: &[ContainerImage], cause: &str) -> Verdict {
    let undecided = |image: &ContainerImage| {
        let need = Need::Denied(DenyReason::Undecided { cause: cause.to_owned() });
        ImageVerdict::judge(PlannedImage { image: image.clone(), entry: None, need }, None)
    };
    Verdict { images: images.iter().map(undecided).collect() }
}
