//! The chart renders to what `countersign manifests` prints, old releases know all that is printed for them, and the generated files are
//! what the program generates now.
//! `UPDATE_GENERATED=1 cargo test -p countersign-tests --test chart` brings those up to date.

mod alerts;
mod architecture;
mod dashboard;
mod expressions;
mod fields;
mod links;
mod scrape;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign_tests::{Countersign, Finished, Problem, run};
use serde_json::{Value, json};

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
        let mut object: Value = serde_saphyr::from_str(document).map_err(|error| format!("{error}\n{document}"))?;
        if object.is_null() {
            continue;
        }
        // A text in the text: what it says counts, not how it is written.
        if let Some(config) = object.pointer_mut("/data/config.yaml") {
            let read: Value = serde_saphyr::from_str(config.as_str().unwrap_or_default())?;
            *config = read;
        }
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert!(objects.insert(name.clone(), object).is_none(), "{name} stands twice");
    }
    Ok(objects)
}

#[test]
fn chart_and_manifests_are_the_same() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String, Problem> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let pem_file = file("ca.pem", pem)?;
    let settings = json!({"mode": "warn", "trust-refresh": "1m", "hosts": {"h.io:443": {"trust-ca": ["/x"]}}});
    let settings_file = file("config.yaml", &settings.to_string())?;
    let repositories = json!([{"name": "docker.io/*", "policy": null}, {"name": "h.io/*", "policy": {"trust": {"enabled": true, "signerSecrets": [{"name": "a"}]}}}]);
    let block = json!({"image-security-enforcement": {"clusterImagePolicy": repositories}});
    let block_file = file("block.yaml", &block.to_string())?;
    let mut seed = block.clone();
    seed["namespace"] = json!({"create": true});
    let beside =
        json!({"namespace": {"create": true}, "image-security-enforcement": null, "clusterImagePolicy": repositories});
    let cases: [(&str, Vec<&str>, Value); 11] = [
        ("countersign", vec![], json!({"namespace": {"create": true}})),
        (
            "countersign",
            vec!["--kube-version", "1.16", "--review-kube-system"],
            json!({"namespace": {"create": true}, "reviewKubeSystem": true}),
        ),
        (
            "countersign",
            vec!["--reviews-from", "10.0.0.0/28", "--reviews-from", "fd00::/8", "--operations-from", "monitoring"],
            json!({"namespace": {"create": true}, "networkPolicy": {"reviewsFrom": ["10.0.0.0/28", "fd00::/8"], "operationsFrom": ["monitoring"]}}),
        ),
        ("countersign", vec!["--kube-version", "1.18"], json!({"namespace": {"create": true}})),
        ("countersign", vec!["--kube-version", "1.20"], json!({"namespace": {"create": true}})),
        (
            "trust",
            vec![
                "--image",
                "h.io/countersign:7",
                "--replicas",
                "5",
                "--exempt-namespace",
                "kube-system",
                "--exempt-namespace",
                "x",
            ],
            json!({"namespace": {"create": true}, "image": {"repository": "h.io/countersign", "tag": "7"}, "replicas": 5, "exemptNamespaces": ["kube-system", "x"]}),
        ),
        (
            "countersign",
            vec!["--tls", "cert-manager"],
            json!({"namespace": {"create": true}, "tls": {"source": "cert-manager"}}),
        ),
        (
            "countersign",
            vec!["--tls", "secret", "--tls-secret", "mine", "--ca-bundle", &pem_file],
            json!({"namespace": {"create": true}, "tls": {"source": "secret", "secretName": "mine", "caBundle": pem}}),
        ),
        ("countersign", vec!["--config", &settings_file, "--default-policy", &block_file], {
            seed["config"] = settings.clone();
            seed
        }),
        ("countersign", vec!["--default-policy", &block_file], beside),
        (
            "countersign",
            vec!["--for", "openshift-3.11"],
            json!({"namespace": {"create": true}, "platform": "openshift-3.11"}),
        ),
    ];
    for (namespace, flags, values) in cases {
        let values_file = file("values.yaml", &values.to_string())?;
        let mut arguments = vec!["template", "x", "--namespace", namespace, "--values", &values_file];
        let chart = chart();
        let old = flags.contains(&"openshift-3.11");
        if !old {
            arguments.push("--include-crds");
        }
        if let Some(release) = flags.iter().position(|flag| *flag == "--kube-version") {
            arguments.extend(&flags[release..release + 2]);
        }
        arguments.push(&chart);
        let rendered = helm(&arguments)?;
        assert_eq!(rendered.code, 0, "{flags:?}: {}", rendered.stderr);
        let printed = Countersign::run(&[&["manifests", "--namespace", namespace], &flags[..]].concat())?;
        assert_eq!(printed.code, 0, "{flags:?}: {}", printed.stderr);
        let mut expected = objects(&printed.stdout)?;
        if old {
            // A chart's definitions cannot depend on a value; its notes say what to apply.
            expected.retain(|name, _| !name.contains("CustomResourceDefinition"));
        }
        let mut found = objects(&rendered.stdout)?;
        // What helm uninstall leaves; it means nothing to anybody else.
        let metadata = &mut found.get_mut(&format!("\"Namespace\" \"{namespace}\"")).ok_or("no namespace")?["metadata"];
        let annotations = metadata.as_object_mut().and_then(|metadata| metadata.remove("annotations"));
        assert_eq!(annotations, Some(json!({"helm.sh/resource-policy": "keep"})), "{flags:?}");
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{flags:?}");
        for (name, object) in &expected {
            assert_eq!(&found[name], object, "{name} {flags:?}");
        }
    }
    Ok(())
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
        "defaultPolicy[0].nam=x",
        "defaultPolicy[0].policy.trust.enabled=x",
        "image-security-enforcement.clusterImagePolicies=x",
    ] {
        let rendered = helm(&["template", "x", &chart(), "--set", value])?;
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
    let cases: [(&[&str], &str); 3] = [
        (&["--kube-version", "1.15"], "platform=openshift-3.11"),
        (&["--namespace", "kube-system"], "needs a namespace of its own"),
        (&["--set", "reviewKubeSystem=true,exemptNamespaces={kube-system}"], "say the opposite of each other"),
    ];
    for (flags, words) in cases {
        let refused = helm(&[&["template", "x", &chart], flags].concat())?;
        assert!(refused.code != 0 && refused.stderr.contains(words), "{flags:?}: {refused:?}");
    }
    Ok(())
}

#[test]
fn generated_files_are_up_to_date() -> Result<(), Problem> {
    let commands = [
        ("serve", &["serve", "--help"][..]),
        ("review", &["review", "--help"]),
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
    assert_eq!(listed, 15, "a command of the help is not in the reference:\n{top}");
    let definitions = Countersign::run(&["manifests", "--only", "crds"])?.stdout;
    let metrics = Countersign::run(&["help", "metrics"])?.stdout;
    let log = Countersign::run(&["help", "log"])?.stdout;
    let generated = [
        ("docs/command-line.md", reference),
        ("docs/metrics.md", metrics),
        ("docs/log.md", log),
        ("charts/countersign/crds/policies.yaml", definitions),
    ];
    for (path, text) in generated {
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
