//! `countersign scan`: what runs, judged as the webhook would judge it if it were created now.

mod exempt;
mod fold;
mod judge;
mod list;
mod object;
mod policy_report;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use countersign_image::shown;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::Api;

use self::exempt::Exempt;
use self::fold::Owners;
use self::judge::{Asked, Judge};
use self::list::{List, Listed};
use self::object::{Kind, Object, Read};
use self::report::{Report, Unread};
use super::judging::{ClusterSecretsPlace, From, Origin, SettingsFile};
use super::output::print;
use super::progress::Progress;
use super::{clients, review};
use crate::cluster::{self, Cluster};
use crate::config::Settings;
use crate::documents::{self, Document, Names};

/// Show what runs and would be denied: of a cluster, or of a dump of one
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign scan --kubeconfig ~/.kube/config\n  countersign scan --kubeconfig ~/.kube/config --policies ./next -n shop -n payments -o json\n  kubectl get deploy,sts,ds,cj,rs,jobs,pods -A -o yaml | countersign scan -f - --policies ./policies\n  countersign scan --in-cluster -o policyreport | kubectl apply -f -\n\nNothing is changed, and nothing is remembered. docs/scan.md says what each class means, and which rights this takes.\n\nExit codes: 0 all would be allowed, 1 something would be denied, 2 wrong usage or configuration, or nothing could be read, 3 something could not be decided or read (whatever else is known)"
)]
pub(crate) struct Args {
    /// A dump: a file, a folder, or - for standard input (repeatable) [default: what runs in the cluster]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    /// Folder of ImagePolicy, ClusterImagePolicy and Secret documents [default: the policies of the cluster]
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_POLICIES")]
    policies: Option<PathBuf>,

    /// Kubeconfig of the cluster that is looked at, and whose policies apply unless --policies names others
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The cluster around this pod, in the same way
    #[arg(long)]
    in_cluster: bool,

    #[command(flatten)]
    secrets: ClusterSecretsPlace,

    /// Namespace that is looked at (repeatable) [default: all]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Vec<String>,

    /// Look at all namespaces, as without --namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Fail on what is superseded, static or exempt too
    #[arg(long)]
    strict: bool,

    /// How many objects come with one answer of the API server
    #[arg(long, value_name = "COUNT", default_value = "200", value_parser = clap::value_parser!(u32).range(1..=5000))]
    page_size: u32,

    #[command(flatten)]
    reach: clients::Reach,

    /// What to print; policyreport is for kubectl apply, in a cluster that has those of wgpolicyk8s.io/v1alpha2
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    #[value(name = "policyreport")]
    PolicyReport,
}

/// How many objects of a dump are judged together.
const TOGETHER: usize = 500;

/// The namespace of objects of a dump that name none.
const DEFAULT_NAMESPACE: &str = "default";

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    for namespace in &args.namespace {
        if !cluster::is_object_name(namespace) {
            bail!("--namespace {:?} cannot be the name of a namespace", shown(namespace));
        }
    }
    let settings = args.settings.read()?;
    let report = clients::runtime()?.block_on(scan(args, &settings))?;
    match args.output {
        Format::Table => print(&report.as_table()),
        Format::Json => print(&format!("{:#}\n", report.as_json())),
        Format::PolicyReport => print(&policy_report::yaml(&report)?),
    }
    if args.output == Format::PolicyReport {
        for unread in &report.unread {
            eprintln!("not read: {}: {}", unread.title(), shown(&unread.cause));
        }
    }
    Ok(report.code(args.strict))
}

/// Where policies come from, and what is looked at.
struct Places {
    from: From,
    what: What,
}

/// What is looked at.
enum What {
    Dump,
    /// A cluster, by its kubeconfig; `None` is the one around this pod.
    Cluster(Option<PathBuf>),
}

impl Places {
    /// What was typed, or else what the settings' file says. Policies may come from elsewhere than what runs: those that are not applied yet.
    fn of(args: &Args, settings: &Settings) -> anyhow::Result<Self> {
        let cluster = args.cluster().from(&Settings { policies: None, ..settings.clone() })?;
        let typed =
            args.policies.clone().map(From::Folder).or_else(|| cluster.clone().filter(|_| args.names_cluster()));
        let from = typed.or_else(|| settings.policies.clone().map(From::Folder)).or_else(|| cluster.clone());
        let from = from.map_or_else(|| args.cluster().required(settings), Ok)?;
        let what = match cluster {
            _ if !args.files.is_empty() => What::Dump,
            Some(From::Cluster(kubeconfig)) => What::Cluster(kubeconfig),
            Some(From::Folder(_)) | None => {
                bail!(
                    "what is to be looked at? Give --kubeconfig FILE or --in-cluster for what runs, or a dump: -f FILE"
                )
            }
        };
        Ok(Self { from, what })
    }
}

