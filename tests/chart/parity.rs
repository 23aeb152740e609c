//! The chart renders to what `countersign manifests` prints, for each value that can be set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use countersign_tests::{Countersign, Problem};
use serde_json::{Value, json};

use super::{chart, helm, objects, root, values};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

type Objects = BTreeMap<String, Value>;

/// Values, to be rendered by the chart and by `manifests --values`.
fn documents() -> Vec<(&'static str, Value)> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let repository = |name: &str| json!([{"name": name, "policy": null}]);
    let zone = |selector: Value| {
        let mut constraint =
            json!({"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"});
        if !selector.is_null() {
            constraint["labelSelector"] = selector;
        }
        constraint
    };
    let all = json!({
        "image": {"repository": "h.io:5000/countersign", "tag": "v7", "digest": digest, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "login"}, {"name": "other"}],
        "replicas": 3,
        "mode": "audit",
        "timeoutSeconds": 20,
        "namespaceSelector": {
            "matchLabels": {"reviewed": "yes"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "Exists"}],
        },
        "reviewKubeSystem": true,
        "exemptNamespaces": ["cilium"],
        "config": {
            "deadline": "9s500ms", "shutdown-delay": "1500ms", "trust-ca": ["/etc/login/ca.pem"], "listen": "[::]:8443",
            "hosts": {"h.io:443": {"client-cert": "/etc/login/tls.crt", "client-key": "/etc/login/tls.key"}},
            "registry-config": "/etc/login/config.json", "trust-stale": 0, "private-trust": true,
            "kinds": [{"group": "argoproj.io", "kind": "Rollout", "resource": "rollouts", "pod-template": "/spec/template"}],
        },
        "tls": {"source": "cert-manager"},
        "networkPolicy": {"reviewsFrom": ["10.0.0.0/28", "fd00::/8"], "operationsFrom": ["monitoring"]},
        "metrics": {
            "service": {"enabled": true, "annotations": {"a.io/b": "c"}},
            "serviceMonitor": {"enabled": true, "labels": {"release": "p", "team": "metrics"}, "interval": "30s", "scrapeTimeout": "5s"},
            "rules": {"enabled": true, "labels": {"release": "p"}},
            "dashboard": {"enabled": true, "labels": {"dashboards": "yes"}},
        },
        "resources": {"requests": {"cpu": 1}, "limits": {"cpu": "1500m"}},
        "runAsUser": 1_234_567,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 6}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
        ]}}},
        "topologySpreadConstraints": [zone(Value::Null), zone(json!({"matchLabels": {"a": "b"}}))],
        "commonLabels": {"team": "security", "cost.io/centre": "7"},
        "podLabels": {"team": "pods", "only": "pods"},
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "service": {"annotations": {"a.io/s": "t"}},
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraVolumes": [{"name": "login", "secret": {"secretName": "registry-login"}}],
        "extraVolumeMounts": [{"name": "login", "mountPath": "/etc/login", "readOnly": true}],
        "defaultPolicy": [
            {"name": "docker.io/*", "policy": null},
            {"name": "a.io/*", "policy": {"requirePresent": true, "trust": {"enabled": true, "signerSecrets": [{"name": "a"}]}}},
            {"name": "b.io/*", "policy": {"anyOf": [
                {"cosign": {"signerSecrets": [{"name": "b"}], "threshold": 1, "annotations": {"a": "b"}}},
                {"trust": {"enabled": true}},
            ]}},
        ],
        "image-security-enforcement": {"clusterImagePolicy": repository("quay.io/*")},
        "clusterImagePolicy": repository("h.io/*"),
    });
    let mut for_1_20 = all.clone();
    for_1_20["tls"] = json!({"source": "secret", "secretName": "mine", "caBundle": PEM});
    vec![
        ("1.37", all),
        ("1.20", for_1_20),
        ("1.16", json!({"mode": "warn", "image": {"digest": digest}, "metrics": {"service": {"enabled": true}}})),
        ("1.17", json!({"resources": null, "image-security-enforcement": null, "config": {"shutdown-delay": "2m"}})),
        (
            "1.18",
            json!({"replicas": 1, "metrics": {"serviceMonitor": {"enabled": true}, "dashboard": {"enabled": true}}}),
        ),
        ("1.26", json!({"affinity": {}, "config": {"shutdown-delay": 0}})),
        ("1.27", json!({"timeoutSeconds": 30, "config": {"deadline": "29s", "trust-ca": []}})),
        ("openshift-3.11", json!({"runAsUser": 7, "config": {"deadline": "29s"}, "podLabels": {"a": "b"}})),
        ("openshift-3.11", json!({"replicas": 1, "mode": "warn"})),
    ]
}

