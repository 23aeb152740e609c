//! From a plan to a verdict: gathers the proofs, for all images at once and for at most so many repositories; where nothing can be
//! decided, puts back the digest that an update took away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use countersign_cosign::Budget;
use countersign_image::{ImageReference, Sha256};
use countersign_policy::{
    Ask, ContainerImage, Defaults, DenialCause, DenyReason, Evidence, ImageVerdict, Mode, Need, NeededProof, Outcome,
    PlannedImage, Proof, Refusal, Requirement, Reviewed, Verdict, Within, Workload, plan,
};
use countersign_remote::{Clock, Committed, CosignClient, MAX_LOOKS, NamedBy, NotaryClient, RegistryClient, Seen};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Level, debug};

use crate::prove::{self, Beside, ByEntry, Digests, Found, PullSecrets, Search, named_by};
use crate::source::{Moment, Source};

/// How many images of one review are proven at once.
const PARALLEL_IMAGES: usize = 32;

/// How many repositories on trust servers one review may ask for: pods have a handful, and whoever wants more could make this
/// process ask for, and remember, any number.
const MAX_REPOSITORIES: usize = 64;

/// How much of a review's time is left for what comes after proofs, where there are several or something comes after them: to write down
/// what was seen takes one request to the API server, and so does the registry's answer.
const LEFT_FOR_THE_REST: Duration = Duration::from_millis(1500);

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
    /// What is done with a denied image whose entry says nothing, or that no entry lists.
    pub mode: Mode,
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
    /// Where signatures of cosign come from.
    pub cosign: CosignClient,
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

/// What was judged of a workload.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// What the images came to.
    pub verdict: Verdict,
    /// How long it took.
    pub spent: Spent,
}

/// How long the parts of a judgement took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent {
    /// To find the entries that apply.
    pub plan: Duration,
    /// To ask for proofs.
    pub prove: Duration,
    /// To write down what was seen.
    pub record: Duration,
    /// To prove each image, in the order of the verdict.
    pub images: Vec<Duration>,
}

impl Engine {
    /// Judges images of one workload. Whatever goes wrong on the way is a denial with its cause.
    pub(crate) async fn judge(&self, job: &Job<'_>) -> Judged {
        let mut spent = Spent::default();
        let verdict = self.judge_and_record(job, &mut spent).await;
        Judged { verdict, spent }
    }

    async fn judge_and_record(&self, job: &Job<'_>, spent: &mut Spent) -> Verdict {
        let mut last = Verdict::default();
        for _ in 0..MAX_LOOKS {
            let (mut verdict, proven) = self.judge_once(job, spent).await;
            if let Some(before) = job.before {
                put_back(&mut verdict, before);
            }
            if !job.record || !verdict.admitted() {
                return verdict;
            }
            let began = Instant::now();
            let recorded = self.record(&proven, job).await;
            spent.record += began.elapsed();
            match recorded {
                Ok(true) => return verdict,
                Ok(false) => last = verdict,
                Err((why, cause)) => return undone(verdict, why, &cause),
            }
        }
        // Each time somebody else had seen more of a repository in the meantime.
        let changed = "what is remembered of a repository changed while it was looked at; try again";
        undone(last, DenialCause::Busy, changed)
    }

    /// That nothing could be decided, not even by which entries: each image may be one that is enforced.
    fn all_undecided(&self, job: &Job<'_>, why: DenialCause, cause: &str) -> Verdict {
        let mode = self.source.strictest(job.namespace, job.mode);
        let undecided =
            |image: &ContainerImage| ImageVerdict::denied(image.clone(), mode, DenyReason::undecided(why, cause));
        Verdict { images: job.images.iter().map(undecided).collect() }
    }

