//! What the alerts and the dashboard name is what real servers show: Countersign in a cluster and without one, and an API server that
//! gets no answer from it. A real Prometheus reads them, and answers what the dashboard asks.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use countersign_tests::{Ca, ControlPlane, Countersign, Part, Problem, Release, free_port, run, wait_for};
use serde_json::{Value, json};

use super::alerts::{self, alerts};
use super::dashboard::{Query, queries};
use super::expressions::Scrape;

const WEBHOOK: &str = "trust.hooks.securityenforcement.admission.cloud.ibm.com";

/// A server, and what it needs to show what it shows.
struct Running {
    served: Countersign,
    _slow: Vec<Part>,
    _silent: Option<TcpStream>,
    _plane: Option<ControlPlane>,
}

fn metrics(served: &Countersign) -> Result<String, Problem> {
    Ok(served.get("/metrics")?.1)
}

/// Waits until a server shows these metrics.
fn shown(served: &Countersign, wanted: &[&str]) -> Result<(), Problem> {
    let all = wait_for("metrics", || {
        metrics(served).is_ok_and(|text| wanted.iter().all(|name| text.lines().any(|line| line.starts_with(name))))
    });
    all.map_err(|problem| format!("{problem}: {wanted:?}\n{}", metrics(served).unwrap_or_default()).into())
}

/// A server with policies from a folder, to which somebody sends bodies that do not come to their end, and opens connections to say nothing.
fn without_a_cluster(ca: &Ca, folder: &Path, scrape: &mut Scrape) -> Result<Running, Problem> {
    let policies = folder.join("policies");
    fs::create_dir(&policies)?;
    let policy = json!({
        "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ClusterImagePolicy",
        "metadata": {"name": "p"}, "spec": {"repositories": [{"name": "good.io/*"}]},
    });
    fs::write(policies.join("p.yaml"), policy.to_string())?;
    let served = Countersign::serve(ca, folder, &policies, &[])?;
    let pod = |image: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
               "spec": {"containers": [{"name": "web", "image": image}]}})
    };
    assert_eq!(served.admit(&pod("good.io/app"), "developer")?["allowed"], true);
    assert_eq!(served.admit(&pod("bad.io/app"), "developer")?["allowed"], false);
    let silent = TcpStream::connect(("127.0.0.1", served.port))?;
    let large = folder.join("large");
    fs::write(&large, vec![b' '; 15 << 20])?;
    let start = |number: usize| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--limit-rate", "1k", "-H", "Content-Type: application/json", "-H", "Expect:"]);
        curl.arg("--cacert").arg(&ca.ca).arg("--data-binary").arg(format!("@{}", large.display()));
        Part::start(&format!("slow-{number}"), curl.arg(format!("{}/admit", served.url)), folder)
    };
    let slow = (0..3).map(start).collect::<Result<Vec<_>, _>>()?;
    shown(&served, &["countersign_refused_bodies_total{", "countersign_closed_connections_total{"])?;
    scrape.add(&metrics(&served)?);
    Ok(Running { served, _slow: slow, _silent: Some(silent), _plane: None })
}

/// A server that follows a cluster and takes reviews only from whoever shows a certificate, which the API server does not.
fn in_a_cluster(ca: &Ca, folder: &Path, scrape: &mut Scrape) -> Result<Running, Problem> {
    let plane = ControlPlane::start(Release::V1_37, &folder.join("plane"))?;
    plane.apply(&Countersign::run(&["manifests", "--only", "crds"])?.stdout)?;
    let [authority, certificate, key, kubeconfig] =
        [&ca.ca, &ca.certificate, &ca.key, &plane.kubeconfig("admin")].map(|path| path.display().to_string());
    let cluster = ["--kubeconfig", &kubeconfig, "--namespace", "default"];
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--client-ca", &authority, "--client-name", "nobody"];
    let served = Countersign::start("in-a-cluster", ca, folder, &[&cluster[..], &tls].concat())?;
    served.ready()?;
    let bundle = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, fs::read(&authority)?);
    let configuration = |name: &str, failure_policy: &str, resource: &str| -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
            "webhooks": [{
                "name": WEBHOOK, "failurePolicy": failure_policy, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("{}/validate", served.url), "caBundle": bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}],
            }],
        })
    };
    plane.apply(&configuration("fails", "Fail", "configmaps").to_string())?;
    plane.apply(&configuration("ignores", "Ignore", "secrets").to_string())?;
    let mut last = String::new();
    let counted = wait_for("the API server to count whom it could not ask", || {
        // It takes a moment until it knows of the webhooks: each is another object.
        for kind in ["ConfigMap", "Secret"] {
            let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"generateName": "x-"}});
            let _ = plane.send("admin", "create", &object.to_string());
        }
        last = plane.kubectl("admin", &["get", "--raw", "/metrics"]).unwrap_or_default();
        ["rejection_count{error_type=\"calling_webhook_error\"", "fail_open_count{"]
            .iter()
            .all(|name| last.contains(&format!("apiserver_admission_webhook_{name}")))
    });
    let own: Vec<_> = last.lines().filter(|line| line.starts_with("apiserver_admission_webhook_")).collect();
    counted.map_err(|problem| format!("{problem}: {own:#?}"))?;
    scrape.add(&own.join("\n"));
    shown(&served, &["countersign_refused_clients_total{", "countersign_definitions_prune{"])?;
    scrape.add(&metrics(&served)?);
    Ok(Running { served, _slow: Vec::new(), _silent: None, _plane: Some(plane) })
}