/// The objects that the chart renders to, without what only Helm needs, which is checked.
fn rendered(namespace: &str, release: &str, values: &str) -> Result<Objects, Problem> {
    let old = release == "openshift-3.11";
    let mut arguments = vec!["template", "countersign", "--namespace", namespace, "--values", values];
    if !old {
        arguments.push("--include-crds");
        if !release.is_empty() {
            arguments.extend(["--kube-version", release]);
        }
    }
    let chart = chart();
    arguments.push(&chart);
    let rendered = helm(&arguments)?;
    assert_eq!(rendered.code, 0, "{values}: {}", rendered.stderr);
    let mut found = objects(&rendered.stdout)?;
    // What helm uninstall leaves; it means nothing to anybody else.
    let metadata = &mut found.get_mut(&format!("\"Namespace\" \"{namespace}\"")).ok_or("no namespace")?["metadata"];
    let annotations = metadata.as_object_mut().and_then(|metadata| metadata.remove("annotations"));
    assert_eq!(annotations, Some(json!({"helm.sh/resource-policy": "keep"})));
    let test = found.remove("\"Pod\" \"countersign-test\"").ok_or("no test")?;
    tests_alike(&test, &found);
    for (name, object) in &mut found {
        if name.contains("CustomResourceDefinition") {
            continue;
        }
        let labels = object["metadata"]["labels"].as_object_mut().ok_or("no labels")?;
        assert_eq!(labels.remove("app.kubernetes.io/managed-by"), Some(json!("Helm")), "{name}");
        assert_eq!(labels.remove("helm.sh/chart"), Some(json!("countersign-0.1.0")), "{name}");
    }
    Ok(found)
}

/// The pod of `helm test` runs the same image as the others, may run where they may, and no Service and no budget takes it for one of
/// them.
fn tests_alike(test: &Value, objects: &Objects) {
    let template = &objects["\"Deployment\" \"countersign\""]["spec"]["template"];
    let (own, other) = (&test["spec"], &template["spec"]);
    for member in ["serviceAccountName", "imagePullSecrets", "nodeSelector", "tolerations", "securityContext"] {
        assert_eq!(own[member], other[member], "{member}");
    }
    for member in ["image", "imagePullPolicy", "env", "resources", "securityContext"] {
        assert_eq!(own["containers"][0][member], other["containers"][0][member], "{member}");
    }
    assert_eq!(own["containers"][0]["args"], json!(["doctor", "--in-cluster", "--require-registration"]));
    assert_eq!(test["metadata"]["annotations"]["helm.sh/hook"], "test");
    for object in objects.values() {
        for at in ["/spec/selector/matchLabels", "/spec/selector", "/spec/podSelector/matchLabels"] {
            let Some(selector) = object.pointer(at).and_then(Value::as_object) else { continue };
            let is_of_pods = selector.values().all(Value::is_string) && object["kind"] != "ServiceMonitor";
            let selects = |labels: &Value| selector.iter().all(|(name, value)| labels.get(name) == Some(value));
            assert!(!is_of_pods || selects(&template["metadata"]["labels"]), "{object}");
            assert!(!is_of_pods || !selects(&test["metadata"]["labels"]), "{object}");
        }
    }
}

fn printed(namespace: &str, release: &str, flags: &[&str]) -> Result<Objects, Problem> {
    let mut arguments = vec!["manifests", "--namespace", namespace];
    if !["", "openshift-3.11"].contains(&release) {
        arguments.extend(["--kube-version", release]);
    }
    let printed = Countersign::run(&[&arguments[..], flags].concat())?;
    assert_eq!(printed.code, 0, "{flags:?}: {}", printed.stderr);
    let mut found = objects(&printed.stdout)?;
    if release == "openshift-3.11" {
        // A chart's definitions cannot depend on a value; its notes say what to apply.
        found.retain(|name, _| !name.contains("CustomResourceDefinition"));
    }
    Ok(found)
}

/// What the settings say counts, not how they are written.
fn settle(objects: &mut Objects) -> Result<(), Problem> {
    let text = &mut objects.get_mut("\"ConfigMap\" \"countersign\"").ok_or("no ConfigMap")?["data"]["config.yaml"];
    *text = serde_saphyr::from_str(text.as_str().unwrap_or_default())?;
    Ok(())
}

/// Pods read their settings at start, so that others must start when these change, and only then.
#[test]
fn other_settings_bring_other_pods() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("values.yaml");
    let file = path.display().to_string();
    let mut sums = BTreeSet::new();
    for values in ["mode: warn", "mode: audit", "mode: audit\nconfig: {pin: digest}", "mode: audit\nreplicas: 5"] {
        fs::write(&path, format!("{values}\nnamespace: {{create: true}}"))?;
        let [chart, manifests] = [rendered("x", "", &file)?, printed("x", "", &["--values", &file])?].map(|objects| {
            let template = &objects["\"Deployment\" \"countersign\""]["spec"]["template"];
            template["metadata"]["annotations"]["checksum/config"].as_str().unwrap_or_default().to_owned()
        });
        assert!(chart == manifests && chart.len() == 64, "{values}: {chart} {manifests}");
        sums.insert(chart);
    }
    assert_eq!(sums.len(), 3);
    Ok(())
}

fn same(mut found: Objects, mut expected: Objects, what: &str) -> Result<(), Problem> {
    settle(&mut found)?;
    settle(&mut expected)?;
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, object) in &expected {
        assert_eq!(&found[name], object, "on the left the chart, on the right manifests: {name}, {what}");
    }
    Ok(())
}

