//! `countersign lint`: faults in policies that are legal, but not what anybody wants.

mod cluster;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use countersign_cosign::Demand;
use countersign_notary::TrustServer;
use countersign_policy::plan::notary::{default_trust_server, retirement};
use countersign_policy::{
    Check, CosignPolicy, Match, PinStyle, Policy, ProofPolicy, SecretRef, SecretUse, TrustPolicy,
};

use self::cluster::Secrets;
use super::judging::{ClusterSecretsPlace, From, Origin, SettingsFile};
use super::output::{print, table};
use super::{clients, exit};
use crate::config::Pin;
use crate::documents::{self, Document, Names};
use crate::prove::check_secret;
use crate::prove::cosign::read_key;
use crate::prove::notary::read_signer;
use crate::source::Moment as _;
use crate::source::files::{LoadError, Loaded};

/// Find faults in policies, of a folder or of a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign lint ./policies\n  countersign lint --kubeconfig ~/.kube/config --strict\n\nExit codes: 0 nothing found or warnings only, 1 errors found, 2 wrong usage, 3 the cluster cannot be asked"
)]
pub(crate) struct Args {
    /// Folder of ImagePolicy, ClusterImagePolicy and Secret documents, or one file
    #[arg(value_name = "POLICIES", conflicts_with_all = ["kubeconfig", "in_cluster"])]
    folder: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    /// Kubeconfig of the cluster whose policies are looked at
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The policies of the cluster around this pod are looked at
    #[arg(long)]
    in_cluster: bool,

    #[command(flatten)]
    secrets: ClusterSecretsPlace,

    /// Fail on warnings too
    #[arg(long)]
    strict: bool,

    /// How the server writes pinned images [default: tag-and-digest]
    #[arg(long, value_name = "STYLE", env = "COUNTERSIGN_PIN")]
    pin: Option<Pin>,

    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Not needed here; taken so that the flags of `review` fit
    #[arg(long, value_name = "FILE", hide = true)]
    trust_ca: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// Denies or allows what it should not, or cannot be used at all.
    Error,
    /// Works, and is probably not what was meant.
    Warning,
    /// Is as it should be, and should be known.
    Note,
}

#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Finding {
    severity: Severity,
    place: String,
    problem: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let settings = args.settings.read()?;
    let origin = Origin {
        policies: args.folder.clone(),
        kubeconfig: args.kubeconfig.clone(),
        in_cluster: args.in_cluster,
        secrets: args.secrets.clone(),
    };
    let from = origin.required(&settings)?;
    let own_namespace = args.secrets.namespace(&from, &settings);
    let style = Style {
        own_namespace: &own_namespace,
        pin: args.pin.or(settings.pin).unwrap_or_default().into(),
        trust_servers: clients::trust_servers(&settings.trust_servers)?,
    };
    let mut findings = match &from {
        From::Folder(folder) => of_folder(folder, &style)?,
        From::Cluster(kubeconfig) => clients::runtime()?.block_on(cluster::findings(kubeconfig.as_deref(), &style))?,
    };
    findings.sort_by(|one, other| (one.severity, &one.place).cmp(&(other.severity, &other.place)));
    match args.output {
        Format::Json => print(&(serde_json::to_string_pretty(&findings)? + "\n")),
        Format::Table if findings.is_empty() => print("No faults found.\n"),
        Format::Table => {
            let word = |severity| match severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            let row = |finding: &Finding| {
                vec![word(finding.severity).to_owned(), finding.place.clone(), finding.problem.clone()]
            };
            print(&table(&["", "PLACE", "FAULT"], &findings.iter().map(row).collect::<Vec<_>>()));
        }
    }
    let fails = |finding: &Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => args.strict,
        Severity::Note => false,
    };
    Ok(if findings.iter().any(fails) { exit::DENIED } else { exit::OK })
}

/// What the server makes of policies.
struct Style<'a> {
    own_namespace: &'a str,
    pin: PinStyle,
    /// Trust servers of registries for entries that name none.
    trust_servers: BTreeMap<String, TrustServer>,
}

/// The faults of a folder, or of a file.
fn of_folder(folder: &Path, style: &Style<'_>) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in documents::files(folder, Names::Plain)? {
        // Each document on its own, so that one broken document does not hide the faults of the others.
        match documents::read(&file, Names::Plain) {
            Err(problem) => findings.push(split(&problem.to_string())),
            Ok(documents) => findings.extend(documents.iter().flat_map(faults)),
        }
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    let loaded = match Loaded::read(folder) {
        Ok(loaded) => loaded,
        Err(problem) => return Ok(vec![split(&problem.to_string())]),
    };
    let policies: Vec<_> = loaded.policies().policies().collect();
    if policies.is_empty() {
        findings.push(no_policies(&folder.display().to_string()));
    }
    let warning = |(place, warning): &(String, crate::api::PolicyFault)| Finding {
        severity: Severity::Warning,
        place: format!("{place}: {}", warning.policy),
        problem: format!("{} {}", warning.place, warning.problem),
    };
    findings.extend(loaded.warnings.iter().map(warning));
    findings.extend(lint(&policies, &Secrets::of_files(&loaded), style));
    Ok(findings)
}

