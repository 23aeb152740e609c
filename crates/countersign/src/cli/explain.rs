//! `countersign explain`: which entry applies to an image, which others matched, and why.

use std::path::PathBuf;

use countersign_image::{ImageReference, shown};
use countersign_policy::{Applies, Check, CosignPolicy, Match, PolicyKind, ProofPolicy, Requirement, TrustPolicy};

use super::output::{print, table};
use super::{arguments, exit};
use crate::source::Moment as _;
use crate::source::files::Loaded;

/// Show which policy entry applies to an image, which others matched, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign explain nginx:1.25 -n payments --policies ./policies")]
pub(crate) struct Args {
    /// The image, as a container would name it
    image: String,

    /// The workload's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,

    /// Folder of ImagePolicy, ClusterImagePolicy and Secret documents
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_POLICIES")]
    policies: PathBuf,

    /// Namespace of the signer secrets of cluster policies
    #[arg(long, value_name = "NAMESPACE", env = "COUNTERSIGN_SECRETS_NAMESPACE", default_value = "countersign")]
    secrets_namespace: String,

    /// Not needed here; taken so that the flags of `review` fit
    #[arg(long, value_name = "FILE", hide = true)]
    trust_ca: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let image = arguments::image(&args.image)?;
    let loaded = Loaded::read(&args.policies)?;
    let mut text =
        format!("image      {}\ncanonical  {}\nnamespace  {}\n\n", args.image, image.canonical(), args.namespace);
    let (line, code) = match loaded.policies().applies(&args.namespace, &image) {
        Applies::Unusable(policy, problem) => {
            (format!("denied: {} cannot be used: {problem}\n", policy.title()), exit::DENIED)
        }
        Applies::NoPolicies => ("denied: there are no policies at all\n".to_owned(), exit::DENIED),
        Applies::NotInNamespace => (
            format!(
                "denied: namespace {} has ImagePolicies, so only those count, and none of their entries matches\n",
                args.namespace
            ),
            exit::DENIED,
        ),
        Applies::NotInCluster => (
            format!(
                "denied: namespace {} has no ImagePolicies, and no entry of a ClusterImagePolicy matches\n",
                args.namespace
            ),
            exit::DENIED,
        ),
        Applies::Entry(best) => {
            let all = loaded.policies().matching(&args.namespace, &image);
            (applies(&best, all.get(1..).unwrap_or_default(), args), exit::OK)
        }
    };
    text.push_str(&line);
    print(&text);
    Ok(code)
}

fn applies(best: &Match<'_>, others: &[Match<'_>], args: &Args) -> String {
    let mut rows = vec![row("applies", best, reason(best, others.first()))];
    rows.extend(others.iter().map(|other| row("matches", other, loses(best, other))));
    let mut text = table(&["", "POLICY", "ENTRY", "WHY"], &rows);
    text.push('\n');
    text.push_str(&match &best.entry.check {
        Check::Unusable(problem) => format!("  denied, since the entry cannot be used: {problem}\n"),
        Check::Nothing => "It asks nothing: the image is allowed with no further check.\n".to_owned(),
        Check::Proof(requirement) => {
            let pinned = if best.entry.mutate_image { "yes" } else { "no (mutateImage: false)" };
            format!("{}  pinned          {pinned}\n", asks_for(requirement, best, args))
        }
    });
    text
}

fn asks_for(requirement: &Requirement<ProofPolicy>, best: &Match<'_>, args: &Args) -> String {
    match requirement {
        Requirement::One(ProofPolicy::Trust(trust)) => {
            format!("It asks for content trust.\n{}", content_trust(trust, best, args))
        }
        Requirement::One(ProofPolicy::Cosign(cosign)) => {
            format!("It asks for signatures of cosign.\n{}", signatures(cosign, best, args))
        }
        Requirement::All(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| asks_for(part, best, args)).collect();
            format!("All of this must hold, for one digest.\n{}", parts.join(""))
        }
        Requirement::Any(parts) => {
            let mut text = format!(
                "One of {} alternatives is enough; of those that hold, the first gives the digest.\n",
                parts.len()
            );
            for (number, part) in (1..).zip(parts) {
                text.push_str(&format!("Alternative {number}: {}", asks_for(part, best, args)));
            }
            text
        }
    }
}

fn signatures(cosign: &CosignPolicy, best: &Match<'_>, args: &Args) -> String {
    let place =
        cosign.repository.as_ref().map_or_else(|| "the image's repository".to_owned(), ImageReference::repository);
    let mut lines = format!("  signatures in   {place}\n");
    if !cosign.signer_secrets.is_empty() {
        let namespace = secrets_namespace(best, args);
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

fn secrets_namespace<'a>(best: &'a Match<'_>, args: &'a Args) -> &'a str {
    match &best.policy.kind {
        PolicyKind::Image { namespace } => namespace,
        PolicyKind::Cluster => &args.secrets_namespace,
    }
}

fn content_trust(trust: &TrustPolicy, best: &Match<'_>, args: &Args) -> String {
    let server = trust.trust_server.as_ref().map_or_else(|| "the registry's default".to_owned(), ToString::to_string);
    let namespace = secrets_namespace(best, args);
    let signers = if trust.signer_secrets.is_empty() {
        "none required: the released digest counts".to_owned()
    } else {
        format!("{} (secrets in namespace {namespace})", trust.signer_secrets.join(", "))
    };
    format!("  trust server    {server}\n  signer secrets  {signers}\n")
}

fn row(verb: &str, found: &Match<'_>, why: String) -> Vec<String> {
    vec![verb.to_owned(), found.policy.title(), format!("{} (entry {})", found.entry.pattern, found.index + 1), why]
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
