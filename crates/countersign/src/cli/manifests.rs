//! `countersign manifests`: what to install, for `kubectl apply -f -`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::exit;
use super::output::print;
use crate::config::{Mode, Settings};
use crate::crd::{self, Platform};
use crate::install::{KUBE_SYSTEM, KubeVersion, NoRelease, NoSource, Source, TlsSource, Values, to_yaml};

/// Print everything to install in a cluster, in the right order
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign manifests | kubectl apply -f -\n  countersign manifests --for openshift-3.11 --default-policy defaults.yaml | oc apply -f -\n  countersign manifests --only crds\n  countersign manifests --uninstall | kubectl delete --ignore-not-found -f -\n\nThe namespace of the installation is exempt from review, so that its own pods can start when none of them runs:\nwhoever may create pods in it, or edit its Secrets, is trusted by the whole cluster."
)]
pub(crate) struct Args {
    /// Values as the Helm chart takes them, YAML, for all that no flag says; flags win over them
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,

    /// Which APIs the cluster has [default: kubernetes]
    #[arg(long = "for", value_name = "PLATFORM")]
    platform: Option<PlatformName>,

    /// The cluster's release of Kubernetes, with --for kubernetes: 1.16 or later [default: today's, which is right from 1.27]
    #[arg(long, value_name = "VERSION", value_parser = kube_version)]
    kube_version: Option<KubeVersion>,

    /// Which objects to print
    #[arg(long, value_name = "WHAT", default_value = "all")]
    only: Only,

    /// Print what to delete instead, for kubectl delete -f -, in the order in which nobody is locked out. Policies, their
    /// definitions, the namespace, signer secrets and records stay
    #[arg(long, conflicts_with = "only")]
    uninstall: bool,

    /// Delete what stays, too: all policies of the cluster, and the namespace with all that is in it
    #[arg(long, requires = "uninstall")]
    purge: bool,

    /// Namespace to install in
    #[arg(long, default_value = "countersign")]
    namespace: String,

    /// Container image to run [default: countersign, with this program's version]
    #[arg(long)]
    image: Option<String>,

    /// How many pods [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    replicas: Option<u32>,

    /// What to do with workloads that are denied [default: enforce]
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,

    /// Where the serving certificate comes from [default: self-managed]
    #[arg(long, value_name = "SOURCE")]
    tls: Option<TlsSource>,

    /// Secret with tls.crt and tls.key, with --tls secret [default: countersign-tls]
    #[arg(long, value_name = "NAME")]
    tls_secret: Option<String>,

    /// Authorities that the API server is to trust, PEM, with --tls secret
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,

    /// Review kube-system too, which --for kubernetes leaves unreviewed: what nodes need must be listed in a policy then
    #[arg(long)]
    review_kube_system: bool,

    /// Further namespace to leave unreviewed (repeatable); before Kubernetes 1.21 it needs the label
    /// kubernetes.io/metadata.name
    #[arg(long, value_name = "NAMESPACE")]
    exempt_namespace: Vec<String>,

    /// Who may send reviews, for the `NetworkPolicy`: the addresses of the API servers, or a namespace with a tunnel to
    /// them (repeatable) [default: everybody]
    #[arg(long, value_name = "CIDR|NAMESPACE", value_parser = source)]
    reviews_from: Vec<Source>,

    /// Who may read metrics, for the `NetworkPolicy`, besides the node of each pod (repeatable) [default: everybody]
    #[arg(long, value_name = "CIDR|NAMESPACE", value_parser = source)]
    operations_from: Vec<Source>,

    /// Settings of serve, YAML, for the `ConfigMap`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// YAML with a list of repositories, or with the image-security-enforcement block of a master-config.yaml, for a
    /// ClusterImagePolicy named default
    #[arg(long, value_name = "FILE")]
    default_policy: Option<PathBuf>,
}

/// The namespaces that Kubernetes itself makes.
const SHARED: [&str; 4] = ["default", "kube-node-lease", "kube-public", KUBE_SYSTEM];

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PlatformName {
    /// v1 APIs: Kubernetes 1.16 and later, OpenShift 4
    Kubernetes,
    /// v1beta1 APIs: OpenShift 3.11, Kubernetes 1.11 to 1.15
    #[value(name = "openshift-3.11")]
    OpenShift311,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// Everything
    All,
    /// The custom resource definitions
    Crds,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let values = values(args)?;
    refuse(args, &values)?;
    if args.only == Only::Crds {
        print(&to_yaml(&crd::all(values.platform))?);
        return Ok(exit::OK);
    }
    let mut install = values.install(&args.namespace)?;
    install.kube_version = args.kube_version;
    if let Some(image) = &args.image {
        install.image.clone_from(image);
    }
    if !args.reviews_from.is_empty() {
        install.reviews_from.clone_from(&args.reviews_from);
    }
    if !args.operations_from.is_empty() {
        install.operations_from.clone_from(&args.operations_from);
    }
    if args.default_policy.is_some() {
        install.default_policy = default_policy(args.default_policy.as_deref())?;
    }
    print(&if args.uninstall { to_yaml(&install.uninstall(args.purge)?)? } else { install.yaml()? });
    Ok(exit::OK)
}

