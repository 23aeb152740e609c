//! The alert rules of the chart, by promtool: they are sound, each fires on what it is for, and none fires without it. The table in
//! `docs/observing.md` is made of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use countersign_tests::{Finished, Problem, run};
use serde_json::{Value, json};

use super::root;

const BEGIN: &str = "<!-- The alerts: generated, CONTRIBUTING.md says how. -->\n";
const END: &str = "<!-- The end of the alerts. -->\n";

/// One alert.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    severity: String,
    after: String,
    annotations: Value,
}

/// Where they stand.
pub(crate) fn file() -> std::path::PathBuf {
    root().join("charts/countersign/files/alerts.yaml")
}

/// All alerts.
pub(crate) fn alerts() -> Result<Vec<Alert>, Problem> {
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(file())?)?;
    let of = |rule: &Value, pointer: &str| rule.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let groups = rules["groups"].as_array().ok_or("no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    Ok(rules
        .map(|rule| Alert {
            name: of(rule, "/alert"),
            expr: of(rule, "/expr"),
            severity: of(rule, "/labels/severity"),
            after: of(rule, "/for"),
            annotations: rule["annotations"].clone(),
        })
        .collect())
}

/// Runs the promtool of Debian's package `prometheus`.
pub(crate) fn promtool(arguments: &[&str], path: &Path) -> Result<Finished, Problem> {
    run(Command::new("promtool").args(arguments).arg(path))
        .map_err(|problem| format!("{problem} (scripts/test installs it)").into())
}

