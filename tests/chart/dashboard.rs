//! The dashboard of the chart has the form that Grafana takes, and shows every metric. There is no Grafana here to ask.

use std::collections::BTreeSet;
use std::fs;

use countersign_tests::{Countersign, Problem};
use serde_json::{Value, json};

use super::alerts::{alerts, promtool};
use super::expressions::named;
use super::root;

/// The panels that Grafana brings along and that are used here.
const PANELS: [&str; 2] = ["timeseries", "stat"];

fn dashboard() -> Result<Value, Problem> {
    Ok(serde_json::from_str(&fs::read_to_string(root().join("charts/countersign/files/dashboard.json"))?)?)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Something that a panel or a variable asks of Prometheus.
#[derive(Debug)]
pub(crate) struct Query {
    /// Who asks: the panel's title, or the variable.
    pub(crate) by: String,
    pub(crate) expression: String,
    /// The labels of the answer that are shown.
    pub(crate) labels: Vec<String>,
}

impl Query {
    /// The expression that comes of it in Grafana, with these words for the variables of the dashboard, and times of this length.
    pub(crate) fn filled(&self, words: &str, time: &str) -> String {
        let times = self.expression.replace("$__rate_interval", time).replace("$__range", time);
        times.replace("$namespace", words).replace("$job", words)
    }
}

/// What panels and variables ask of Prometheus.
pub(crate) fn queries() -> Result<Vec<Query>, Problem> {
    let dashboard = dashboard()?;
    let mut queries = Vec::new();
    for panel in list(&dashboard, "panels") {
        queries.extend(list(panel, "targets").map(|target| Query {
            by: text(panel, "title").to_owned(),
            expression: text(target, "expr").to_owned(),
            labels: shown(target),
        }));
    }
    for variable in list(&dashboard["templating"], "list").filter(|variable| variable["type"] == "query") {
        let query = text(variable, "definition");
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).ok_or("no label_values")?;
        let expression = format!("max by ({label}) ({selector})");
        queries.push(Query { by: text(variable, "name").to_owned(), expression, labels: vec![label.to_owned()] });
    }
    Ok(queries)
}

/// The labels in a legend.
fn shown(target: &Value) -> Vec<String> {
    let pieces = text(target, "legendFormat").split("{{").skip(1);
    pieces.filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label.trim().to_owned()).collect()
}

#[test]
fn the_dashboard_is_sound() -> Result<(), Problem> {
    let dashboard = dashboard()?;
    assert_eq!((text(&dashboard, "uid"), text(&dashboard, "title")), ("countersign", "Countersign"));
    assert!(dashboard["id"].is_null() && dashboard["__inputs"].is_null(), "it is not to be imported by hand alone");
    // That of Grafana 10.0; later ones bring it up to date when they read it.
    assert_eq!(dashboard["schemaVersion"], 38);
    let variables: BTreeSet<_> =
        list(&dashboard["templating"], "list").map(|variable| text(variable, "name")).collect();
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64()) && panel["id"].is_u64(), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().ok_or_else(|| format!("{title} has no place"));
        let (x, y, w, h) = (place("x")?, place("y")?, place("w")?, place("h")?);
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(PANELS.contains(&text(panel, "type")), "{title}");
        assert_eq!(panel["datasource"], source, "{title}");
        let mut letters = BTreeSet::new();
        for target in list(panel, "targets") {
            assert_eq!(target["datasource"], source, "{title}");
            assert!(letters.insert(text(target, "refId")), "{title}");
            let expression = text(target, "expr");
            let known = |name: &str| variables.contains(name) || ["__range", "__rate_interval"].contains(&name);
            for variable in expression.split('$').skip(1) {
                let end = variable.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(variable.len());
                assert!(known(&variable[..end]), "{title}: ${variable}");
            }
            // A legend has what is told apart, and nothing else is left.
            let groups = named(expression).groups;
            for label in shown(target) {
                let whole = label == "instance" && !expression.contains(" by (");
                assert!(whole || groups.contains(&label), "{title}: {label}");
            }
        }
        assert!(!letters.is_empty(), "{title} shows nothing");
    }
    assert!(ids.len() > 30, "{}", ids.len());
    Ok(())
}

/// Prometheus takes every expression, once Grafana has put in what its variables stand for.
#[test]
fn expressions_of_the_dashboard_are_sound() -> Result<(), Problem> {
    let queries = queries()?;
    let rule =
        |(index, query): (usize, &Query)| json!({"record": format!("panel:{index}"), "expr": query.filled("x", "5m")});
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rules.yaml");
    let mut file = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&path, file.to_string())?;
    let checked = promtool(&["check", "rules"], &path)?;
    assert_eq!(checked.code, 0, "{checked:?}");
    file["groups"][0]["rules"][0]["expr"] = json!("sum by (");
    fs::write(&path, file.to_string())?;
    assert_ne!(promtool(&["check", "rules"], &path)?.code, 0);
    Ok(())
}

/// A metric that nobody looks at is none: each of ours is on the dashboard, or behind an alert.
#[test]
fn every_metric_is_looked_at() -> Result<(), Problem> {
    let expressions: Vec<_> = queries()?
        .into_iter()
        .map(|query| query.expression)
        .chain(alerts()?.into_iter().map(|alert| alert.expr))
        .collect();
    let looked_at: BTreeSet<String> = expressions
        .iter()
        .flat_map(|expression| named(expression).metrics().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let table = Countersign::run(&["help", "metrics"])?.stdout;
    let metrics = table.lines().filter_map(|line| line.strip_prefix("| `countersign_")?.split('`').next());
    let mut count = 0;
    for metric in metrics.map(|rest| format!("countersign_{rest}")) {
        let series = [metric.clone(), format!("{metric}_bucket")];
        assert!(series.iter().any(|name| looked_at.contains(name)), "nobody looks at {metric}");
        count += 1;
    }
    assert!(count > 20, "{table}");
    Ok(())
}
