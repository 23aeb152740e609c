//! The chart renders to what `countersign manifests` prints, old releases know all that is printed for them, and the generated files are
//! what the program generates now.
//! `UPDATE_GENERATED=1 cargo test -p countersign-tests --test chart` brings those up to date.

mod alerts;
mod architecture;
mod dashboard;
mod expressions;
mod fields;
mod links;
mod parity;
mod scrape;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_tests::{Countersign, Finished, Problem, run};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(arguments: &[&str]) -> Result<Finished, Problem> {
    let script = root().join("scripts/helm");
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    assert!(output.status.success(), "scripts/helm failed");
    let program = String::from_utf8(output.stdout)?;
    run(Command::new(program.trim()).args(arguments))
}

fn chart() -> String {
    root().join("charts/countersign").display().to_string()
}

/// The objects of a YAML text, by kind and name.
fn objects(text: &str) -> Result<BTreeMap<String, Value>, Problem> {
    let mut objects = BTreeMap::new();
    for document in text.split("\n---\n").map(|document| document.trim_start_matches("---\n")) {
        let object: Value = serde_saphyr::from_str(document).map_err(|error| format!("{error}\n{document}"))?;
        if object.is_null() {
            continue;
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert!(objects.insert(name.clone(), object).is_none(), "{name} stands twice");
    }
    Ok(objects)
}

#[test]
fn the_chart_is_sound_and_refuses_nonsense() -> Result<(), Problem> {
    let linted = helm(&["lint", "--strict", &chart()])?;
    assert_eq!(linted.code, 0, "{linted:?}");
    for value in [
        "replica=3",
        "replicas=0",
        "platform=openshift",
        "tls.source=none",
        "networkPolicy.reviewsFrom[0]=10.0.0.1/x",
        "tls.source=secret",
        "config.client-ca=/etc/countersign-client-ca/ca.crt",
        "tls.caBundle=-----BEGIN CERTIFICATE-----",
        "defaultPolicy[0].nam=x",
        "defaultPolicy[0].policy.trust.enabled=x",
        "image-security-enforcement.clusterImagePolicies=x",
        "image.digest=sha256:abc",
        "image.tag=a/b",
        "image.pullPolicy=Sometimes",
        "imagePullSecrets[0]=login",
        "mode=off",
        "timeoutSeconds=2",
        "timeoutSeconds=31",
        "namespaceSelector.objectSelector.matchLabels.a=b",
        "namespaceSelector.matchExpressions[0].key=a",
        "config.trust-refesh=1m",
        "config.trust-refresh=1",
        "config.log-level=banana",
        "config.verify-children=maybe",
        "config.listen=8443",
        "config.deadline=0",
        "config.deadline=0s",
        "resources.limits.memory=1GiB",
        "resources.limit.memory=1Gi",
        "runAsUser=0",
        "nodeSelector.a=a b",
        "tolerations[0].effect=Never",
        "affinity.nodeSelector.a=b",
        "topologySpreadConstraints[0].maxSkew=1",
        "commonLabels.app\\.kubernetes\\.io/name=x",
        "podLabels.app\\.kubernetes\\.io/name=x",
        "podAnnotations.a=null",
        "extraEnv[0].nam=x",
        "extraVolumes[0].name=x",
        "extraVolumeMounts[0].mountPath=x",
        "metrics.serviceMonitor.interval=often",
        "metrics.serviceMonitors.enabled=true",
    ] {
        let set = if value.ends_with("null") { "--set-json" } else { "--set" };
        let value = if set == "--set-json" { "podAnnotations={\"a\":1}" } else { value };
        let rendered = helm(&["template", "x", &chart(), set, value])?;
        assert!(rendered.code != 0 && rendered.stderr.contains("values don't meet"), "{value}: {rendered:?}");
    }
    Ok(())
}

/// What cannot be installed as it was asked for is refused, by the command line and by the chart.
#[test]
fn what_contradicts_itself_is_refused() -> Result<(), Problem> {
    let cases: [(&[&str], &str); 8] = [
        (
            &["--kube-version", "1.15"],
            "--kube-version 1.15: --for kubernetes prints APIs that are served from 1.16 on; use --for openshift-3.11",
        ),
        (&["--kube-version", "latest"], "is not a release of Kubernetes"),
        (&["--kube-version", "1.20", "--for", "openshift-3.11"], "--kube-version goes with --for kubernetes"),
        (&["--namespace", "kube-system"], "needs a namespace of its own"),
        (&["--review-kube-system", "--exempt-namespace", "kube-system"], "say the opposite of each other"),
        (&["--reviews-from", "10.0.0.1"], "is neither a range of addresses"),
        (&["--purge"], "--uninstall"),
        (&["--uninstall", "--only", "crds"], "cannot be used with"),
    ];
    for (flags, words) in cases {
        let refused = Countersign::run(&[&["manifests"], flags].concat())?;
        assert!(
            refused.code == 2 && refused.stdout.is_empty() && refused.stderr.contains(words),
            "{flags:?}: {refused:?}"
        );
    }
    let chart = chart();
    let cases: [(&[&str], &str); 2] = [
        (&["--kube-version", "1.15"], "platform=openshift-3.11"),
        (&["--namespace", "kube-system"], "needs a namespace of its own"),
    ];
    for (flags, words) in cases {
        let refused = helm(&[&["template", "x", &chart], flags].concat())?;
        assert!(refused.code != 0 && refused.stderr.contains(words), "{flags:?}: {refused:?}");
    }
    Ok(())
}

/// Neither of two things that contradict each other wins silently: the chart refuses them, and so does the command line.
#[test]
fn values_that_contradict_each_other_are_refused() -> Result<(), Problem> {
    let cases = [
        ("reviewKubeSystem: true\nexemptNamespaces: [kube-system]", "say the opposite of each other"),
        ("config: {mode: warn}", "config.mode is warn, and mode is enforce; give mode alone"),
        ("mode: audit\nconfig: {mode: warn}", "config.mode is warn, and mode is audit; give mode alone"),
        ("config: {namespace: other}", "config.namespace is not what the installation needs"),
        ("config: {tls-secret: other}", "config.tls-secret is not what the installation needs"),
        (
            "config: {tls-cert: /tls/tls.crt, tls-key: /tls/tls.key}",
            "config.tls-cert is not what the installation needs",
        ),
        ("config: {webhook-configuration: other}", "config.webhook-configuration is not what"),
        ("config: {policies: /policies}", "config.policies makes no sense for a server that runs in its cluster"),
        ("config: {listen: '0.0.0.0:443'}", "config.listen is 0.0.0.0:443; its port must be 8443"),
        ("config: {ops-listen: '0.0.0.0:80'}", "config.ops-listen is 0.0.0.0:80; its port must be 8081"),
        ("config: {deadline: 10s}", "config.deadline is 10s, and must be less than the 10 s that the API server waits"),
        ("timeoutSeconds: 5\nconfig: {deadline: 5000ms}", "must be less than the 5 s that the API server waits"),
        ("platform: openshift-3.11\nconfig: {deadline: 30s}", "must be less than the 30 s"),
        ("config: {shutdown-delay: 301s}", "config: --shutdown-delay must be at most 300s"),
        ("platform: openshift-3.11\ntimeoutSeconds: 20", "timeoutSeconds: the webhooks of OpenShift 3.11 have none"),
        (
            "platform: openshift-3.11\ntopologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]",
            "from 1.18 on",
        ),
        ("extraEnv: [{name: COUNTERSIGN_MODE, value: warn}]", "extraEnv: COUNTERSIGN_MODE would win over the settings"),
        ("extraVolumes: [{name: tls, secret: {secretName: x}}]", "extraVolumes: the pods have a volume tls already"),
        ("podAnnotations: {checksum/config: x}", "podAnnotations: checksum/config is set by the installation itself"),
    ];
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("values.yaml");
    for (values, words) in cases {
        fs::write(&path, values)?;
        let file = path.display().to_string();
        let refused = helm(&["template", "x", "--namespace", "countersign", "--values", &file, &chart()])?;
        assert!(refused.code != 0 && refused.stderr.contains(words), "{values}: {refused:?}");
        let refused = Countersign::run(&["manifests", "--values", &file])?;
        assert!(
            refused.code == 2 && refused.stdout.is_empty() && refused.stderr.contains(words),
            "{values}: {refused:?}"
        );
    }
    // What is said twice may be the same.
    fs::write(&path, "mode: warn\nconfig: {mode: warn, namespace: countersign, deadline: 9s}")?;
    let file = path.display().to_string();
    assert_eq!(helm(&["template", "x", "--namespace", "countersign", "--values", &file, &chart()])?.code, 0);
    assert_eq!(Countersign::run(&["manifests", "--values", &file])?.code, 0);
    Ok(())
}

#[test]
fn generated_files_are_up_to_date() -> Result<(), Problem> {
    let commands = [
        ("serve", &["serve", "--help"][..]),
        ("review", &["review", "--help"]),
        ("scan", &["scan", "--help"]),
        ("verify", &["verify", "--help"]),
        ("inspect", &["inspect", "--help"]),
        ("explain", &["explain", "--help"]),
        ("lint", &["lint", "--help"]),
        ("manifests", &["manifests", "--help"]),
        ("openshift check", &["openshift", "check", "--help"]),
        ("openshift enable", &["openshift", "enable", "--help"]),
        ("trust list", &["trust", "list", "--help"]),
        ("trust accept", &["trust", "accept", "--help"]),
        ("doctor", &["doctor", "--help"]),
        ("bridge", &["bridge", "--help"]),
        ("help", &["help", "--help"]),
        ("version", &["version", "--help"]),
        ("completions", &["completions", "--help"]),
        ("man", &["man", "--help"]),
    ];
    let mut reference =
        "# The command line\n\nGenerated from the program's own help; CONTRIBUTING.md says how.\n".to_owned();
    let top = Countersign::run(&["--help"])?.stdout;
    reference.push_str(&format!("\n```text\n{top}```\n"));
    for (name, arguments) in commands {
        let word = name.split(' ').next().unwrap_or_default();
        assert!(top.contains(&format!("\n  {word} ")), "{name} is not in the help");
        let help = Countersign::run(arguments)?;
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("\nExample"), "the help of {name} has no example");
        let lines: Vec<_> = help.stdout.lines().map(str::trim_end).collect();
        reference.push_str(&format!("\n## countersign {name}\n\n```text\n{}\n```\n", lines.join("\n")));
    }
    let listed =
        top.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  ")).count();
    assert_eq!(listed, 16, "a command of the help is not in the reference:\n{top}");
    let definitions = Countersign::run(&["manifests", "--only", "crds"])?.stdout;
    let metrics = Countersign::run(&["help", "metrics"])?.stdout;
    let log = Countersign::run(&["help", "log"])?.stdout;
    let schema = values::schema_file(&definitions)?;
    let readme = root().join("charts/countersign/README.md");
    for (path, text) in [
        ("docs/command-line.md", reference),
        ("docs/metrics.md", metrics),
        ("docs/log.md", log),
        ("charts/countersign/crds/policies.yaml", definitions),
        ("charts/countersign/values.schema.json", schema),
        ("charts/countersign/values.yaml", values::file()?),
        ("charts/countersign/README.md", values::readme(&fs::read_to_string(readme)?)?),
    ] {
        let file = root().join(path);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&file, &text)?;
        }
        let found = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == text,
            "{path} is not what the program generates now; CONTRIBUTING.md says how to bring it up to date"
        );
    }
    Ok(())
}
