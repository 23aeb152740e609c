//! `countersign explain`: which entry applies to an image, which others matched, and why.

use std::path::PathBuf;

use countersign_image::{ImageReference, shown};
use countersign_policy::{
    Applies, Check, CosignPolicy, EntryRef, Match, Mode, PolicyKind, PolicySet, ProofPolicy, Requirement, TrustPolicy,
};
use serde::Serialize;

use super::judging::{From, Origin, SettingsFile};
use super::output::{print, table};
use super::{arguments, clients, exit};

/// Show which policy entry applies to an image, which others matched, and why
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign explain nginx:1.25 -n payments --policies ./policies\n  countersign explain nginx:1.25 -n payments --kubeconfig ~/.kube/config -o json\n\nExit codes: 0 an entry applies, 1 denied whoever signed it, 2 wrong usage or configuration, 3 the cluster cannot be asked"
)]
pub(crate) struct Args {
    /// The image, as a container would name it
    image: String,

    /// The workload's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    origin: Origin,

    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,

    /// Not needed here; taken so that the flags of `review` fit
    #[arg(long, value_name = "FILE", hide = true)]
    trust_ca: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What becomes of an image, for machines.
#[derive(Serialize)]
struct Report<'a> {
    image: &'a str,
    canonical: String,
    namespace: &'a str,
    /// Why it is denied whoever signed it; nothing where an entry applies that can be used.
    denied: Option<String>,
    /// The entry that applies.
    applies: Option<Found>,
    /// Others that match.
    matches: Vec<Found>,
    /// Where none matches: those that are most like the image.
    nearest: Vec<EntryRef>,
}

#[derive(Serialize)]
struct Found {
    policy: EntryRef,
    /// Which entry of its policy it is, from 1.
    position: usize,
    why: String,
    /// What the entry asks, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<String>,
}

/// How many entries are shown that nearly match.
const NEAREST: usize = 3;

/// How like the image an entry's name must be to be shown as one that nearly matches; from 0, nothing in common, to 1, the same.
const LIKE: f64 = 0.6;

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let image = arguments::image(&args.image)?;
    let settings = args.settings.read()?;
    let from = args.origin.required(&settings)?;
    let own_namespace = args.origin.secrets.namespace(&from, &settings);
    let runtime = clients::runtime()?;
    let _inside = runtime.enter();
    let moment = runtime.block_on(source(&from, &own_namespace))?;
    let mode = settings.mode.unwrap_or_default().into();
    let report = report(moment.policies(), args, &image, &own_namespace, mode);
    match args.output {
        Format::Text => print(&as_text(&report)),
        Format::Json => print(&(serde_json::to_string_pretty(&report)? + "\n")),
    }
    Ok(if report.denied.is_some() { exit::DENIED } else { exit::OK })
}

async fn source(from: &From, own_namespace: &str) -> anyhow::Result<std::sync::Arc<dyn crate::source::Moment>> {
    Ok(from.source(own_namespace).await?.now()?)
}

fn report<'a>(
    policies: &PolicySet,
    args: &'a Args,
    image: &ImageReference,
    own_namespace: &str,
    mode: Mode,
) -> Report<'a> {
    let namespace = args.namespace.as_str();
    let mut report = Report {
        image: &args.image,
        canonical: image.canonical(),
        namespace,
        denied: None,
        applies: None,
        matches: Vec::new(),
        nearest: Vec::new(),
    };
    match policies.applies(namespace, image, mode) {
        Applies::Unusable(policy, problem) => {
            report.denied = Some(format!("{} cannot be used: {problem}", policy.title()));
        }
        Applies::NoPolicies => report.denied = Some("there are no policies at all".to_owned()),
        Applies::NotInNamespace => {
            report.denied = Some(format!(
                "namespace {namespace} has ImagePolicies, so only those count, and none of their entries matches"
            ));
            report.nearest = nearest(policies, Some(namespace), image);
        }
        Applies::NotInCluster => {
            report.denied = Some(format!(
                "namespace {namespace} has no ImagePolicies, and no entry of a ClusterImagePolicy matches"
            ));
            report.nearest = nearest(policies, None, image);
        }
        Applies::Entry(best) => {
            if let Check::Unusable(problem) = &best.entry.check {
                report.denied = Some(format!("the entry that applies cannot be used: {problem}"));
            }
            let all = policies.matching(namespace, image, mode);
            let others = all.get(1..).unwrap_or_default();
            let why = reason(&best, others.first());
            report.applies = Some(found(&best, why, asks(&best, own_namespace, mode)));
            report.matches = others.iter().map(|other| found(other, loses(&best, other), None)).collect();
        }
    }
    report
}

