//! `countersign trust`: what is remembered of repositories, and how an administrator changes it.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use countersign_image::shown;
use countersign_notary::{Memory, MemoryRecord, RoleName};
use countersign_remote::{RecordKey, StateDir, StateStore as _, record};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::judging::SettingsFile;
use super::output::{print, table};
use super::{arguments, clients, exit};
use crate::cluster::{self, Cluster};
use crate::prove::notary::{Demands, Question};
use crate::{records, telemetry};

/// Show what is remembered of repositories, and accept a change deliberately
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign trust list --state-dir /var/lib/countersign\n  countersign trust accept registry.example.com/team/app --kubeconfig admin.conf \\\n    --trust-server https://notary.example.com:4443\n\nA repository whose versions went backwards, or whose root changed without a signature by the former root key, is denied\nuntil somebody who has made sure that this is right accepts it. To delete its TrustRecord, or its file,\nleaves it to the next review which root is believed; where several replicas run, accept instead, which reaches them all."
)]
pub(crate) struct Args {
    /// Namespace of the installation, in a cluster
    #[arg(long, global = true, default_value = crate::install::NAME)]
    namespace: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is remembered
    #[command(
        after_help = "Examples:\n  countersign trust list --state-dir /var/lib/countersign\n  countersign trust list --kubeconfig ~/.kube/config -o json"
    )]
    List {
        #[command(flatten)]
        place: Place,

        /// What to print
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
    /// Verify a repository as if it were new, and remember it as it is now
    #[command(
        after_help = "Example:\n  countersign trust accept registry.example.com/team/app --kubeconfig admin.conf \\\n    --trust-server https://notary.example.com:4443"
    )]
    Accept(Box<Accept>),
}

#[derive(Debug, clap::Args)]
struct Accept {
    /// An image of the repository, or its name
    image: String,

    /// The trust server [default: the registry's host, port 4443]
    #[arg(long, value_name = "URL")]
    trust_server: Option<String>,

    /// A root key that the repository must stand under: its id, or a PEM file (repeatable)
    #[arg(long, value_name = "ID|FILE")]
    root_key: Vec<String>,

    /// The one certificate that the trust server shows, a PEM file, where a policy pins it
    #[arg(long, value_name = "FILE")]
    trust_server_certificate: Option<PathBuf>,

    /// The namespace whose ImagePolicy pins the certificate: it has a record of its own
    #[arg(long, value_name = "NAMESPACE", requires = "trust_server_certificate")]
    pinned_in: Option<String>,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    reach: clients::Reach,
}

/// Where it is remembered.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The folder that serve was given
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// Kubeconfig of the cluster that serve runs in
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The cluster around this pod
    #[arg(long)]
    in_cluster: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let runtime = clients::runtime()?;
    match &args.command {
        Command::List { place, output } => {
            let remembered = runtime.block_on(list(place, &args.namespace))?;
            print(&match output {
                Format::Table => as_table(&remembered),
                Format::Json => format!("{:#}\n", remembered.iter().map(as_json).collect::<Value>()),
            });
            Ok(exit::OK)
        }
        Command::Accept(accept) => {
            let Accept { image, trust_server, root_key, trust_server_certificate, pinned_in, place, settings, reach } =
                &**accept;
            let settings = settings.read()?;
            let image = arguments::image(image)?;
            let server = arguments::server(trust_server.as_deref(), &image, &settings)?;
            let certificate = trust_server_certificate.as_deref().map(arguments::certificate).transpose()?;
            let demands = Demands { pins: arguments::root_pins(root_key)?, certificate, ..Demands::none() };
            let gun = image.repository();
            let pinned_in = pinned_in.as_deref();
            let question = Question { server: &server, gun: &gun, demands: &demands, pinned_in };
            let client = reach.clients(&settings)?.notary;
            runtime.block_on(async {
                let repository = match question.repository(&client).await {
                    Ok(repository) => repository,
                    Err(failure) => {
                        let reason = question.refusal(failure);
                        eprintln!("error: {}: {reason}; nothing is changed", shown(&gun));
                        return Ok(if reason.is_undecided() { exit::UNDECIDED } else { exit::DENIED });
                    }
                };
                let accepted = (telemetry::wall_clock())().to_string();
                let memory = Memory::clone(repository.memory());
                let now = MemoryRecord { memory, accepted: Some(accepted), ..MemoryRecord::default() };
                let key =
                    RecordKey { pinned_in: pinned_in.map(str::to_owned), ..RecordKey::new(server.as_str(), &gun) };
                let before = replace(place, &args.namespace, &key, &now).await?;
                print(&change(&gun, before.as_ref(), &now));
                Ok(exit::OK)
            })
        }
    }
}