    async fn judge_once(&self, job: &Job<'_>, spent: &mut Spent) -> (Verdict, Vec<Seen>) {
        let (now, began) = ((self.clock)(), Instant::now());
        let moment = match self.source.now() {
            Ok(moment) => moment,
            Err(error) => {
                return (self.all_undecided(job, DenialCause::PoliciesUnknown, &error.to_string()), Vec::new());
            }
        };
        let mut planned = match self.plan(moment.as_ref(), job, now).await {
            Ok(planned) => planned,
            Err(cause) => return (self.all_undecided(job, DenialCause::Busy, &cause), Vec::new()),
        };
        limit_repositories(&mut planned);
        spent.plan += began.elapsed();
        let began = Instant::now();
        let pull = PullSecrets::of(moment.as_ref(), job.namespace, job.workload);
        let search = &Search {
            notary: &self.notary,
            registry: &self.registry,
            cosign: &self.cosign,
            moment: moment.as_ref(),
            pull: &pull,
            namespace: job.namespace,
            deadline: self.deadline,
            denial_age: job.denial_age,
            demands: ByEntry::default(),
            cosign_demands: ByEntry::default(),
            digests: Digests::default(),
            budget: Budget::new(),
            now,
        };
        // One after the other: what it takes to prove an image is not made before its turn comes, and most images need no proof.
        let judged = stream::iter(planned).map(|planned| match &planned.need {
            Need::Proof(_) => {
                self.judge_image(planned, search, job.until).map(|judged| (judged, began.elapsed())).boxed()
            }
            Need::Nothing | Need::Denied(_) => {
                std::future::ready(((ImageVerdict::judge(planned, &[]), Vec::new()), Duration::ZERO)).boxed()
            }
        });
        let judged: Vec<_> = judged.buffered(PARALLEL_IMAGES).collect().await;
        spent.prove += began.elapsed();
        let (judged, took): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
        spent.images = took;
        if tracing::enabled!(Level::DEBUG) {
            judged.iter().zip(&spent.images).for_each(|((image, _), took)| tell(image, *took));
        }
        let (images, seen): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
        (Verdict { images }, seen.into_iter().flatten().collect())
    }

    /// Judges an image, and says what must be remembered if it is admitted.
    async fn judge_image(
        &self,
        planned: PlannedImage,
        search: &Search<'_>,
        until: Instant,
    ) -> (ImageVerdict, Vec<Seen>) {
        let Need::Proof(need) = &planned.need else {
            return (ImageVerdict::judge(planned, &[]), Vec::new());
        };
        let proofs_until = until - time_after_proofs(need, self.deadline);
        // In boxes of their own, as one larger than a kilobyte takes much longer to be had.
        let Gathered { evidence, mut seen } = match &need.requirement {
            Requirement::One(ask) => Gathered::one(Box::pin(prove(ask, need, search, proofs_until, None, None)).await),
            several => Box::pin(gather(several, &need.reference, prove_all(need, search, proofs_until))).await,
        };
        let presence = need.require_present.then(|| (need.reference.clone(), named_by(need.registry_named_by)));
        let mut verdict = ImageVerdict::judge(planned, &evidence);
        let (Some(proven), presence) = (verdict.proven(), presence) else {
            return (verdict, Vec::new());
        };
        // Nothing rests on an image that would be admitted in any case.
        let remembers = verdict.is_enforced();
        let rests_on = proven.rests_on().iter().filter(|_| remembers);
        let seen = rests_on.filter_map(|index| seen.get_mut(*index)?.take()).collect();
        if let Some((reference, by)) = presence
            && let Err(reason) = Box::pin(self.check_present(&reference, by, proven.digest(), search, until)).await
        {
            verdict.outcome = Outcome::Denied(reason);
        }
        (verdict, seen)
    }