/// By the same values, the chart and `manifests` install the same. No value is left out of that.
#[test]
fn chart_and_manifests_are_the_same() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("values.yaml");
    let file = path.display().to_string();
    let mut untried: BTreeSet<String> = BTreeSet::new();
    let defaults = values::defaults()?;
    untried.extend(defaults.keys().cloned());
    for (release, values) in documents() {
        let mut values = values;
        values["namespace"] = json!({"create": true});
        if release == "openshift-3.11" {
            values["platform"] = json!(release);
        }
        untried.retain(|value| values.pointer(value).is_none_or(|set| *set == defaults[value]));
        fs::write(&path, values.to_string())?;
        let found = rendered("trust", release, &file)?;
        same(found, printed("trust", release, &["--values", &file])?, &format!("{release} {values}"))?;
    }
    assert!(untried.is_empty(), "no document here sets {untried:?}: the chart and manifests may differ by them");
    Ok(())
}

/// What flags say is what values say.
#[test]
fn flags_and_values_are_the_same() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String, Problem> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let pem_file = file("ca.pem", PEM)?;
    let settings = json!({"trust-refresh": "1m", "hosts": {"h.io:443": {"trust-ca": ["/x"]}}});
    let settings_file = file("config.yaml", &settings.to_string())?;
    let repositories = json!([{"name": "docker.io/*", "policy": null}, {"name": "h.io/*", "policy": {"trust": {"enabled": true, "signerSecrets": [{"name": "a"}]}}}]);
    let block_file =
        file("block.yaml", &json!({"image-security-enforcement": {"clusterImagePolicy": repositories}}).to_string())?;
    let cases: [(&str, &[&str], Value); 10] = [
        ("", &[], json!({})),
        ("1.16", &["--review-kube-system"], json!({"reviewKubeSystem": true})),
        (
            "",
            &["--reviews-from", "10.0.0.0/28", "--reviews-from", "fd00::/8", "--operations-from", "monitoring"],
            json!({"networkPolicy": {"reviewsFrom": ["10.0.0.0/28", "fd00::/8"], "operationsFrom": ["monitoring"]}}),
        ),
        (
            "1.20",
            &[
                "--image",
                "h.io/countersign:7",
                "--replicas",
                "5",
                "--exempt-namespace",
                "kube-system",
                "--exempt-namespace",
                "x",
            ],
            json!({"image": {"repository": "h.io/countersign", "tag": "7"}, "replicas": 5, "exemptNamespaces": ["kube-system", "x"]}),
        ),
        ("", &["--mode", "warn"], json!({"mode": "warn"})),
        ("", &["--tls", "cert-manager"], json!({"tls": {"source": "cert-manager"}})),
        (
            "",
            &["--tls", "secret", "--tls-secret", "mine", "--ca-bundle", &pem_file],
            json!({"tls": {"source": "secret", "secretName": "mine", "caBundle": PEM}}),
        ),
        (
            "",
            &["--config", &settings_file, "--default-policy", &block_file],
            json!({"config": settings, "image-security-enforcement": {"clusterImagePolicy": repositories}}),
        ),
        (
            "",
            &["--default-policy", &block_file],
            json!({"image-security-enforcement": null, "clusterImagePolicy": repositories}),
        ),
        ("openshift-3.11", &["--for", "openshift-3.11"], json!({"platform": "openshift-3.11"})),
    ];
    for (release, flags, mut values) in cases {
        values["namespace"] = json!({"create": true});
        let values_file = file("values.yaml", &values.to_string())?;
        let found = rendered("countersign", release, &values_file)?;
        same(found, printed("countersign", release, flags)?, &format!("{flags:?}"))?;
    }
    // A flag wins over a value, as it is nearer.
    let values_file = file("values.yaml", "replicas: 7\nmode: audit\n")?;
    let both = printed("countersign", "", &["--values", &values_file, "--replicas", "4"])?;
    assert_eq!(both["\"Deployment\" \"countersign\""]["spec"]["replicas"], 4);
    assert_eq!(both["\"MutatingWebhookConfiguration\" \"countersign\""]["webhooks"][1]["failurePolicy"], "Ignore");
    let twice = file("values.yaml", "config: {pin: digest}\n")?;
    let refused = Countersign::run(&["manifests", "--values", &twice, "--config", &settings_file])?;
    assert!(refused.code == 2 && refused.stderr.contains("say the same thing twice"), "{refused:?}");
    Ok(())
}

/// The version of the chart is that of the program: the labels say it.
#[test]
fn the_chart_has_the_version_of_the_program() -> Result<(), Problem> {
    let chart: Value = serde_saphyr::from_str(&fs::read_to_string(root().join("charts/countersign/Chart.yaml"))?)?;
    let version = Countersign::run(&["version"])?.stdout;
    for member in ["version", "appVersion"] {
        let said = chart[member].as_str().ok_or(member)?;
        assert!(version.contains(said), "{member} {said}: {version}");
    }
    Ok(())
}
