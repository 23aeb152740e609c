//! The `master-config.yaml` of OpenShift 3.11: whether its API server calls webhooks, how to make it, and the default
//! policies that IBM Cloud Private kept there.

mod own_images;

use std::fmt;

use countersign_policy::Pattern;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::api::Repository;

pub(crate) use own_images::{Listed, OwnImages};

/// The admission plugins that call webhooks.
pub(crate) const PLUGINS: [&str; 2] = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"];

/// What makes the API server read its configuration again.
pub(crate) const RESTART: [&str; 2] =
    ["/usr/local/bin/master-restart api", "/usr/local/bin/master-restart controllers"];

/// The member that holds default policies.
const BLOCK: &str = "image-security-enforcement";

/// Why a file cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum OpenShiftError {
    /// Not YAML, or no mapping.
    #[error("is not a master configuration: {0}")]
    Malformed(String),
    /// A part is written in a form that is not changed here.
    #[error(
        "line {line}: {what} is written in a form that is not changed here; write it as a block, or add by hand:\n{snippet}"
    )]
    Form {
        /// From 1.
        line: usize,
        /// The member.
        what: &'static str,
        /// What to add.
        snippet: String,
    },
    /// A change would have touched more than it should.
    #[error(
        "cannot be changed without touching something else; add by hand, below admissionConfig.pluginConfig:\n{snippet}"
    )]
    Unsafe {
        /// What to add.
        snippet: String,
    },
    /// The block with default policies makes no sense.
    #[error("{place}: {problem}")]
    Block {
        /// The member.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

/// What the file says of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PluginState {
    /// It is on.
    Enabled,
    /// Nothing is said of it, so it is off.
    Missing,
    /// `disable: true`.
    Disabled,
    /// There is no configuration of a kind that turns it on.
    WrongKind {
        /// `apiVersion` and `kind`, as found.
        found: String,
    },
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enabled => f.write_str("enabled"),
            Self::Missing => f.write_str("not enabled: it is not in admissionConfig.pluginConfig"),
            Self::Disabled => f.write_str("not enabled: its configuration says disable: true"),
            Self::WrongKind { found } => {
                write!(f, "not enabled: its configuration is {found}, not v1 DefaultAdmissionConfig")
            }
        }
    }
}

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// Each plugin of [`PLUGINS`].
    pub plugins: [(&'static str, PluginState); 2],
    /// `spec.repositories` of the default policy; `None` if there is no block.
    pub repositories: Option<Value>,
    /// The images of the cluster's own pods; `None` if the file does not say which they are.
    pub own_images: Option<OwnImages>,
}

impl Report {
    /// `spec.repositories` of the policy that the cluster is to have: the default policy, and the cluster's own images, which nobody signed
    /// for it, with no check. `None` if there is neither.
    #[must_use]
    pub(crate) fn policy(&self) -> Option<Value> {
        let own = match &self.own_images {
            Some(OwnImages { listed: Listed::Missing(entry), .. }) => Some(json!({"name": entry})),
            _ => None,
        };
        if self.repositories.is_none() && own.is_none() {
            return None;
        }
        let listed = self.repositories.as_ref().and_then(Value::as_array).into_iter().flatten().cloned();
        Some(listed.chain(own).collect())
    }
}

/// Reads a file.
///
/// # Errors
/// Text that is no master configuration, or default policies that make no sense.
pub(crate) fn check(text: &str) -> Result<Report, OpenShiftError> {
    let config = read(text)?;
    let plugins = PLUGINS.map(|plugin| (plugin, state(&config, plugin)));
    let has_block = config.get(BLOCK).is_some() || config.get("clusterImagePolicy").is_some();
    let repositories = if has_block { Some(default_repositories(&config)?) } else { None };
    let own_images = own_images::own_images(&config, repositories.as_ref());
    Ok(Report { plugins, repositories, own_images })
}

fn read(text: &str) -> Result<Value, OpenShiftError> {
    let value: Value =
        serde_saphyr::from_str(text).map_err(|error| OpenShiftError::Malformed(error.without_snippet().to_string()))?;
    if value.is_object() { Ok(value) } else { Err(OpenShiftError::Malformed("it is no mapping".to_owned())) }
}

fn state(config: &Value, plugin: &str) -> PluginState {
    let found = config.pointer(&format!("/admissionConfig/pluginConfig/{plugin}")).filter(|found| !found.is_null());
    let Some(found) = found else {
        return PluginState::Missing;
    };
    let configuration = &found["configuration"];
    let text = |member: &str| configuration[member].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "DefaultAdmissionConfig") => match &configuration["disable"] {
            Value::Null | Value::Bool(false) => PluginState::Enabled,
            _ => PluginState::Disabled,
        },
        // The form of OpenShift 3.9, which 3.11 still takes.
        ("apiserver.config.k8s.io/v1alpha1", "WebhookAdmission") => PluginState::Enabled,
        ("", "") => PluginState::WrongKind { found: "empty".to_owned() },
        (version, kind) => PluginState::WrongKind { found: format!("{version} {kind}").trim().to_owned() },
    }
}