fn no_policies(place: &str) -> Finding {
    let problem = "there is no policy in it, so every image is denied".to_owned();
    Finding { severity: Severity::Warning, place: place.to_owned(), problem }
}

/// Every fault that keeps one document from being used.
fn faults(document: &Document) -> Vec<Finding> {
    let error = |place: String, problem: String| Finding { severity: Severity::Error, place, problem };
    match Loaded::of(std::slice::from_ref(document)) {
        Ok(_) => Vec::new(),
        Err(LoadError::Policies(faults)) => {
            faults.into_iter().map(|(place, fault)| error(place, fault.to_string())).collect()
        }
        Err(other) => vec![split(&other.to_string())],
    }
}

/// A message that begins with its place.
fn split(message: &str) -> Finding {
    let (place, problem) = message.split_once(": ").unwrap_or(("", message));
    Finding { severity: Severity::Error, place: place.to_owned(), problem: problem.to_owned() }
}

fn lint(policies: &[&Policy], secrets: &Secrets, style: &Style<'_>) -> Vec<Finding> {
    let mut policies = policies.to_vec();
    policies.sort_by_key(|policy| (policy.kind.clone(), policy.name.clone()));
    let mut findings = shadowed(&policies);
    for policy in policies {
        for (index, entry) in policy.entries.iter().enumerate() {
            let found = Match { policy, index, entry };
            let mut say = |severity, problem: String| {
                findings.push(Finding { severity, place: place(&found), problem });
            };
            if entry.pattern.host_may_run_on() {
                say(Severity::Warning, "the host ends in *, so it matches the hosts of strangers too (example.com* matches example.com.evil.io)".into());
            }
            if entry.check == Check::Nothing && entry.pattern.written().bytes().all(|byte| b"*/:".contains(&byte)) {
                say(Severity::Warning, "allows every image of every registry with no further check".into());
            }
            if entry.check == Check::Nothing && entry.pattern.is_about_tags() {
                say(
                    Severity::Warning,
                    "images with a digest do not match it: runtimes ignore the tag then, and nothing is checked here"
                        .into(),
                );
            }
            if let Check::Proof(_) = &entry.check
                && style.pin == PinStyle::Digest
                && entry.mutate_image
                && entry.pattern.is_about_tags()
            {
                say(Severity::Warning, "with --pin=digest a pinned image has no tag, so this entry does not match it when the validating webhook looks at it; name the repository without a tag".into());
            }
            for proof in entry.check.proofs() {
                match proof {
                    ProofPolicy::Trust(trust) => lint_trust(trust, &found, secrets, style, &mut say),
                    ProofPolicy::Cosign(cosign) => lint_cosign(cosign, &found, secrets, style, &mut say),
                }
            }
        }
    }
    findings
}

fn lint_trust(
    trust: &TrustPolicy,
    found: &Match<'_>,
    secrets: &Secrets,
    style: &Style<'_>,
    say: &mut impl FnMut(Severity, String),
) {
    if trust.signer_secrets.is_empty() && trust.root_keys.is_empty() && trust.root_secrets.is_empty() {
        say(Severity::Warning, "trust without signerSecrets and without pinned root keys: whoever controls the trust server decides what is trusted".into());
    }
    lint_server(trust.trust_server.as_ref(), found, style, say);
    let namespace = secrets_namespace(found, style);
    let secret = |name: &String| SecretRef { namespace: namespace.to_owned(), name: name.clone() };
    let mut seen: HashMap<countersign_notary::KeyId, &str> = HashMap::new();
    for name in &trust.signer_secrets {
        let data = match secrets.of(&secret(name)) {
            Ok(data) => data,
            Err(cause) => {
                say(Severity::Error, format!("signer secret {name} in namespace {namespace}: {cause}"));
                continue;
            }
        };
        match read_signer(&secret(name), data) {
            Err(reason) => say(Severity::Error, format!("signer secret {name} in namespace {namespace}: {reason}")),
            Ok(signer) => {
                if let Some(other) = seen.insert(signer.key().canonical_id(), name) {
                    let problem = format!(
                        "signer secrets {other} and {name} hold the same key, so together they ask for one signature only"
                    );
                    say(Severity::Warning, problem);
                }
            }
        }
    }
    for name in &trust.root_secrets {
        let usable =
            secrets.of(&secret(name)).is_ok_and(|data| check_secret(&secret(name), SecretUse::RootKey, data).is_ok());
        if !usable {
            say(
                Severity::Error,
                format!(
                    "root secret {name} in namespace {namespace} is missing, or its publicKey is no key or certificate in PEM"
                ),
            );
        }
    }
}