impl Args {
    /// The cluster that was typed, if one was.
    fn cluster(&self) -> Origin {
        let Self { kubeconfig, in_cluster, secrets, .. } = self;
        Origin { policies: None, kubeconfig: kubeconfig.clone(), in_cluster: *in_cluster, secrets: secrets.clone() }
    }

    fn names_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.in_cluster
    }
}

async fn scan(args: &Args, settings: &Settings) -> anyhow::Result<Report> {
    let Places { from, what } = Places::of(args, settings)?;
    let own_namespace = args.secrets.namespace(&from, settings);
    let gate = review::gate(&args.cluster(), &args.reach, settings, &from).await?;
    let mut scan = Scan {
        judge: Judge::new(gate),
        owners: Owners::default(),
        report: Report::default(),
        progress: Progress::new(),
        namespaces: &args.namespace,
    };
    match what {
        What::Dump => {
            let (documents, unread) = read_dump(&args.files);
            scan.report.unread = unread;
            scan.report.exempt = Exempt::usual(&own_namespace, "a dump does not say it");
            scan.dump(documents).await;
            if scan.report.objects == 0 && scan.report.over == 0 && scan.report.unread.is_empty() {
                bail!("no object of the input holds an image, so nothing was looked at");
            }
        }
        What::Cluster(kubeconfig) => {
            let cluster = Cluster::connect(kubeconfig.as_deref()).await?;
            scan.cluster(&cluster.client, settings, &own_namespace, args.page_size).await?;
        }
    }
    scan.report.reviews = scan.judge.reviews();
    let mut report = scan.report;
    report.sort();
    Ok(report)
}

/// The objects of files, and the files that cannot be read.
fn read_dump(files: &[PathBuf]) -> (Vec<Document>, Vec<Unread>) {
    let (mut documents, mut unread) = (Vec::new(), Vec::new());
    for path in files {
        let found = if path.as_os_str() == "-" { Ok(vec![path.clone()]) } else { documents::files(path, Names::All) };
        let read = found.map(|files| files.iter().map(|file| documents::read(file, Names::All)).collect::<Vec<_>>());
        for read in read.unwrap_or_else(|error| vec![Err(error)]) {
            match read {
                Ok(read) => documents.extend(read),
                Err(error) => {
                    let name =
                        if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
                    unread.push(Unread { what: name, namespace: None, cause: error.to_string() });
                }
            }
        }
    }
    (documents, unread)
}

/// A scan under way.
struct Scan<'a> {
    judge: Judge,
    owners: Owners,
    report: Report,
    progress: Progress,
    /// Those that are looked at; empty for all.
    namespaces: &'a [String],
}