/// The values of the file, with what the flags say instead.
fn values(args: &Args) -> anyhow::Result<Values> {
    let mut values = match &args.values {
        None => Values::of("")?,
        Some(path) => {
            let named = || format!("--values {}", path.display());
            Values::of(&std::fs::read_to_string(path).with_context(named)?).with_context(named)?
        }
    };
    if let Some(platform) = args.platform {
        values.platform = match platform {
            PlatformName::Kubernetes => Platform::Kubernetes,
            PlatformName::OpenShift311 => Platform::OpenShift311,
        };
    }
    values.replicas = args.replicas.unwrap_or(values.replicas);
    values.mode = args.mode.unwrap_or(values.mode);
    values.review_kube_system |= args.review_kube_system;
    if !args.exempt_namespace.is_empty() {
        values.exempt_namespaces.clone_from(&args.exempt_namespace);
    }
    values.tls.source = args.tls.unwrap_or(values.tls.source);
    if let Some(name) = &args.tls_secret {
        values.tls.secret_name.clone_from(name);
    }
    if let Some(path) = &args.ca_bundle {
        let named = || format!("--ca-bundle {}", path.display());
        values.tls.ca_bundle = std::fs::read_to_string(path).with_context(named)?;
        if !values.tls.ca_bundle.starts_with("-----BEGIN") {
            bail!("{} is not PEM", named());
        }
        if values.tls.source != TlsSource::Secret {
            bail!("--ca-bundle goes with --tls secret alone");
        }
    } else if values.tls.source == TlsSource::Secret && values.tls.ca_bundle.is_empty() {
        bail!("--tls secret needs --ca-bundle FILE, the authorities of that certificate");
    }
    if let Some(path) = &args.config {
        if values.config.as_object().is_some_and(|given| !given.is_empty()) {
            bail!("--config and config of --values say the same thing twice; give one of them");
        }
        values.config = config(path)?;
    }
    Ok(values)
}

fn kube_version(text: &str) -> Result<KubeVersion, NoRelease> {
    text.parse()
}

fn source(text: &str) -> Result<Source, NoSource> {
    text.parse()
}

/// Refuses what would install something else than was meant.
fn refuse(args: &Args, values: &Values) -> anyhow::Result<()> {
    match (values.platform, args.kube_version) {
        (Platform::OpenShift311, Some(_)) => {
            bail!(
                "--kube-version goes with --for kubernetes; what --for openshift-3.11 prints is the same for all releases"
            )
        }
        (Platform::Kubernetes, Some(version)) if version < KubeVersion::FIRST => bail!(
            "--kube-version {version}: --for kubernetes prints APIs that are served from {} on; use --for openshift-3.11",
            KubeVersion::FIRST
        ),
        _ => {}
    }
    if SHARED.contains(&args.namespace.as_str()) {
        bail!(
            "--namespace {}: Countersign needs a namespace of its own, in which nothing else runs, as that is not reviewed",
            args.namespace
        );
    }
    if values.review_kube_system && values.exempt_namespaces.iter().any(|name| name == KUBE_SYSTEM) {
        bail!(
            "--review-kube-system and --exempt-namespace {KUBE_SYSTEM} say the opposite of each other; give one of them"
        );
    }
    if !(3..=30).contains(&values.timeout_seconds) {
        bail!("timeoutSeconds is {}, and must be from 3 to 30", values.timeout_seconds);
    }
    Ok(())
}

/// Settings that `serve` would refuse are refused here, before they are in a cluster.
fn config(path: &std::path::Path) -> anyhow::Result<Value> {
    Settings::from_file(path)?;
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    Ok(serde_saphyr::from_str(&text)?)
}

fn default_policy(path: Option<&std::path::Path>) -> anyhow::Result<Value> {
    let Some(path) = path else {
        return Ok(Value::Null);
    };
    let named = || format!("--default-policy {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    let value: Value = serde_saphyr::from_str(&text).with_context(named)?;
    crate::master_config::default_repositories(&value).with_context(named)
}