fn lint_cosign(
    cosign: &CosignPolicy,
    found: &Match<'_>,
    secrets: &Secrets,
    style: &Style<'_>,
    say: &mut impl FnMut(Severity, String),
) {
    let namespace = secrets_namespace(found, style);
    let mut keys = Vec::new();
    for name in &cosign.signer_secrets {
        let secret = SecretRef { namespace: namespace.to_owned(), name: name.clone() };
        let read = secrets.of(&secret).and_then(|data| read_key(&secret, data).map_err(|reason| reason.to_string()));
        match read {
            Ok(key) => keys.push(key),
            Err(reason) => say(Severity::Error, format!("signer secret {name} in namespace {namespace}: {reason}")),
        }
    }
    // Where a secret is not known, neither is which names there are.
    if keys.len() == cosign.signer_secrets.len() {
        keys.extend(cosign.keys.iter().cloned());
        let demand = Demand::new(keys, cosign.threshold, cosign.required.clone(), cosign.annotations.clone());
        if let Err(problem) = demand {
            say(Severity::Error, format!("cosign asks for what cannot be, so every image is denied: {problem}"));
        }
    }
    say(
        Severity::Note,
        "signatures of cosign do not expire and name no tag: every digest that one of the keys ever signed may run under any tag; what is withdrawn is withdrawn by taking its key out".into(),
    );
}

/// Where the secrets of an entry are.
fn secrets_namespace<'a>(found: &'a Match<'_>, style: &Style<'a>) -> &'a str {
    found.policy.kind.namespace().unwrap_or(style.own_namespace)
}

fn lint_server(
    server: Option<&TrustServer>,
    found: &Match<'_>,
    style: &Style<'_>,
    say: &mut impl FnMut(Severity, String),
) {
    let host = found.entry.pattern.written().split('/').next().unwrap_or_default();
    let usual = server.is_none().then(|| default_trust_server(host.trim_start_matches('*'), &style.trust_servers));
    let usual = usual.and_then(Result::ok);
    match server.or(usual.as_ref().filter(|_| host.contains('.'))) {
        Some(server) if server.is_plain_http() => {
            say(
                Severity::Warning,
                format!("the trust server {server} is on plain http: anybody on the way can hide or replay signatures"),
            );
        }
        Some(server) => {
            if let Some((host, day)) = retirement(server) {
                say(
                    Severity::Warning,
                    format!("the trust server {host} is shut down from {day} on; images are denied then"),
                );
            }
        }
        None if found.entry.pattern.exact_host() == Some("docker.io")
            && !style.trust_servers.contains_key("docker.io") =>
        {
            let problem = "docker.io has no trust server (Docker retires notary.docker.io on 2026-12-08), so every image is denied; name a trustServer";
            say(Severity::Error, problem.into());
        }
        None => {}
    }
}

fn place(found: &Match<'_>) -> String {
    let namespace = found.policy.kind.namespace().map_or_else(String::new, |namespace| format!("{namespace}/"));
    let (kind, name) = (found.policy.kind.kind(), &found.policy.name);
    format!("{kind} {namespace}{name}: spec.repositories[{}] {:?}", found.index, found.entry.pattern.written())
}

/// Entries that can never apply, since another one of the same name always comes first.
fn shadowed(policies: &[&Policy]) -> Vec<Finding> {
    let mut first: HashMap<(PolicyScope<'_>, String), String> = HashMap::new();
    let mut findings = Vec::new();
    for policy in policies {
        for (index, entry) in policy.entries.iter().enumerate() {
            let here = place(&Match { policy, index, entry });
            match first.entry((PolicyScope::of(policy), entry.pattern.normalised())) {
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(here);
                }
                std::collections::hash_map::Entry::Occupied(before) => findings.push(Finding {
                    severity: Severity::Error,
                    place: here,
                    problem: format!("never applies: {} has the same name and comes first", before.get()),
                }),
            }
        }
    }
    findings
}

/// Policies that count together.
#[derive(PartialEq, Eq, Hash)]
enum PolicyScope<'a> {
    Namespace(&'a str),
    Cluster,
}

impl<'a> PolicyScope<'a> {
    fn of(policy: &'a Policy) -> Self {
        policy.kind.namespace().map_or(Self::Cluster, Self::Namespace)
    }
}