async fn connect(place: &Place) -> anyhow::Result<Cluster> {
    Ok(Cluster::connect(place.kubeconfig.as_deref()).await?)
}

async fn list(place: &Place, namespace: &str) -> anyhow::Result<Vec<(RecordKey, MemoryRecord)>> {
    let mut found = if let Some(folder) = &place.state_dir {
        let read =
            |stored| record::read_any(stored).map_err(|error| anyhow!("a record in {}: {error}", folder.display()));
        open(folder)?.list()?.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?
    } else {
        let api = records::api(connect(place).await?.client, namespace);
        let listed = cluster::in_time(api.list(&kube::api::ListParams::default())).await;
        let listed =
            listed.map_err(|(_, cause)| anyhow!("cannot list trustrecords in namespace {namespace}: {cause}"))?;
        let read = |found: &kube::api::DynamicObject| {
            let name = found.metadata.name.as_deref().unwrap_or_default();
            let (mut key, record) = record::read_any(&records::read(found))
                .map_err(|error| anyhow!("trustrecord {} in namespace {namespace}: {error}", shown(name)))?;
            // An API server with an older definition keeps no more than the name of whose it is.
            if key.name() != name {
                key.pinned_in = Some("?".to_owned());
            }
            anyhow::Ok((key, record))
        };
        listed.items.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?
    };
    found.sort_by(|(one, _), (other, _)| {
        let order = |key: &RecordKey| (key.server.clone(), key.gun.clone(), key.pinned_in.clone());
        order(one).cmp(&order(other))
    });
    Ok(found)
}

fn open(folder: &std::path::Path) -> anyhow::Result<StateDir> {
    if !folder.is_dir() {
        bail!("--state-dir {} is no folder", folder.display());
    }
    // To make it one here would tell a webhook whose volume is gone that all was deleted.
    let state = StateDir::existing(folder);
    state.with_context(|| format!("--state-dir {} is no folder that serve has used", folder.display()))
}

/// Puts the new memory in place of the old one, which is given back; `None` if there was none, or none that can be read: that may be the
/// very reason to accept what is there now.
async fn replace(
    place: &Place,
    namespace: &str,
    key: &RecordKey,
    now: &MemoryRecord,
) -> anyhow::Result<Option<MemoryRecord>> {
    let name = key.name();
    // An administrator's change is for nobody in particular, and stays with whom it was for.
    let content = |namespace: Option<String>| record::write(key, &MemoryRecord { namespace, ..now.clone() });
    if let Some(folder) = &place.state_dir {
        let state = open(folder)?;
        let before = state.load(key).await.ok().flatten();
        let before = before.and_then(|before| record::read(key, &before).ok());
        state.replace(key, &content(before.as_ref().and_then(|before| before.namespace.clone()))?)?;
        return Ok(before);
    }
    let api = records::api(connect(place).await?.client, namespace);
    let failed = |(_, cause): (Option<u16>, String)| anyhow!("trustrecord {name} in namespace {namespace}: {cause}");
    let there = cluster::in_time(api.get_opt(&name)).await.map_err(failed)?;
    let before = there.as_ref().map(records::read);
    let now = content(before.as_ref().and_then(|before| before.content.namespace.clone()))?;
    let now = records::write(there.as_ref(), key, now, (telemetry::wall_clock())())?;
    let params = PostParams::default();
    match &there {
        Some(_) => cluster::in_time(api.replace(&name, &params, &now)).await.map_err(failed)?,
        None => cluster::in_time(api.create(&params, &now)).await.map_err(failed)?,
    };
    Ok(before.and_then(|before| record::read(key, &before).ok()))
}