/// The repositories of a default policy: a list of them, or the block of IBM Cloud Private in either indentation in which
/// its documentation can be read (`clusterImagePolicy` below `image-security-enforcement`, or beside it).
///
/// # Errors
/// Another shape, or a repository that makes no sense.
pub(crate) fn default_repositories(value: &Value) -> Result<Value, OpenShiftError> {
    let nested = value.get(BLOCK).and_then(|block| block.get("clusterImagePolicy"));
    let beside = value.get("clusterImagePolicy");
    let (place, repositories) = match (value, nested, beside) {
        (Value::Array(_), ..) => ("", value),
        (_, Some(_), Some(_)) => {
            let problem = "stands both below and beside image-security-enforcement; keep one".to_owned();
            return Err(OpenShiftError::Block { place: "clusterImagePolicy".to_owned(), problem });
        }
        (_, Some(nested), None) => ("image-security-enforcement.clusterImagePolicy", nested),
        (_, None, Some(beside)) => ("clusterImagePolicy", beside),
        (_, None, None) => {
            let problem = "has no clusterImagePolicy with a list of repositories".to_owned();
            return Err(OpenShiftError::Block { place: BLOCK.to_owned(), problem });
        }
    };
    let items = repositories.as_array().ok_or_else(|| OpenShiftError::Block {
        place: place.to_owned(),
        problem: "is not a list of repositories".to_owned(),
    })?;
    for (index, item) in items.iter().enumerate() {
        let refused = |problem: String| OpenShiftError::Block { place: format!("{place}[{index}]"), problem };
        let repository = Repository::deserialize(item).map_err(|error| refused(error.to_string()))?;
        Pattern::parse(&repository.name).map_err(|error| refused(error.to_string()))?;
    }
    Ok(repositories.clone())
}

/// The text with both plugins on, and everything else as it is to the byte.
///
/// # Errors
/// Text that is no master configuration, or is written so that a change could touch something else.
pub(crate) fn enable(text: &str) -> Result<String, OpenShiftError> {
    let before = read(text)?;
    let mut changed = text.to_owned();
    let mut expected = before.clone();
    // Backwards, as each goes in front of what is there: in the end they stand in order.
    for plugin in PLUGINS.iter().rev().filter(|plugin| state(&before, plugin) != PluginState::Enabled) {
        changed = enable_one(&changed, plugin)?;
        let admission = object_at(&mut expected, "admissionConfig");
        let plugins = admission.map(|admission| admission.entry("pluginConfig"));
        let plugins = plugins.map(|entry| entry.or_insert(Value::Null));
        if let Some(plugins) = plugins {
            if plugins.is_null() {
                *plugins = json!({});
            }
            plugins[*plugin] = configuration();
        }
    }
    match read(&changed) {
        Ok(after) if after == expected => Ok(changed),
        _ => Err(OpenShiftError::Unsafe { snippet: snippets() }),
    }
}