#[test]
fn rules_are_sound() -> Result<(), Problem> {
    let checked = promtool(&["check", "rules", "--lint-fatal"], &file())?;
    assert_eq!(checked.code, 0, "{checked:?}");
    let mut names = BTreeSet::new();
    for Alert { name, expr, severity, annotations, .. } in alerts()? {
        assert!(names.insert(name.clone()), "{name} stands twice");
        // Several replicas are one installation, and several installations are several.
        assert!(expr.starts_with("absent(") || expr.contains(" by (cluster, na"), "{name}: {expr}");
        assert!(["critical", "warning"].contains(&severity.as_str()), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            let text = annotations[annotation].as_str().unwrap_or_default();
            // The table is made of them, and a template of Prometheus says nothing there.
            assert!(text.ends_with('.') && !text.contains("{{") && !text.contains('|'), "{name}: {annotation}: {text}");
        }
        assert_eq!(annotations["runbook_url"], format!("docs/observing.md#{name}"));
        sections_are_there(&name, annotations["description"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// The sections that a description names, `docs/PAGE.md, "HEADING"`, are there. Its links are looked at where all are, in the table.
fn sections_are_there(name: &str, description: &str) -> Result<(), Problem> {
    for (before, rest) in description.match_indices(".md, \"").map(|(at, _)| description.split_at(at)) {
        let page = before.rsplit(' ').next().unwrap_or_default().trim_start_matches('(');
        let heading = rest.split('"').nth(1).unwrap_or_default();
        let text = fs::read_to_string(root().join(format!("{page}.md")))?;
        let found = text.lines().any(|line| line.starts_with('#') && line.trim_start_matches(['#', ' ']) == heading);
        assert!(found, "{name}: {page}.md has no section {heading:?}");
    }
    Ok(())
}

/// `alerts_test.yaml` with what is the same in all its cases.
fn filled(alerts: &[Alert]) -> Result<Value, Problem> {
    let mut tests: Value = serde_saphyr::from_str(&fs::read_to_string(root().join("tests/chart/alerts_test.yaml"))?)?;
    tests["rule_files"] = json!([file()]);
    for test in tests["tests"].as_array_mut().ok_or("no tests")? {
        let test = test.as_object_mut().ok_or("a test is no map")?;
        if let Some(Value::Array(minutes)) = test.remove("quiet") {
            let silent = |minute: &Value, alert: &Alert| json!({"eval_time": format!("{minute}m"), "alertname": alert.name, "exp_alerts": []});
            let all = minutes.iter().flat_map(|minute| alerts.iter().map(move |alert| silent(minute, alert)));
            test.insert("alert_rule_test".to_owned(), all.collect());
        }
        for case in test["alert_rule_test"].as_array_mut().ok_or("no cases")? {
            let name = case["alertname"].as_str().unwrap_or_default();
            let alert = alerts.iter().find(|alert| alert.name == name);
            let alert = alert.ok_or_else(|| format!("there is no alert {name}"))?;
            for expected in case["exp_alerts"].as_array_mut().into_iter().flatten() {
                expected["exp_labels"]["severity"] = json!(alert.severity);
                expected["exp_annotations"] = alert.annotations.clone();
            }
        }
    }
    Ok(tests)
}

#[test]
fn each_alert_fires_on_what_it_is_for() -> Result<(), Problem> {
    let alerts = alerts()?;
    let mut tests = filled(&alerts)?;
    for alert in &alerts {
        let cases = || {
            let all = tests["tests"].as_array().into_iter().flatten();
            all.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
                .filter(|case| case["alertname"] == alert.name.as_str())
        };
        let fires = |case: &Value| case["exp_alerts"].as_array().is_some_and(|expected| !expected.is_empty());
        assert!(cases().any(fires) && cases().any(|case| !fires(case)), "{} is not tested both ways", alert.name);
    }
    // A member of promtool's own that came later than Debian's: for people alone.
    for test in tests["tests"].as_array_mut().into_iter().flatten() {
        test.as_object_mut().and_then(|test| test.remove("name"));
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tests.yaml");
    fs::write(&path, tests.to_string())?;
    let tested = promtool(&["test", "rules"], &path)?;
    assert_eq!(tested.code, 0, "{}\n{}", tested.stdout, tested.stderr);

    // That promtool can fail, and is heard: an alert that is expected where none fires.
    let first =
        json!({"eval_time": "5m", "alertname": alerts[0].name, "exp_alerts": [{"exp_labels": {"job": "none"}}]});
    tests["tests"] = json!([{"interval": "1m", "input_series": [], "alert_rule_test": [first]}]);
    fs::write(&path, tests.to_string())?;
    assert_ne!(promtool(&["test", "rules"], &path)?.code, 0);
    Ok(())
}

/// A text with its pages of the documentation as links from one of them.
fn linked(text: &str) -> String {
    let mut linked = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("docs/") {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && !"-.#".contains(c)).unwrap_or(after.len());
        let place = after[..end].trim_end_matches('.');
        let page = place.split('#').next().unwrap_or_default();
        linked.push_str(&format!("{before}[{page}]({place})"));
        rest = &after[place.len()..];
    }
    linked + rest
}

#[test]
fn the_table_is_made_of_the_alerts() -> Result<(), Problem> {
    let mut table = "| alert | severity | what it means | what to do |\n|---|---|---|---|\n".to_owned();
    for Alert { name, severity, after, annotations, .. } in alerts()? {
        let after = if after.is_empty() { "at once".to_owned() } else { format!("after {after}") };
        let text = |annotation: &str| linked(annotations[annotation].as_str().unwrap_or_default());
        let (summary, description) = (text("summary"), text("description"));
        table.push_str(&format!(
            "| <a id=\"{name}\"></a>`{name}` | {severity}, {after} | {summary} | {description} |\n"
        ));
    }
    let path = root().join("docs/observing.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/observing.md has no table of alerts")?;
    let (found, after) = rest.split_once(END).ok_or("the table of alerts has no end")?;
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, format!("{before}{BEGIN}\n{table}\n{END}{after}"))?;
        return Ok(());
    }
    assert!(
        found == format!("\n{table}\n"),
        "docs/observing.md: the table is not what alerts.yaml says; CONTRIBUTING.md says how to bring it up to date"
    );
    Ok(())
}