impl Scan<'_> {
    /// Looks at the objects of a dump.
    async fn dump(&mut self, mut documents: Vec<Document>) {
        let kind = |document: &Document| Kind::of(document.text_of("/apiVersion"), document.text_of("/kind"));
        documents.sort_by_key(|document| kind(document).rank());
        let mut objects = Vec::new();
        for document in documents {
            let kind = kind(&document);
            if kind.name.is_empty() || document.text_of("/apiVersion").is_empty() {
                let cause = "it has no apiVersion, or no kind".to_owned();
                self.report.unread.push(Unread { what: document.place.to_string(), namespace: None, cause });
                continue;
            }
            self.read(&kind, &document.value.to_string(), DEFAULT_NAMESPACE, &document.place.to_string(), &mut objects);
            if objects.len() == TOGETHER {
                self.judge(std::mem::take(&mut objects), "the dump").await;
            }
        }
        self.judge(objects, "the dump").await;
    }

    /// Looks at what a cluster has.
    async fn cluster(
        &mut self,
        client: &Client,
        settings: &Settings,
        own_namespace: &str,
        page_size: u32,
    ) -> anyhow::Result<()> {
        self.report.exempt = self.exempt(client, own_namespace, page_size).await?;
        let (kinds, unread) = list::kinds(client, &settings.kinds).await;
        self.report.unread.extend(unread);
        let places = match self.namespaces {
            [] => vec![None],
            named => named.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        for listed in &kinds {
            for namespace in &places {
                self.list(client, listed, *namespace, page_size).await;
            }
        }
        Ok(())
    }

    /// Looks at the objects of one kind.
    async fn list(&mut self, client: &Client, listed: &Listed, namespace: Option<&str>, page_size: u32) {
        let title = listed.title();
        let mut list = List::begin(client, listed, namespace, page_size);
        loop {
            match list.next(client).await {
                Ok(None) => break,
                Ok(Some(items)) => {
                    let mut objects = Vec::new();
                    for item in items {
                        self.read(&listed.kind, item.get(), "", &title, &mut objects);
                    }
                    self.judge(objects, &title).await;
                }
                Err(cause) => {
                    let namespace = namespace.map(str::to_owned);
                    self.report.unread.push(Unread { what: title.clone(), namespace, cause });
                    break;
                }
            }
        }
    }

    /// Reads an object that is to be judged with others.
    fn read(&mut self, kind: &Kind, json: &str, namespace: &str, place: &str, objects: &mut Vec<Object>) {
        let is_wanted =
            |namespace: &str| self.namespaces.is_empty() || self.namespaces.iter().any(|wanted| wanted == namespace);
        match object::read(self.judge.gate(), kind, json, namespace) {
            Read::Object(object) if is_wanted(&object.head.namespace) => objects.push(*object),
            Read::Object(_) | Read::Empty => {}
            Read::Over => self.report.over += 1,
            Read::Faulty(Some(head), cause) => {
                if is_wanted(&head.namespace) {
                    let namespace = Some(head.namespace.clone()).filter(|namespace| !namespace.is_empty());
                    self.report.unread.push(Unread { what: head.title(), namespace, cause });
                }
            }
            Read::Faulty(None, cause) => {
                self.report.unread.push(Unread { what: format!("an object of {place}"), namespace: None, cause });
            }
        }
    }

    /// Judges some objects: what their owners do not have.
    async fn judge(&mut self, objects: Vec<Object>, what: &str) {
        let (mut asked, mut children) = (Vec::new(), Vec::new());
        for object in objects {
            self.report.objects += 1;
            let Ok(workload) = object.submitted.workload() else { continue };
            let left = self.owners.take(&object.head, workload);
            if left.images.is_empty() {
                self.report.folded += 1;
                continue;
            }
            children.push(left.is_child);
            asked.push(Asked { object, images: left.images });
        }
        let seen = self.report.objects;
        let tell = |reviews: usize| self.progress.say(&format!("{seen} objects, {reviews} reviews: {what}"));
        tell(self.judge.reviews());
        let judged: Vec<Vec<Arc<_>>> = self.judge.judge(&asked, tell).await;
        for ((Asked { object, images }, is_child), judged) in asked.iter().zip(children).zip(judged) {
            for (image, judged) in images.iter().zip(judged) {
                if !(is_child && self.report.is_alike(&object.head, image)) {
                    self.report.add(&object.head, image, &judged, is_child);
                }
            }
        }
    }

    /// Which namespaces are exempt: those that no webhook of the cluster selects, or, where that cannot be told, those that an
    /// installation exempts.
    async fn exempt(&self, client: &Client, own_namespace: &str, page_size: u32) -> anyhow::Result<Exempt> {
        let namespaces = match self.labels(client, page_size).await? {
            Ok(namespaces) => namespaces,
            Err(cause) => return Ok(Exempt::usual(own_namespace, &format!("the namespaces cannot be read: {cause}"))),
        };
        Ok(match exempt::registered(client).await {
            Ok(selectors) => Exempt::by(&selectors, &namespaces),
            Err(cause) => Exempt::usual(own_namespace, &cause),
        })
    }

    /// The labels of the namespaces that are looked at.
    ///
    /// # Errors
    /// A namespace that was named and is not there.
    async fn labels(&self, client: &Client, page_size: u32) -> anyhow::Result<Result<exempt::Labels, String>> {
        let mut labels = exempt::Labels::new();
        for name in self.namespaces {
            match cluster::in_time(Api::<Namespace>::all(client.clone()).get(name)).await {
                Ok(namespace) => labels.insert(name.clone(), namespace.metadata.labels.unwrap_or_default()),
                Err((Some(404), _)) => return Err(anyhow!("--namespace {name}: the cluster has no such namespace")),
                Err((_, cause)) => return Ok(Err(cause)),
            };
        }
        if self.namespaces.is_empty() {
            let mut list = List::begin(client, &Listed::new("", "v1", "Namespace", "namespaces"), None, page_size);
            loop {
                match list.next(client).await {
                    Ok(None) => break,
                    Err(cause) => return Ok(Err(cause)),
                    Ok(Some(items)) => {
                        for item in items {
                            match serde_json::from_str::<Namespace>(item.get()) {
                                Ok(namespace) => labels.insert(
                                    namespace.metadata.name.unwrap_or_default(),
                                    namespace.metadata.labels.unwrap_or_default(),
                                ),
                                Err(error) => return Ok(Err(error.to_string())),
                            };
                        }
                    }
                }
            }
        }
        Ok(Ok(labels))
    }
}

#[cfg(test)]
mod tests;