fn found(entry: &Match<'_>, why: String, asks: Option<String>) -> Found {
    Found { policy: EntryRef::of(entry), position: entry.index + 1, why, asks }
}

/// The entries of the policies that count whose names are most like the image's.
fn nearest(policies: &PolicySet, namespace: Option<&str>, image: &ImageReference) -> Vec<EntryRef> {
    let canonical = image.canonical();
    let counts = policies.policies().filter(|policy| policy.kind.namespace() == namespace);
    let mut like: Vec<(f64, EntryRef)> = counts
        .flat_map(|policy| policy.entries.iter().enumerate().map(move |(index, entry)| Match { policy, index, entry }))
        .map(|found| (strsim::normalized_damerau_levenshtein(&found.entry.pattern.normalised(), &canonical), found))
        .filter(|(like, _)| *like >= LIKE)
        .map(|(like, found)| (like, EntryRef::of(&found)))
        .collect();
    like.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    like.into_iter().take(NEAREST).map(|(_, entry)| entry).collect()
}

fn as_text(report: &Report<'_>) -> String {
    let mut text = format!(
        "image      {}\ncanonical  {}\nnamespace  {}\n\n",
        shown(report.image),
        report.canonical,
        shown(report.namespace)
    );
    if let Some(best) = &report.applies {
        let mut rows = vec![row("applies", best)];
        rows.extend(report.matches.iter().map(|other| row("matches", other)));
        text.push_str(&table(&["", "POLICY", "ENTRY", "WHY"], &rows));
        text.push('\n');
        text.push_str(best.asks.as_deref().unwrap_or_default());
    }
    if let Some(denied) = &report.denied {
        text.push_str(&format!("denied: {denied}\n"));
    }
    if !report.nearest.is_empty() {
        let row = |entry: &EntryRef| vec![title(entry), shown(&entry.entry)];
        text.push_str("\nThese entries are nearly for it:\n");
        text.push_str(&table(&["POLICY", "ENTRY"], &report.nearest.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// What an entry asks; nothing if it cannot be used.
fn asks(best: &Match<'_>, own_namespace: &str, mode: Mode) -> Option<String> {
    match &best.entry.check {
        Check::Unusable(_) => None,
        Check::Nothing => Some("It asks nothing: the image is allowed with no further check.\n".to_owned()),
        Check::Proof(requirement) => {
            let pinned = if best.entry.mutate_image { "yes" } else { "no (mutateImage: false)" };
            let mode = match (best.entry.mode, mode) {
                (Some(mode), _) => format!("{} (the entry says so)", mode.label()),
                (None, Mode::Enforce) => "enforce".to_owned(),
                (None, mode) => {
                    format!("{}, or what the label of the namespace says if that is stricter", mode.label())
                }
            };
            let asked = asks_for(requirement, best, own_namespace);
            Some(format!("{asked}  pinned          {pinned}\n  mode            {mode}\n"))
        }
    }
}

fn asks_for(requirement: &Requirement<ProofPolicy>, best: &Match<'_>, own_namespace: &str) -> String {
    match requirement {
        Requirement::One(ProofPolicy::Trust(trust)) => {
            format!("It asks for content trust.\n{}", content_trust(trust, best, own_namespace))
        }
        Requirement::One(ProofPolicy::Cosign(cosign)) => {
            format!("It asks for signatures of cosign.\n{}", signatures(cosign, best, own_namespace))
        }
        Requirement::All(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| asks_for(part, best, own_namespace)).collect();
            format!("All of this must hold, for one digest.\n{}", parts.join(""))
        }
        Requirement::Any(parts) => {
            let mut text = format!(
                "One of {} alternatives is enough; of those that hold, the first gives the digest.\n",
                parts.len()
            );
            for (number, part) in (1..).zip(parts) {
                text.push_str(&format!("Alternative {number}: {}", asks_for(part, best, own_namespace)));
            }
            text
        }
    }
}

fn signatures(cosign: &CosignPolicy, best: &Match<'_>, own_namespace: &str) -> String {
    let place =
        cosign.repository.as_ref().map_or_else(|| "the image's repository".to_owned(), ImageReference::repository);
    let mut lines = format!("  signatures in   {place}\n");
    if !cosign.signer_secrets.is_empty() {
        let namespace = secrets_namespace(best, own_namespace);
        let names = cosign.signer_secrets.join(", ");
        lines += &format!("  signer secrets  {names} (secrets in namespace {namespace})\n");
    }
    if !cosign.keys.is_empty() {
        let names: Vec<_> =
            cosign.keys.iter().map(|key| format!("{} (sha256:{})", key.name(), key.fingerprint())).collect();
        lines += &format!("  keys            {}\n", names.join(", "));
    }
    let all = cosign.signer_secrets.len() + cosign.keys.len();
    let required =
        if cosign.required.is_empty() { String::new() } else { format!(", {} among them", cosign.required.join(", ")) };
    let threshold = cosign.threshold.filter(|&threshold| threshold < all);
    let signed =
        threshold.map_or_else(|| "all of them".to_owned(), |threshold| format!("{threshold} of {all}{required}"));
    lines += &format!("  signed by       {signed}\n");
    if !cosign.annotations.is_empty() {
        let claims: Vec<_> = cosign.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines += &format!("  with claims     {}\n", shown(&claims.join(", ")));
    }
    lines
}

fn secrets_namespace<'a>(best: &'a Match<'_>, own_namespace: &'a str) -> &'a str {
    match &best.policy.kind {
        PolicyKind::Image { namespace } => namespace,
        PolicyKind::Cluster => own_namespace,
    }
}

fn content_trust(trust: &TrustPolicy, best: &Match<'_>, own_namespace: &str) -> String {
    let server = trust.trust_server.as_ref().map_or_else(|| "the registry's default".to_owned(), ToString::to_string);
    let namespace = secrets_namespace(best, own_namespace);
    let signers = if trust.signer_secrets.is_empty() {
        "none required: the released digest counts".to_owned()
    } else {
        format!("{} (secrets in namespace {namespace})", trust.signer_secrets.join(", "))
    };
    format!("  trust server    {server}\n  signer secrets  {signers}\n")
}

fn title(entry: &EntryRef) -> String {
    let namespace = entry.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
    shown(&format!("{} {namespace}{}", entry.kind, entry.name))
}

fn row(verb: &str, found: &Found) -> Vec<String> {
    let entry = format!("{} (entry {})", shown(&found.policy.entry), found.position);
    vec![verb.to_owned(), title(&found.policy), entry, found.why.clone()]
}

fn reason(best: &Match<'_>, next: Option<&Match<'_>>) -> String {
    match next {
        None => "the only entry that matches".to_owned(),
        Some(next) if best.entry.pattern.specificity() == next.entry.pattern.specificity() => {
            "as exact as another, and its policy's name or its place comes first".to_owned()
        }
        Some(_) => "the most exact of those that match".to_owned(),
    }
}

fn loses(best: &Match<'_>, other: &Match<'_>) -> String {
    if best.entry.pattern.specificity() == other.entry.pattern.specificity() {
        "as exact, but its policy's name or its place comes later".to_owned()
    } else {
        "less exact".to_owned()
    }
}