fn configuration() -> Value {
    json!({"configuration": {"apiVersion": "v1", "disable": false, "kind": "DefaultAdmissionConfig"}})
}

fn object_at<'a>(value: &'a mut Value, member: &str) -> Option<&'a mut Map<String, Value>> {
    let found = value.as_object_mut()?.entry(member).or_insert(Value::Null);
    if found.is_null() {
        *found = json!({});
    }
    found.as_object_mut()
}

fn snippet(indent: &str, plugin: &str, end: &str) -> String {
    [
        format!("{plugin}:"),
        "  configuration:".to_owned(),
        "    apiVersion: v1".to_owned(),
        "    disable: false".to_owned(),
        "    kind: DefaultAdmissionConfig".to_owned(),
    ]
    .map(|line| format!("{indent}{line}{end}"))
    .concat()
}

fn snippets() -> String {
    PLUGINS.map(|plugin| snippet("    ", plugin, "\n")).concat()
}

/// A member that stands on a line of its own.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// Its line, from 0.
    line: usize,
    /// The line after its value.
    end: usize,
    /// Whether what stands behind the colon is nothing: the value is a block, or missing.
    block: bool,
    /// Whether the value is there, and empty: `{}`, `null` or `~`.
    empty: bool,
}

fn enable_one(text: &str, plugin: &str) -> Result<String, OpenShiftError> {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.push_str(end);
    }
    let refused = |line: usize, what| OpenShiftError::Form { line: line + 1, what, snippet: snippets() };
    let Some(admission) = find(&lines, 0, lines.len(), 0, "admissionConfig") else {
        lines.push(format!("admissionConfig:{end}  pluginConfig:{end}{}", snippet("    ", plugin, end)));
        return Ok(lines.concat());
    };
    if admission.empty {
        open(&mut lines, admission.line);
    } else if !admission.block {
        return Err(refused(admission.line, "admissionConfig"));
    }
    let indent = indent_of_block(&lines, admission.line + 1, admission.end).unwrap_or(2);
    let Some(plugins) = find(&lines, admission.line + 1, admission.end, indent, "pluginConfig") else {
        let inner = " ".repeat(indent * 2);
        let added = format!("{}pluginConfig:{end}{}", " ".repeat(indent), snippet(&inner, plugin, end));
        lines.insert(admission.line + 1, added);
        return Ok(lines.concat());
    };
    if plugins.empty {
        open(&mut lines, plugins.line);
    } else if !plugins.block {
        return Err(refused(plugins.line, "admissionConfig.pluginConfig"));
    }
    let inner = indent_of_block(&lines, plugins.line + 1, plugins.end).filter(|inner| *inner > indent);
    let inner = inner.unwrap_or(indent * 2);
    let added = snippet(&" ".repeat(inner), plugin, end);
    match find(&lines, plugins.line + 1, plugins.end, inner, plugin) {
        Some(present) => {
            lines.splice(present.line..present.end, [added]);
        }
        None => lines.insert(plugins.line + 1, added),
    }
    Ok(lines.concat())
}

/// Takes an empty value away, so that a block can follow.
fn open(lines: &mut [String], line: usize) {
    let text = &lines[line];
    let colon = text.find(':').unwrap_or(text.len() - 1);
    let end = &text[text.trim_end_matches(['\r', '\n']).len()..];
    lines[line] = format!("{}:{end}", &text[..colon]);
}