    /// Finds the entry that applies to each image. A tenant with thousands of entries and images could take a processor for seconds:
    /// that is done in pieces, at the namespace's turns.
    async fn plan(&self, moment: &dyn Moment, job: &Job<'_>, now: Timestamp) -> Result<Vec<PlannedImage>, String> {
        let policies = moment.policies();
        let within = Within { namespace: job.namespace, mode: job.mode, now: now.as_second() };
        let plan = |images| plan(policies, within, images, &self.defaults);
        let piece = (MATCHES_AT_ONCE / policies.compared(job.namespace).max(1)).max(1);
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
    async fn record(&self, seen: &[Seen], job: &Job<'_>) -> Result<bool, (DenialCause, String)> {
        let all = async {
            for seen in seen {
                match self
                    .notary
                    .commit(seen, job.namespace)
                    .await
                    .map_err(|failure| (prove::notary::why(&failure), failure.to_string()))?
                {
                    Committed::Done => {}
                    Committed::Behind => return Ok(false),
                }
            }
            Ok(true)
        };
        let late =
            || Err((DenialCause::Busy, "what was seen of a repository could not be written down in time".to_owned()));
        tokio::time::timeout_at(job.until, all).await.unwrap_or_else(|_| late())
    }

    /// Whether the registry has what was signed.
    async fn check_present(
        &self,
        reference: &ImageReference,
        by: NamedBy,
        digest: Sha256,
        search: &Search<'_>,
        until: Instant,
    ) -> Result<(), DenyReason> {
        let host = RegistryClient::host(reference);
        let asked = async { search.registry().has(reference, &digest, &search.pull.login().await.at(by)).await };
        match tokio::time::timeout_at(until, asked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(DenyReason::NotPresent { digest: digest.to_string(), host }),
            Ok(Err(error)) => Err(DenyReason::undecided(prove::cosign::why(&error), error.to_string())),
            Err(_) => {
                let seconds = self.deadline.as_secs_f32();
                let late = format!("{host} did not bring an answer within {seconds} s");
                Err(DenyReason::undecided(DenialCause::Unreachable, late))
            }
        }
    }
}

/// How much of a review's time no proof may take: one that is listed first and slow would take the time in which another one's is
/// written down, or the registry is asked.
fn time_after_proofs(need: &NeededProof, deadline: Duration) -> Duration {
    let alone = matches!(need.requirement, Requirement::One(_)) && !need.require_present;
    if alone { Duration::ZERO } else { LEFT_FOR_THE_REST.min(deadline / 5) }
}

/// Looks for everything that is asked for of an image. A signature of a digest, where the image names none, is one of the digest that
/// trust beside it proves: the registry is not asked then what the tag means.
fn prove_all<'a>(need: &'a NeededProof, search: &'a Search<'_>, until: Instant) -> Vec<BoxFuture<'a, Found>> {
    let asks: Vec<_> = need.requirement.asks().collect();
    let beside = need.requirement.beside(|ask| matches!(ask, Ok(Ask::Notary(_))));
    let mut tell: Vec<Option<oneshot::Sender<_>>> = asks.iter().map(|_| None).collect();
    let mut heard: Vec<Option<Beside>> = asks.iter().map(|_| None).collect();
    for (index, beside) in beside.iter().enumerate() {
        let of_digests = matches!(asks[index], Ok(Ask::Cosign(_))) && need.wanted.digest().is_none();
        let Some(beside) = beside.filter(|_| of_digests) else { continue };
        if tell[beside].is_none() {
            let (sender, receiver) = oneshot::channel();
            (tell[beside], heard[beside]) = (Some(sender), Some(receiver.shared()));
        }
        let shared = heard[beside].clone();
        heard[index] = shared;
    }
    let all = asks.into_iter().zip(tell).zip(heard);
    all.map(|((ask, tell), heard)| prove(ask, need, search, until, heard, tell).boxed()).collect()
}

/// Looks for one thing that is asked for, unless it was refused before. `tell` is told the digest.
async fn prove(
    ask: &Result<Ask, Refusal>,
    need: &NeededProof,
    search: &Search<'_>,
    until: Instant,
    beside: Option<Beside>,
    tell: Option<oneshot::Sender<Option<Sha256>>>,
) -> Found {
    let found = match ask {
        Ok(ask) => search.prove(ask, &need.wanted, beside, until).await,
        Err(refusal) => Found { evidence: Err(refusal.clone()), seen: None },
    };
    if let Some(tell) = tell {
        // Nobody may wait for it any more.
        let _ = tell.send(found.evidence.as_ref().ok().map(Proof::digest));
    }
    found
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
    /// Where one thing is asked for, as of most images.
    fn one(found: Found) -> Self {
        Self { evidence: vec![Some(found.evidence)], seen: vec![found.seen] }
    }

    fn add(&mut self, index: usize, found: Found) {
        if let (Some(evidence), Some(seen)) = (self.evidence.get_mut(index), self.seen.get_mut(index)) {
            (*evidence, *seen) = (Some(found.evidence), found.seen);
        }
    }
}

/// Says what an image came to, for whoever follows step by step.
fn tell(image: &ImageVerdict, took: Duration) {
    let entry = image.entry.as_ref();
    let entry =
        entry.map_or_else(|| "none".to_owned(), |entry| format!("{}, entry {}", entry.policy(), entry.position));
    let reason = image.denial().unwrap_or_default();
    debug!(path = ?image.image.path, image = ?image.image.image, ?entry, mode = image.mode.label(), ?took, ?reason, "judged");
}

/// Where nothing could be decided about an image whose digest an update takes away, the digest is put back: then the image
/// stands unchanged. So applying the same file again keeps working while a trust server is down.
fn put_back(verdict: &mut Verdict, before: &Reviewed) {
    for image in verdict.images.iter_mut().filter(|image| image.is_enforced()) {
        if matches!(&image.outcome, Outcome::Denied(reason) if reason.is_undecided())
            && let Some(with_digest) = before.with_digest(&image.image)
        {
            image.outcome = Outcome::PutBack(with_digest.to_owned());
        }
    }
}

