//! `countersign inspect`: who signed which tags of a repository, with which keys, until when.

mod cosign;

use std::collections::BTreeMap;

use countersign_image::{ImageReference, shown};
use countersign_notary::{
    Repository, Status,
    metadata::{Metadata, Targets},
};
use countersign_remote::{Login, NamedBy, RegistryClient};
use serde_json::{Value, json};

use super::judging::SettingsFile;
use super::output::{print, table};
use super::{arguments, clients, exit};
use crate::prove::notary::{Demands, Question};

/// Show who signed which tags of a repository, with which keys, and until when
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign inspect registry.example.com/team/app --trust-server https://notary.example.com:4443\n  countersign inspect registry.example.com/team/app:v1 --cosign --cosign-key alice=cosign.pub"
)]
pub(crate) struct Args {
    /// The repository; with a tag, only that tag is shown
    image: String,

    /// The trust server [default: the registry's host, port 4443]
    #[arg(long, value_name = "URL")]
    trust_server: Option<String>,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    reach: clients::Reach,

    /// Ask the registry too, and show which tags have moved since they were signed
    #[arg(long)]
    registry: bool,

    /// Show the signatures of cosign of one image too, whoever made them
    #[arg(long)]
    cosign: bool,

    /// A key of cosign whose signatures are to be verified, and its file; goes with --cosign (repeatable)
    #[arg(long, value_name = "NAME=KEYFILE", requires = "cosign")]
    cosign_key: Vec<String>,

    /// The repository that holds the signatures of cosign [default: the image's own]
    #[arg(long, value_name = "REPOSITORY", requires = "cosign")]
    cosign_repository: Option<String>,

    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let image = arguments::image(&args.image)?;
    if args.cosign { cosign::run(args, &image) } else { inspect(args, &image) }
}

/// Shows what a trust server has.
fn inspect(args: &Args, image: &ImageReference) -> anyhow::Result<u8> {
    let settings = args.settings.read()?;
    let server = arguments::server(args.trust_server.as_deref(), image, &settings)?;
    // `latest` is only meant where it was typed.
    let tag = image.tag().filter(|_| image.written_repository().len() < args.image.len());
    let clients = args.reach.clients(&settings)?;
    let (gun, demands) = (image.repository(), Demands::none());
    let question = Question { server: &server, gun: &gun, demands: &demands, pinned_in: None };
    let runtime = clients::runtime()?;
    let found = runtime.block_on(question.repository(&clients.notary, NamedBy::Operator));
    let repository = match found {
        Ok(repository) => repository,
        Err(failure) => {
            let reason = question.refusal(failure);
            eprintln!("error: {}: {reason}", shown(&args.image));
            return Ok(if reason.is_undecided() { exit::UNDECIDED } else { exit::DENIED });
        }
    };
    let roles = roles(&repository);
    if let Some(tag) = tag
        && tags(&roles, Some(tag)).is_empty()
    {
        eprintln!("error: {}: nobody has signed the tag {}", shown(&args.image), shown(tag));
        return Ok(exit::DENIED);
    }
    let there = if args.registry {
        match runtime.block_on(in_registry(&clients.registry, image, &roles, tag)) {
            Ok(there) => Some(there),
            Err(problem) => {
                eprintln!("error: {problem}");
                return Ok(exit::UNDECIDED);
            }
        }
    } else {
        None
    };
    print(&match args.output {
        Format::Table => as_table(&repository, &roles, tag, there.as_ref()),
        Format::Json => format!("{:#}\n", as_json(&repository, &roles, tag, there.as_ref())),
    });
    Ok(exit::OK)
}

/// What the registry has under each signed tag now.
type InRegistry = BTreeMap<String, Option<String>>;

async fn in_registry(
    registry: &RegistryClient,
    image: &ImageReference,
    roles: &[Role<'_>],
    only: Option<&str>,
) -> Result<InRegistry, String> {
    let mut found = InRegistry::new();
    for (tag, _) in tags(roles, only).into_keys() {
        if found.contains_key(&tag) {
            continue;
        }
        // A target need not be named like a tag; then no registry has it.
        let digest = match ImageReference::parse(&format!("{}:{tag}", image.repository())) {
            Ok(named) => registry.digest(&named, &Login::none()).await.map_err(|error| error.to_string())?,
            Err(_) => None,
        };
        found.insert(tag, digest.map(|digest| digest.to_string()));
    }
    Ok(found)
}

fn moved(there: Option<&InRegistry>, tag: &str, digest: &str) -> &'static str {
    match there.and_then(|there| there.get(tag)) {
        None => "",
        Some(None) => "not there",
        Some(Some(found)) if found == digest => "as signed",
        Some(Some(_)) => "moved since it was signed",
    }
}

/// A role as it is shown.
struct Role<'a> {
    name: String,
    keys: Vec<String>,
    signed_by: Vec<String>,
    threshold: u64,
    expires: Option<jiff::Timestamp>,
    status: String,
    targets: Option<&'a Targets>,
}