/// Finds a member of the mapping that stands at an indentation.
fn find(lines: &[String], from: usize, to: usize, indent: usize, name: &str) -> Option<Member> {
    let line = (from..to).find(|line| {
        let text = &lines[*line];
        let rest = text.get(indent..).filter(|_| depth(text) == Some(indent));
        let unquoted = rest.and_then(|rest| {
            [name.to_owned(), format!("\"{name}\""), format!("'{name}'")]
                .iter()
                .find_map(|form| rest.strip_prefix(form.as_str()))
        });
        unquoted.is_some_and(|rest| rest.trim_start().starts_with(':'))
    })?;
    let mut end = line + 1;
    while end < to && depth(&lines[end]).is_none_or(|depth| depth > indent) {
        end += 1;
    }
    // Blank lines and comments in front of the next member belong to that.
    while end > line + 1 && depth(&lines[end - 1]).is_none() {
        end -= 1;
    }
    let behind = lines[line].split_once(':').map_or("", |(_, behind)| behind);
    let value = behind.split(" #").next().unwrap_or_default().trim();
    let empty = matches!(value, "{}" | "null" | "~");
    Some(Member { line, end, block: value.is_empty(), empty })
}

/// The indentation of a line; nothing for blank lines and comments.
fn depth(line: &str) -> Option<usize> {
    let text = line.trim_start_matches(' ');
    let blank = text.trim().is_empty() || text.starts_with('#');
    (!blank).then(|| line.len() - text.len())
}