/// Asks Prometheus something: the `data` of its answer, which has to be a good one.
fn ask(port: u16, path: &str, query: &str) -> Result<Value, Problem> {
    let url = format!("http://127.0.0.1:{port}/api/v1/{path}");
    let asked = run(Command::new("curl").args(["-sS", "--get", "--data-urlencode", &format!("query={query}"), &url]))?;
    let answer: Value = serde_json::from_str(&asked.stdout).map_err(|error| format!("{asked:?}: {error}"))?;
    if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(format!("{query}: {answer}").into()) }
}

/// Starts a Prometheus that reads these servers and has the rules of the chart, and waits until it has read each of them twice.
fn prometheus(folder: &Path, servers: &[Running]) -> Result<(Part, u16), Problem> {
    let targets: Vec<_> = servers.iter().map(|server| server.served.ops.replace("http://", "")).collect();
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [alerts::file()],
        "scrape_configs": [{"job_name": "here", "static_configs": [{"targets": targets, "labels": {"namespace": "here"}}]}],
    });
    let file = folder.join("prometheus.yml");
    fs::write(&file, config.to_string())?;
    let port = free_port()?;
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display())).arg(format!("--web.listen-address=127.0.0.1:{port}"));
    command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
    let mut part = Part::start("prometheus", &mut command, folder)?;
    part.listening_on(port)?;
    let twice = format!("count(count_over_time(countersign_build_info[1h]) > 1) == {}", targets.len());
    let read = wait_for("Prometheus to read all servers", || {
        ask(port, "query", &twice).is_ok_and(|data| data["result"][0].is_object())
    });
    read.map_err(|problem| format!("{problem}: {:?}\n{}", ask(port, "targets", ""), part.log_text()))?;
    Ok((part, port))
}

/// What Prometheus does with a query of the dashboard. What is compared with 0 may leave nothing.
fn answered(port: u16, query: &Query) -> Result<(), Problem> {
    let data = ask(port, "query", &query.filled("here", "1h"))?;
    let series = data["result"].as_array().ok_or("no result")?;
    assert!(!series.is_empty() || query.expression.contains(" > 0"), "{query:?} has no answer");
    for series in series {
        let missing = query.labels.iter().find(|label| series["metric"][label.as_str()].is_null());
        assert!(missing.is_none(), "{query:?}: {series}");
    }
    Ok(())
}

#[test]
fn what_alerts_and_dashboard_name_is_there() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let mut scrape = Scrape::default();
    let servers = [without_a_cluster(&ca, folder.path(), &mut scrape)?, in_a_cluster(&ca, folder.path(), &mut scrape)?];
    let (alerts, queries) = (alerts()?, queries()?);
    let of_alerts = alerts.iter().map(|alert| (&alert.name, &alert.expr));
    let of_dashboard = queries.iter().map(|query| (&query.by, &query.expression));
    let mut lacking = Vec::new();
    for (name, expression) in of_alerts.chain(of_dashboard) {
        lacking.extend(scrape.lacks(expression).into_iter().map(|lack| format!("{name}: no server shows {lack}")));
    }
    assert!(lacking.is_empty(), "{lacking:#?}");

    let (_prometheus, port) = prometheus(folder.path(), &servers)?;
    queries.iter().try_for_each(|query| answered(port, query))?;
    let mut rules = Value::Null;
    let sound = wait_for("the rules to be looked through", || {
        rules = ask(port, "rules", "").unwrap_or_default();
        let all = rules["groups"][0]["rules"].as_array();
        all.is_some_and(|all| all.len() == alerts.len() && all.iter().all(|rule| rule["health"] == "ok"))
    });
    sound.map_err(|problem| format!("{problem}: {rules:#}"))?;
    Ok(())
}
