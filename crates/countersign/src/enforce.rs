//! From a plan to a verdict: gathers the proofs, for all images at once, within a deadline.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_image::{ImageReference, Sha256};
use countersign_policy::{
    Ask, ContainerImage, Defaults, DenyReason, Evidence, ImageVerdict, Need, NeededProof, Outcome, PlannedImage,
    Refusal, Reviewed, Verdict, Workload, plan,
};
use countersign_remote::{Clock, Committed, MAX_LOOKS, NotaryClient, RegistryClient, Seen};
use futures::FutureExt as _;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::prove::{Found, PullSecrets, Search};
use crate::source::{Moment, Source};

/// How many images of one review are proven at once.
const PARALLEL_IMAGES: usize = 32;

/// How many repositories on trust servers one review may ask for: pods have a handful, and whoever wants more could make this
/// process ask for, and remember, any number.
const MAX_REPOSITORIES: usize = 64;

/// How many images and entries are compared at once: some milliseconds of it.
const MATCHES_AT_ONCE: usize = 20_000;

/// What is to be judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
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
pub(crate) struct Engine {
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
    pub(crate) async fn judge(&self, job: &Job<'_>) -> Verdict {
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
        let pull = PullSecrets::of(moment.as_ref(), job.namespace, job.workload);
        let search = &Search {
            notary: &self.notary,
            moment: moment.as_ref(),
            pull: &pull,
            namespace: job.namespace,
            until: job.until,
            deadline: self.deadline,
            denial_age: job.denial_age,
            now,
        };
        // One after the other: what it takes to prove an image is not made before its turn comes.
        let judged =
            stream::iter(planned).map(|planned| async move { self.judge_image(planned, search).await }.boxed());
        let judged: Vec<_> = judged.buffered(PARALLEL_IMAGES).collect().await;
        let (images, seen): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
        (Verdict { images }, seen.into_iter().flatten().collect())
    }

    /// Judges an image, and says what must be remembered if it is admitted.
    async fn judge_image(&self, planned: PlannedImage, search: &Search<'_>) -> (ImageVerdict, Vec<Seen>) {
        let Need::Proof(need) = &planned.need else {
            return (ImageVerdict::judge(planned, &[]), Vec::new());
        };
        let (evidence, mut seen): (Vec<Evidence>, Vec<Option<Seen>>) =
            gather(need, search).await.into_iter().map(|found| (found.evidence, found.seen)).unzip();
        let presence = need.require_present.then(|| need.reference.clone());
        let mut verdict = ImageVerdict::judge(planned, &evidence);
        let (Some(proven), presence) = (verdict.proven(), presence) else {
            return (verdict, Vec::new());
        };
        let seen = proven.rests_on().iter().filter_map(|index| seen.get_mut(*index)?.take()).collect();
        if let Some(reference) = presence
            && let Err(reason) = self.check_present(&reference, proven.digest(), search).await
        {
            verdict.outcome = Outcome::Denied(reason);
        }
        (verdict, seen)
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

    /// Whether the registry has what was signed.
    async fn check_present(
        &self,
        reference: &ImageReference,
        digest: Sha256,
        search: &Search<'_>,
    ) -> Result<(), DenyReason> {
        let registry = self.registry.for_namespace(search.namespace);
        let host = RegistryClient::host(reference);
        let asked = async { registry.has(reference, &digest, search.pull.login().await).await };
        match tokio::time::timeout_at(search.until, asked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(DenyReason::NotPresent { digest: digest.to_string(), host }),
            Ok(Err(error)) => Err(DenyReason::undecided(error.to_string())),
            Err(_) => {
                let seconds = self.deadline.as_secs_f32();
                Err(DenyReason::undecided(format!("{host} did not bring an answer within {seconds} s")))
            }
        }
    }
}

/// Looks for all that is asked for of an image at once, in the order of [`countersign_policy::Requirement::asks`].
async fn gather(need: &NeededProof, search: &Search<'_>) -> Vec<Found> {
    let prove = |ask: &Result<Ask, Refusal>| {
        let ask = ask.clone();
        async move {
            match ask {
                Ok(ask) => search.prove(&ask, &need.wanted).await,
                Err(refusal) => Found { evidence: Err(refusal), seen: None },
            }
        }
        .boxed()
    };
    join_all(need.requirement.asks().map(prove)).await
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

/// Refuses to ask for repositories beyond as many as one review may ask for.
fn limit_repositories(planned: &mut [PlannedImage]) {
    let mut asked = HashSet::new();
    for image in planned {
        let Need::Proof(need) = &mut image.need else {
            continue;
        };
        need.requirement = need.requirement.map(&mut |ask| {
            let Ok(Ask::Notary(notary)) = ask else {
                return ask.clone();
            };
            // Under other pins it is asked for anew.
            let pins = (notary.root_keys.clone(), notary.root_secrets.clone(), notary.server_certificate.clone());
            let repository = (notary.server.as_str().to_owned(), notary.gun.clone(), pins);
            if asked.len() >= MAX_REPOSITORIES && !asked.contains(&repository) {
                return Err(Refusal::TooManyRepositories { limit: MAX_REPOSITORIES });
            }
            asked.insert(repository);
            ask.clone()
        });
    }
}

fn all_undecided(images: &[ContainerImage], cause: &str) -> Verdict {
    let undecided = |image: &ContainerImage| ImageVerdict::denied(image.clone(), DenyReason::undecided(cause));
    Verdict { images: images.iter().map(undecided).collect() }
}