fn roles(repository: &Repository) -> Vec<Role<'_>> {
    let ids = |keys: &[std::sync::Arc<countersign_notary::PublicKey>]| {
        keys.iter().map(|key| key.canonical_id().to_string()).collect::<Vec<_>>()
    };
    let root = repository.root().trusted();
    let top = |name: &str, keys: &countersign_notary::metadata::RoleKeys, signed_by, expires| Role {
        name: name.to_owned(),
        keys: ids(&keys.keys),
        signed_by,
        threshold: keys.threshold,
        expires,
        status: "valid".to_owned(),
        targets: None,
    };
    let (timestamp, snapshot, targets) = (repository.timestamp(), repository.snapshot(), repository.targets());
    let keys = root.body();
    let mut roles = vec![
        top("root", &keys.root, ids(root.signed_by()), keys.expires()),
        top("timestamp", &keys.timestamp, ids(timestamp.signed_by()), timestamp.body().expires()),
        top("snapshot", &keys.snapshot, ids(snapshot.signed_by()), snapshot.body().expires()),
        Role {
            targets: Some(targets.body()),
            ..top("targets", &keys.targets, ids(targets.signed_by()), targets.body().expires())
        },
    ];
    for state in repository.roles() {
        let delegated = &state.delegation().keys;
        let mut role = top(state.name().as_str(), delegated, Vec::new(), None);
        match state.status() {
            Status::NotPublished => "nothing signed yet".clone_into(&mut role.status),
            Status::Invalid(error) => role.status = format!("invalid: {error}"),
            Status::Valid { metadata, .. } => {
                role.signed_by = ids(metadata.signed_by());
                role.expires = metadata.body().expires();
                role.targets = Some(metadata.body());
            }
        }
        roles.push(role);
    }
    roles
}

/// For each tag and digest the roles that sign it.
fn tags(roles: &[Role<'_>], only: Option<&str>) -> BTreeMap<(String, String), Vec<String>> {
    let mut tags: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for role in roles {
        for (tag, target) in role.targets.iter().flat_map(|targets| &targets.targets) {
            if only.is_none_or(|only| only == tag) {
                let digest = target.sha256.map_or_else(str::to_owned, |digest| digest.to_string());
                tags.entry((tag.clone(), digest)).or_default().push(role.name.clone());
            }
        }
    }
    tags
}

fn as_table(repository: &Repository, roles: &[Role<'_>], only: Option<&str>, there: Option<&InRegistry>) -> String {
    let short = |ids: &[String]| ids.iter().map(|id| &id[..12]).collect::<Vec<_>>().join(", ");
    let tags: Vec<_> = tags(roles, only)
        .into_iter()
        .map(|((tag, digest), roles)| {
            let released = roles.iter().any(|role| role == "targets/releases" || role == "targets");
            let signers = roles.iter().filter(|role| *role != "targets/releases" && *role != "targets");
            let signers = signers.map(|role| role.trim_start_matches("targets/")).collect::<Vec<_>>().join(", ");
            let registry = moved(there, &tag, &digest).to_owned();
            let mut row = vec![shown(&tag), digest, if released { "yes".into() } else { "no".to_owned() }, signers];
            if there.is_some() {
                row.push(registry);
            }
            row
        })
        .collect();
    let rows: Vec<_> = roles
        .iter()
        .map(|role| {
            let until = role.expires.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
            let keys = format!("{} of {}", role.threshold, short(&role.keys));
            vec![role.name.clone(), keys, short(&role.signed_by), until, shown(&role.status)]
        })
        .collect();
    let signed = if tags.is_empty() {
        "No tag is signed.\n".to_owned()
    } else {
        let heads = ["TAG", "DIGEST", "RELEASED", "SIGNERS", "REGISTRY"];
        table(&heads[..if there.is_some() { 5 } else { 4 }], &tags)
    };
    format!(
        "{}\n\n{signed}\n{}",
        repository.gun(),
        table(&["ROLE", "KEYS", "SIGNED BY", "VALID UNTIL", "STATUS"], &rows)
    )
}

fn as_json(repository: &Repository, roles: &[Role<'_>], only: Option<&str>, there: Option<&InRegistry>) -> Value {
    let tags: Vec<_> = tags(roles, only)
        .into_iter()
        .map(|((tag, digest), roles)| {
            let mut row = json!({"tag": tag, "digest": digest, "roles": roles});
            if let Some(found) = there.and_then(|there| there.get(&tag)) {
                row["registry"] =
                    json!({"digest": found, "moved": found.as_ref().is_some_and(|found| *found != digest)});
            }
            row
        })
        .collect();
    let roles: Vec<_> = roles
        .iter()
        .map(|role| {
            json!({
                "name": role.name,
                "status": role.status,
                "threshold": role.threshold,
                "keys": role.keys,
                "signedBy": role.signed_by,
                "expires": role.expires.map(|time| format!("{time:.0}")),
            })
        })
        .collect();
    json!({"repository": repository.gun(), "tags": tags, "roles": roles})
}
