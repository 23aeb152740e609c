//! `countersign bridge`: how far images are on the way from Docker Content Trust to cosign, and what is to be done next.

mod images;
mod look;
mod next;
mod report;
mod script;
mod state;
mod yaml;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use self::images::Asked;
use self::look::Looker;
use self::state::{Counts, Looked, State};
use super::judging::{self, From, Origin, SettingsFile};
use super::output::print;
use super::{arguments, clients, exit};
use crate::cluster::Cluster;
use crate::documents::{self, Names};
use crate::source::Moment;
use crate::source::cluster::list_policies;
use crate::{api, telemetry};

/// Take stock of a move from Docker Content Trust to cosign; write what it takes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign bridge --kubeconfig ~/.kube/config\n  countersign bridge --policies ./policies --images images.txt --cosign-key alice=cosign.pub\n  countersign bridge --kubeconfig ~/.kube/config --cosign-key alice=cosign.pub -o script > sign.sh\n  countersign bridge --policies ./policies --images images.txt --cosign-key alice=cosign.pub -o policy > next.yaml\n\nNothing is signed, and nothing is changed. docs/bridge.md walks through the whole move.\n\nExit codes: 0 all images that something is asked of are ready for cosign alone, 1 some are not, 2 wrong usage, 3 something could not be decided"
)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingsFile,

    #[command(flatten)]
    origin: Origin,

    /// List of images, one a line (IMAGE, or NAMESPACE IMAGE); - for standard input [default: those that run in the cluster]
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,

    /// Namespace of images in the list that have none [default: default]; without a list, the one whose pods are looked at
    /// [default: all]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// A key of cosign for entries that name none, and its file (repeatable: all of them must have signed)
    #[arg(long, value_name = "NAME=KEYFILE")]
    cosign_key: Vec<String>,

    /// A namespace whose own policies may say what the script signs, and how (repeatable): whoever may write them chooses the trust
    /// server that proves it [default: none, in a cluster]
    #[arg(long, value_name = "NAMESPACE")]
    sign_for: Vec<String>,

    #[command(flatten)]
    reach: clients::Reach,

    /// What to print; policy is the next policies to write, script what signs with cosign what is only signed with Docker Content Trust
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Policy,
    Script,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    clients::runtime()?.block_on(bridge(args))
}

async fn bridge(args: &Args) -> anyhow::Result<u8> {
    let keys = arguments::cosign_keys(&args.cosign_key)?;
    if !keys.is_empty() {
        arguments::cosign_demand(&args.cosign_key)?;
    }
    let settings = args.settings.read()?;
    let from = args.origin.required(&settings)?;
    let own_namespace = args.origin.secrets.namespace(&from, &settings);
    let cluster = match &from {
        From::Cluster(kubeconfig) => Some(Cluster::connect(kubeconfig.as_deref()).await?),
        From::Folder(_) => None,
    };
    let source = match &cluster {
        Some(cluster) => judging::listed(cluster, &own_namespace).await?,
        None => from.source(&own_namespace).await?,
    };
    let moment = source.now()?;
    let images = images(args, cluster.as_ref()).await?;
    if images.is_empty() {
        bail!("there is no image to look at; give --images FILE with a line for each, or another --namespace");
    }
    let clients = args.reach.clients(&settings)?;
    let defaults = args.origin.secrets.defaults(&from, &settings)?;
    let looker = Looker {
        clients: &clients,
        moment: moment.as_ref(),
        defaults: &defaults,
        keys: &keys,
        timeout: args.reach.timeout.0,
        now: (telemetry::wall_clock())(),
    };
    let looked = looker.look(images).await;
    match args.output {
        Format::Table => print(&report::as_table(&looked)),
        Format::Json => print(&format!("{:#}\n", report::as_json(&looked))),
        Format::Script => print(&script::script(&looked, cluster.as_ref().map(|_| args.sign_for.as_slice()))),
        Format::Policy => {
            let documents = match (&cluster, &from) {
                (Some(cluster), _) => stored(cluster, moment.as_ref()).await?,
                (None, From::Folder(folder)) => written(folder)?,
                (None, From::Cluster(_)) => Vec::new(),
            };
            let keys = pem(&args.cosign_key)?;
            let signers = next::Signers { keys: &keys, secrets_namespace: &own_namespace };
            print(&next::policies(&documents, &looked, &signers)?);
        }
    }
    if matches!(args.output, Format::Policy | Format::Script) {
        eprintln!("{}", state::next_step(&looked));
    }
    Ok(code(&looked))
}

fn code(looked: &[Looked]) -> u8 {
    let counts = Counts::of(looked);
    if counts.of_state(State::Undecided) > 0 {
        exit::UNDECIDED
    } else if counts.ready < counts.checked {
        exit::DENIED
    } else {
        exit::OK
    }
}

async fn images(args: &Args, cluster: Option<&Cluster>) -> anyhow::Result<Vec<Asked>> {
    let Some(file) = &args.images else {
        let cluster =
            cluster.ok_or_else(|| anyhow!("--policies says nothing of images that run; give --images FILE"))?;
        return images::of_cluster(&cluster.client, args.namespace.as_deref()).await;
    };
    let standard_input = file.as_os_str() == "-";
    let name = if standard_input { "standard input".to_owned() } else { format!("--images {}", file.display()) };
    let mut bytes = Vec::new();
    let read = if standard_input {
        std::io::stdin().lock().take(images::MAX_LIST_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(images::MAX_LIST_BYTES + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > images::MAX_LIST_BYTES {
        bail!("{name} has more than {} MiB; split it", images::MAX_LIST_BYTES >> 20);
    }
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{name} is not UTF-8"))?;
    images::of_list(&name, &text, args.namespace.as_deref().unwrap_or("default"))
}

/// The keys of the command line, in PEM, under their names. They were read before, so that they are keys is known.
fn pem(texts: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let read = |text: &String| {
        let (name, path) = text.split_once('=').unwrap_or((text, ""));
        let pem = std::fs::read_to_string(path).with_context(|| format!("--cosign-key {name}: cannot read {path}"))?;
        Ok((name.to_owned(), pem))
    };
    texts.iter().map(read).collect()
}

fn is_policy(value: &Value) -> bool {
    matches!(value["kind"].as_str(), Some("ImagePolicy" | "ClusterImagePolicy"))
}

/// The policies of a folder, as they are written.
fn written(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let documents = documents::read(folder, Names::Plain)?;
    Ok(documents.into_iter().map(|document| document.value).filter(is_policy).collect())
}

/// The policies of a cluster, as somebody would have written them. They must be those that images were looked at by.
async fn stored(cluster: &Cluster, moment: &dyn Moment) -> anyhow::Result<Vec<Value>> {
    let listed = list_policies(&cluster.client).await.map_err(|cause| anyhow!(cause))?;
    let documents: Vec<_> = listed.iter().map(|(kind, object)| next::written(kind, object)).collect();
    for document in &documents {
        let Ok(checked) = api::check(document) else { continue };
        if !moment.policies().policies().any(|policy| *policy == checked.policy) {
            bail!("{} was changed while images were looked at; try again", api::title(document));
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests;