fn root_of(memory: &Memory) -> (String, String) {
    let root = memory.lineage.last();
    let keys = root.map(|root| root.keys.iter().map(|key| key.canonical_id.to_string()).collect::<Vec<_>>().join(" "));
    (root.map_or_else(|| "-".to_owned(), |root| root.version.to_string()), keys.unwrap_or_default())
}

fn version(memory: &Memory, role: &RoleName) -> String {
    memory.highest(role).map_or_else(|| "-".to_owned(), |version| version.to_string())
}

fn as_table(remembered: &[(RecordKey, MemoryRecord)]) -> String {
    let row = |(key, seen): &(RecordKey, MemoryRecord)| {
        let (root, keys) = root_of(&seen.memory);
        vec![
            shown(&key.gun),
            shown(&key.server),
            shown(key.pinned_in.as_deref().unwrap_or("-")),
            shown(seen.namespace.as_deref().unwrap_or("-")),
            root,
            version(&seen.memory, &RoleName::timestamp()),
            keys,
            seen.accepted.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = remembered.iter().map(row).collect();
    table(&["REPOSITORY", "SERVER", "PINNED IN", "FOR", "ROOT", "TIMESTAMP", "ROOT KEYS", "ACCEPTED"], &rows)
}

fn as_json((key, seen): &(RecordKey, MemoryRecord)) -> Value {
    let root = seen.memory.lineage.last();
    json!({
        "repository": key.gun,
        "server": key.server,
        "pinnedIn": key.pinned_in,
        "namespace": seen.namespace,
        "rootVersion": root.map(|root| root.version),
        "rootKeys": root.map(|root| root.keys.iter().map(|key| key.canonical_id.to_string()).collect::<Vec<_>>()),
        "timestampVersion": seen.memory.highest(&RoleName::timestamp()),
        "accepted": seen.accepted,
    })
}

fn change(gun: &str, before: Option<&MemoryRecord>, now: &MemoryRecord) -> String {
    let mut text = format!("{} is remembered as it is now:\n", shown(gun));
    let line = |what: &str, before: Option<String>, now: String| match before {
        Some(before) if before == now => format!("  {what}: {now}, as before\n"),
        Some(before) => format!("  {what}: {now}, was {before}\n"),
        None => format!("  {what}: {now}\n"),
    };
    let old = before.map(|before| &before.memory);
    text.push_str(&line("root version", old.map(|old| root_of(old).0), root_of(&now.memory).0));
    text.push_str(&line("root keys", old.map(|old| root_of(old).1), root_of(&now.memory).1));
    for role in [RoleName::timestamp(), RoleName::snapshot(), RoleName::targets()] {
        text.push_str(&line(
            &format!("{role} version"),
            old.map(|old| version(old, &role)),
            version(&now.memory, &role),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_the_same() {
        let key = RecordKey { pinned_in: Some("team".to_owned()), ..RecordKey::new("https://h.io", "h.io/x") };
        let told = as_json(&(key, MemoryRecord { accepted: Some("2030".to_owned()), ..MemoryRecord::default() }));
        let expected = json!({
            "repository": "h.io/x", "server": "https://h.io", "pinnedIn": "team", "namespace": null, "rootVersion": null,
            "rootKeys": null, "timestampVersion": null, "accepted": "2030",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_change_names_both_sides() {
        let text = change("h.io/x", Some(&MemoryRecord::default()), &MemoryRecord::default());
        assert!(text.contains("root version: -, as before"), "{text}");
    }
}