fn indent_of_block(lines: &[String], from: usize, to: usize) -> Option<usize> {
    (from..to).find_map(|line| depth(&lines[line])).filter(|indent| *indent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "admissionConfig:\n  pluginConfig:\n    BuildDefaults:\n      configuration:\n        apiVersion: v1\n        env: []\n        kind: BuildDefaultsConfig\n        resources:\n          limits: {}\n          requests: {}\n";

    #[test]
    fn plugins_are_told() {
        let with =
            |plugin: &str| format!("admissionConfig:\n  pluginConfig:\n    MutatingAdmissionWebhook: {plugin}\n");
        let cases = [
            (SEED.to_owned(), PluginState::Missing),
            ("a: 1\n".to_owned(), PluginState::Missing),
            (
                with("{configuration: {apiVersion: v1, disable: false, kind: DefaultAdmissionConfig}}"),
                PluginState::Enabled,
            ),
            (with("{configuration: {apiVersion: v1, kind: DefaultAdmissionConfig}}"), PluginState::Enabled),
            (
                with("{configuration: {apiVersion: v1, disable: true, kind: DefaultAdmissionConfig}}"),
                PluginState::Disabled,
            ),
            (
                with("{configuration: {apiVersion: v1, disable: 'false', kind: DefaultAdmissionConfig}}"),
                PluginState::Disabled,
            ),
            (with("null"), PluginState::Missing),
            (with("{}"), PluginState::WrongKind { found: "empty".into() }),
            (
                with("{configuration: {apiVersion: v1, disable: false, kind: BuildDefaultsConfig}}"),
                PluginState::WrongKind { found: "v1 BuildDefaultsConfig".into() },
            ),
            (
                with("{configuration: {apiVersion: v2, disable: false, kind: DefaultAdmissionConfig}}"),
                PluginState::WrongKind { found: "v2 DefaultAdmissionConfig".into() },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(check(&text).unwrap().plugins[0].1, expected, "{text}");
        }
        assert!(check("- a\n").is_err() && check("a: [\n").is_err() && check("").is_err());
    }

    #[test]
    fn the_block_is_read_in_both_indentations() {
        let items = "- name: \"docker.io/*\"\n  policy:\n- name: \"mycluster.icp:8500/*\"\n  policy:\n";
        let indented = |by: &str| items.lines().map(|line| format!("{by}{line}\n")).collect::<Vec<_>>().concat();
        let expected =
            json!([{"name": "docker.io/*", "policy": null}, {"name": "mycluster.icp:8500/*", "policy": null}]);
        for text in [
            format!("{SEED}image-security-enforcement:\nclusterImagePolicy:\n{}", indented(" ")),
            format!("{SEED}image-security-enforcement:\nclusterImagePolicy:\n{items}"),
            format!("{SEED}image-security-enforcement:\n  clusterImagePolicy:\n{}", indented("   ")),
            format!("{SEED}image-security-enforcement:\n  clusterImagePolicy:\n{}", indented("  ")),
        ] {
            assert_eq!(check(&text).unwrap().repositories, Some(expected.clone()), "{text}");
        }
        assert_eq!(check(SEED).unwrap().repositories, None);
        for (text, expected) in [
            ("image-security-enforcement:\n", "no clusterImagePolicy"),
            ("image-security-enforcement: {clusterImagePolicy: 5}\n", "not a list"),
            ("image-security-enforcement: {clusterImagePolicy: [{nam: x}]}\n", "clusterImagePolicy[0]"),
            ("image-security-enforcement: {clusterImagePolicy: [{name: 'https://x'}]}\n", "clusterImagePolicy[0]"),
            ("clusterImagePolicy: []\nimage-security-enforcement: {clusterImagePolicy: []}\n", "keep one"),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn enabling_adds_and_touches_nothing_else() {
        let cases = [
            SEED.to_owned(),
            "# a comment\nkind: MasterConfig\n".to_owned(),
            "kind: MasterConfig".to_owned(),
            "admissionConfig:\n  # none yet\n  pluginConfig: {}\nkind: MasterConfig\n".to_owned(),
            "admissionConfig: null\n\n# next\nkind: MasterConfig\n".to_owned(),
            "admissionConfig:\n  pluginOrderOverride: []\nkind: MasterConfig\n".to_owned(),
            "admissionConfig:\n    pluginConfig:\n        BuildDefaults:\n            configuration: {}\n".to_owned(),
            "\"admissionConfig\":\n  'pluginConfig':\n\n    # first\n    BuildDefaults: {}\nx: |\n  pluginConfig:\n    y\n".to_owned(),
            SEED.replace('\n', "\r\n"),
            format!("a: |\n  admissionConfig:\n    pluginConfig:\n{SEED}"),
        ];
        for text in cases {
            let changed = enable(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let report = check(&changed).unwrap();
            assert!(report.plugins.iter().all(|(_, state)| *state == PluginState::Enabled), "{changed}");
            let mut whole = text.clone();
            if !whole.ends_with('\n') {
                whole.push('\n');
            }
            // All that was there is still there, in order; only an empty value may have made way.
            let mut after = changed.split_inclusive('\n');
            for line in whole.split_inclusive('\n').filter(|line| !line.ends_with("{}\n") && !line.ends_with("null\n"))
            {
                assert!(after.any(|new| new == line), "{line:?} is gone or moved:\n{changed}");
            }
            assert_eq!(enable(&changed).unwrap(), changed, "a second time changes nothing");
        }
    }

    #[test]
    fn a_disabled_plugin_is_turned_on() {
        let text = "admissionConfig:\n  pluginConfig:\n    ValidatingAdmissionWebhook:\n      configuration:\n        kind: DefaultAdmissionConfig\n        disable: true # for now\n        apiVersion: v1\n    # about the next\n    BuildDefaults: {}\n";
        let changed = enable(text).unwrap();
        assert!(check(&changed).unwrap().plugins.iter().all(|(_, state)| *state == PluginState::Enabled));
        assert!(changed.ends_with("    # about the next\n    BuildDefaults: {}\n"), "{changed}");
    }

    #[test]
    fn other_forms_are_left_alone() {
        for text in [
            "admissionConfig: {pluginConfig: {BuildDefaults: {}}}\n",
            "admissionConfig:\n  pluginConfig: {BuildDefaults: {}}\n",
            "{admissionConfig: {pluginConfig: {}}}\n",
            "admissionConfig:\n  pluginConfig: &plugins\n    BuildDefaults: {}\n",
        ] {
            let error = enable(text).unwrap_err().to_string();
            assert!(error.contains("MutatingAdmissionWebhook:"), "{text}: {error}");
        }
    }
}
