//! What a scan found, as reports of the policy working group of Kubernetes: `wgpolicyk8s.io/v1alpha2`.

use countersign_policy::EntryRef;
use serde_json::{Value, json};

use super::report::{Class, Counts, Finding, Report, Unread};
use crate::install::{NAME, to_yaml};

/// How many bytes the results of one report may have: `kubectl apply` keeps the whole object in an annotation, and annotations have
/// 256 KiB at most.
const MAX_RESULTS: usize = 180 << 10;

/// The reports, as YAML: for each namespace that was looked at, and for the cluster where something was not read.
///
/// # Errors
/// What cannot be written as YAML.
pub(super) fn yaml(report: &Report) -> anyhow::Result<String> {
    Ok(to_yaml(&reports(report))?)
}

/// The reports.
pub(super) fn reports(report: &Report) -> Vec<Value> {
    let mut reports = Vec::new();
    for (namespace, counts) in &report.namespaces {
        let findings = report.findings.iter().filter(|finding| finding.namespace == *namespace);
        let mut results: Vec<_> = findings.map(of_finding).collect();
        let unread = report.unread.iter().filter(|unread| unread.namespace.as_ref() == Some(namespace));
        results.extend(unread.map(of_unread));
        reports.extend(split("PolicyReport", Some(namespace), results, counts));
    }
    let elsewhere = |unread: &&Unread| unread.namespace.as_ref().is_none_or(|of| !report.namespaces.contains_key(of));
    let results: Vec<_> = report.unread.iter().filter(elsewhere).map(of_unread).collect();
    if !results.is_empty() {
        reports.extend(split("ClusterPolicyReport", None, results, &Counts::default()));
    }
    reports
}

/// Reports that are each small enough. What is allowed is counted in the first.
fn split(kind: &str, namespace: Option<&str>, results: Vec<Value>, counts: &Counts) -> Vec<Value> {
    let mut parts: Vec<Vec<Value>> = vec![Vec::new()];
    let mut bytes = 0;
    for result in results {
        let size = result.to_string().len();
        if bytes + size > MAX_RESULTS && bytes > 0 {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(result);
        }
    }
    let of = |(number, results): (usize, Vec<Value>)| {
        let name = if number == 1 { NAME.to_owned() } else { format!("{NAME}-{number}") };
        let mut metadata = json!({"name": name, "labels": {"app.kubernetes.io/managed-by": NAME}});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        let of = |word: &str| results.iter().filter(|result| result["result"] == word).count();
        let pass = if number == 1 { counts.of(Class::Allowed) } else { 0 };
        let summary = json!({
            "pass": pass, "fail": of("fail"), "warn": of("warn"), "error": of("error"), "skip": of("skip"),
        });
        json!({
            "apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": kind, "metadata": metadata, "summary": summary,
            "results": results,
        })
    };
    (1..).zip(parts).map(of).collect()
}

fn of_finding(finding: &Finding) -> Value {
    let result = match finding.class {
        Class::Denied => "fail",
        Class::Undecided => "error",
        Class::Superseded | Class::Unpinned => "warn",
        Class::Static | Class::Exempt => "skip",
        Class::Allowed => "pass",
    };
    let message = finding.reason.clone().unwrap_or_else(|| {
        let pinned = finding.pinned.as_deref().unwrap_or("its digest");
        format!("the image is signed, and runs without the pin that it would get: {pinned}")
    });
    let mut resource = json!({"apiVersion": finding.api_version, "kind": finding.kind, "namespace": finding.namespace, "name": finding.name});
    if !finding.uid.is_empty() {
        resource["uid"] = json!(finding.uid);
    }
    let mut result = json!({
        "source": NAME,
        "policy": finding.policy.as_ref().map_or_else(|| "none".to_owned(), policy),
        "category": "Image Signatures",
        "severity": if finding.class == Class::Denied { "high" } else { "medium" },
        "result": result,
        "scored": matches!(finding.class, Class::Denied | Class::Undecided),
        "message": message,
        "resources": [resource],
        "properties": {
            "class": finding.class.word(), "cause": finding.cause.unwrap_or("never-pinned"), "container": finding.container,
            "image": finding.image, "alike": finding.alike.to_string(),
        },
    });
    if let Some(policy) = &finding.policy {
        result["rule"] = json!(policy.entry);
    }
    result
}

fn of_unread(unread: &Unread) -> Value {
    json!({
        "source": NAME, "policy": "none", "category": "Image Signatures", "severity": "medium", "result": "error", "scored": true,
        "message": format!("{} could not be read: {}", unread.what, unread.cause),
        "properties": {"class": "not-read"},
    })
}

fn policy(entry: &EntryRef) -> String {
    let namespace = entry.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
    format!("{} {namespace}{}", entry.kind, entry.name)
}
