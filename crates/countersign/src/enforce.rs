//! From a plan to a verdict: gathers the proofs, for all images at once and for at most so many repositories; where nothing can be
//! decided, puts back the digest that an update took away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_image::{ImageReference, Sha256};
use countersign_policy::{
    Ask, ContainerImage, Defaults, DenyReason, Evidence, ImageVerdict, Need, NeededProof, Outcome, PlannedImage,
    Refusal, Requirement, Reviewed, Verdict, Workload, plan,
};
use countersign_remote::{Clock, Committed, MAX_LOOKS, NotaryClient, RegistryClient, Seen};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
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
        let registry = self.registry.for_namespace(job.namespace);
        let search = &Search {
            notary: &self.notary,
            registry: &registry,
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
        let asked = need.requirement.asks().map(|ask| prove(ask, need, search).boxed()).collect();
        let Gathered { evidence, mut seen } = gather(&need.requirement, &need.reference, asked).await;
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
        let host = RegistryClient::host(reference);
        let asked = async { search.registry.has(reference, &digest, search.pull.login().await).await };
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

/// Looks for one thing that is asked for, unless it was refused before.
async fn prove(ask: &Result<Ask, Refusal>, need: &NeededProof, search: &Search<'_>) -> Found {
    match ask {
        Ok(ask) => search.prove(ask, &need.wanted).await,
        Err(refusal) => Found { evidence: Err(refusal.clone()), seen: None },
    }
}

/// What was found for one image, in the order of [`countersign_policy::Requirement::asks`].
struct Gathered {
    /// What each ask came to; `None` where nobody waited for it.
    evidence: Vec<Option<Evidence>>,
    /// What must be remembered if an admission rests on it.
    seen: Vec<Option<Seen>>,
}

/// Waits for what is asked for of an image, all at once, until what has come decides. `asked` stands in the order of
/// [`Requirement::asks`].
async fn gather<A>(requirement: &Requirement<A>, image: &ImageReference, asked: Vec<BoxFuture<'_, Found>>) -> Gathered {
    let numbered = asked.into_iter().enumerate().map(|(index, found)| found.map(move |found| (index, found)));
    let mut asked: FuturesUnordered<_> = numbered.collect();
    let mut gathered = Gathered { evidence: vec![None; asked.len()], seen: vec![None; asked.len()] };
    while let Some((index, found)) = asked.next().await {
        gathered.add(index, found);
        if requirement.is_settled(image, &gathered.evidence) {
            // What is at hand already may have something to tell.
            while let Some(Some((index, found))) = asked.next().now_or_never() {
                gathered.add(index, found);
            }
            break;
        }
    }
    gathered
}

impl Gathered {
    fn add(&mut self, index: usize, found: Found) {
        if let (Some(evidence), Some(seen)) = (self.evidence.get_mut(index), self.seen.get_mut(index)) {
            (*evidence, *seen) = (Some(found.evidence), found.seen);
        }
    }
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
    let asks = |image: &PlannedImage| match &image.need {
        Need::Proof(need) => need.requirement.asks().count(),
        Need::Nothing | Need::Denied(_) => 0,
    };
    if planned.iter().map(asks).sum::<usize>() <= MAX_REPOSITORIES {
        return;
    }
    let mut asked = HashSet::new();
    for image in planned {
        let Need::Proof(need) = &mut image.need else {
            continue;
        };
        need.requirement = need.requirement.map(&mut |ask| {
            let notary = match ask {
                Err(_) => return ask.clone(),
                Ok(Ask::Notary(notary)) => notary,
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use countersign_image::Wanted;
    use countersign_notary::{Answer, RootPins, Update};
    use countersign_policy::{Format, Proof};
    use forge::{NOW, Repo, digest_of};

    use super::*;

    /// That something is signed for the tag `v1` of a repository.
    fn proof(gun: &str) -> Proof {
        let mut repo = Repo::new(gun, NOW);
        repo.tag("targets", "v1", &digest_of("v1"));
        let files = repo.build();
        let update = Update::start(gun, None, None, RootPins::none(), NOW).unwrap();
        let answer = |file: &str| files.get(file).map_or(Answer::Missing, |bytes| Answer::Found(bytes.to_vec()));
        let repository = update.run(|request| answer(&request.file)).unwrap();
        Proof::Notary(repository.resolve(&Wanted::Tag("v1".into()), &[], NOW).unwrap())
    }

    fn undecided() -> Found {
        let refusal = Refusal::Undecided { format: Format::Notary, cause: "not there".into() };
        Found { evidence: Err(refusal), seen: None }
    }

    /// Which asks are answered by the time that something is known that decides, where those without a proof never answer.
    fn answered(requirement: &Requirement<Option<Proof>>, image: &ImageReference) -> Option<Vec<bool>> {
        let found = |ask: &Option<Proof>| match ask {
            Some(proof) => std::future::ready(Found { evidence: Ok(proof.clone()), seen: None }).boxed(),
            None => pending().boxed(),
        };
        let gathered = gather(requirement, image, requirement.asks().map(found).collect()).now_or_never()?;
        Some(gathered.evidence.iter().map(Option::is_some).collect())
    }

    #[test]
    fn what_is_listed_last_is_not_waited_for() {
        let proof = || Some(proof("registry.example.com/team/app"));
        let image = ImageReference::parse("registry.example.com/team/app:v1").unwrap();
        let one = Requirement::One;
        let any = |parts: Vec<Option<Proof>>| Requirement::Any(parts.into_iter().map(one).collect());
        assert_eq!(answered(&any(vec![proof(), None]), &image), Some(vec![true, false]));
        // What is at hand is taken along, for its warnings.
        assert_eq!(answered(&any(vec![proof(), None, proof()]), &image), Some(vec![true, false, true]));
        assert_eq!(answered(&any(vec![None, proof()]), &image), None, "what is listed first must be known");
        assert_eq!(answered(&Requirement::All(vec![one(proof()), one(None)]), &image), None);
        let failing = any(vec![None, None]);
        let undecided = failing.asks().map(|_| std::future::ready(undecided()).boxed()).collect();
        let gathered = gather(&failing, &image, undecided).now_or_never().unwrap();
        assert!(gathered.evidence.iter().all(Option::is_some));
    }
}