/// Denies images for which more repositories would have to be asked for than one review may: an alternative that is not asked must not
/// leave it to another one.
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
        let Need::Proof(need) = &image.need else {
            continue;
        };
        // Under other pins it is asked for anew, and another entry may have others.
        let repository = |ask: &Result<Ask, Refusal>| match ask {
            Err(_) => None,
            Ok(Ask::Notary(ask)) => Some((ask.server.to_string(), ask.gun.clone(), Arc::as_ptr(&ask.policy).addr())),
            // Each digest is looked for by itself.
            Ok(Ask::Cosign(ask)) => {
                Some((ask.place.repository(), ask.image.canonical(), Arc::as_ptr(&ask.policy).addr()))
            }
        };
        let wanted: Vec<_> = need.requirement.asks().filter_map(repository).collect();
        let new = wanted.iter().filter(|repository| !asked.contains(*repository)).collect::<HashSet<_>>().len();
        if asked.len() + new > MAX_REPOSITORIES {
            image.need = Need::Denied(Refusal::TooManyRepositories { limit: MAX_REPOSITORIES }.into());
        } else {
            asked.extend(wanted);
        }
    }
}

/// What was judged, and could not be answered with after all. The entries stay those that apply, with their modes.
fn undone(mut verdict: Verdict, why: DenialCause, cause: &str) -> Verdict {
    for image in verdict.images.iter_mut().filter(|image| image.is_enforced()) {
        image.outcome = Outcome::Denied(DenyReason::undecided(why, cause));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use countersign_image::Wanted;
    use countersign_notary::{Answer, RootPins, TrustServer, Update};
    use countersign_policy::{Format, NotaryAsk, TrustPolicy};
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
        let why = DenialCause::Unreachable;
        let refusal = Refusal::Undecided { format: Format::Notary, why, cause: "not there".into() };
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

    fn ask(host: &str, image: &ImageReference) -> Requirement<Result<Ask, Refusal>> {
        let server = TrustServer::parse(&format!("https://{host}")).unwrap();
        let policy = Arc::new(TrustPolicy::default());
        let (gun, secrets_namespace) = (image.repository(), "n".to_owned());
        Requirement::One(Ok(Ask::Notary(NotaryAsk {
            server,
            named_by: countersign_policy::NamedBy::Operator,
            gun,
            policy,
            secrets_namespace,
        })))
    }

    /// An image that one of two trust servers is asked for.
    fn with_alternatives(image: &str) -> NeededProof {
        let reference = ImageReference::parse(image).unwrap();
        let requirement = Requirement::Any(vec![ask("new.io", &reference), ask("old.io", &reference)]);
        let wanted = Wanted::of(&reference).unwrap();
        NeededProof {
            reference,
            wanted,
            requirement,
            require_present: false,
            registry_named_by: countersign_policy::NamedBy::Operator,
            pin: None,
        }
    }

    /// What is over the limit is denied: an alternative that nobody asks any more must not leave an image to a later one, which may have
    /// other content.
    #[test]
    fn over_the_limit_no_alternative_is_left_out() {
        let image = |number: usize| {
            let image = format!("h.io/app{number}:v1");
            let need = Need::Proof(Box::new(with_alternatives(&image)));
            let path = format!("containers/{number}");
            PlannedImage {
                image: ContainerImage { pointer: path.clone(), path, image },
                entry: None,
                mode: Mode::Enforce,
                need,
            }
        };
        let mut planned: Vec<_> = (0..MAX_REPOSITORIES / 2 - 1).map(image).collect();
        let same = planned[0].clone();
        planned.push(same.clone());
        let mut odd = image(1000);
        let Need::Proof(need) = &mut odd.need else { panic!() };
        need.requirement = ask("new.io", &need.reference);
        planned.extend([odd, image(1001), same, image(1002)]);
        let before = planned.clone();
        limit_repositories(&mut planned);
        let denied = |image: &PlannedImage| matches!(image.need, Need::Denied(_));
        let over: Vec<_> = planned.iter().filter(|image| denied(image)).map(|image| &image.image.image).collect();
        assert_eq!(over, ["h.io/app1001:v1", "h.io/app1002:v1"]);
        assert!(planned.iter().zip(&before).all(|(after, before)| denied(after) || after == before));
    }

    /// A slow server that is listed first must leave the time that it takes to write down what another one has.
    #[test]
    fn proofs_leave_time_for_what_comes_after_them() {
        let mut need = with_alternatives("h.io/app:v1");
        let long = Duration::from_secs(20);
        assert_eq!(time_after_proofs(&need, long), LEFT_FOR_THE_REST);
        assert_eq!(time_after_proofs(&need, Duration::from_secs(1)), Duration::from_millis(200));
        need.requirement = ask("new.io", &need.reference);
        assert_eq!(time_after_proofs(&need, long), Duration::ZERO);
        need.require_present = true;
        assert_eq!(time_after_proofs(&need, long), LEFT_FOR_THE_REST);
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
