//! The values of the chart: the schema says what each is, and its default; `values.yaml` and the table in the chart's README are made
//! from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use countersign_tests::{Countersign, Problem};
use serde_json::{Value, json};

use super::root;

/// The table in the README is between these.
const BEGIN: &str = "<!-- The table of values: generated from values.schema.json, CONTRIBUTING.md says how. -->\n";
const END: &str = "<!-- The end of the table. -->\n";

/// How wide a line of a comment may be.
const WIDTH: usize = 118;

/// Settings that stand in the file alone, so that no help lists them.
const FILE_ONLY: [&str; 4] = ["hosts", "insecure-registries", "kinds", "trust-servers"];

/// Flags that are no settings, so that no file may have them.
const FLAGS_ALONE: [&str; 4] = ["config", "help", "quiet", "verbose"];

/// One value of the chart, or several below one name.
struct Knob {
    name: String,
    description: String,
    /// None for several.
    default: Option<Value>,
    below: Vec<Knob>,
}

fn schema() -> Result<Value, Problem> {
    Ok(serde_json::from_str(&fs::read_to_string(root().join("charts/countersign/values.schema.json"))?)?)
}

/// The values of a schema, in its order. Those without a description are known, and not told: they are for other charts.
fn knobs(schema: &Value) -> Result<Vec<Knob>, Problem> {
    let mut found = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(description) = property["description"].as_str() else { continue };
        let default = property.get("default").cloned();
        let below = if default.is_none() { knobs(property)? } else { Vec::new() };
        if default.is_none() && below.is_empty() {
            return Err(format!("values.schema.json: {name} has neither a default nor values below").into());
        }
        found.push(Knob { name: name.clone(), description: description.to_owned(), default, below });
    }
    Ok(found)
}

fn all() -> Result<Vec<Knob>, Problem> {
    knobs(&schema()?)
}

/// A text in lines of a comment.
fn comment(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if indent + 2 + line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let begin = format!("{}# ", " ".repeat(indent));
    format!("{begin}{}\n", lines.join(&format!("\n{begin}")))
}

fn text(knobs: &[Knob], indent: usize) -> Result<String, Problem> {
    let pad = " ".repeat(indent);
    let mut text = String::new();
    for knob in knobs {
        if indent == 0 {
            text.push('\n');
        }
        text.push_str(&comment(&knob.description, indent));
        let name = &knob.name;
        match &knob.default {
            None => text.push_str(&format!("{pad}{name}:\n{}", self::text(&knob.below, indent + 2)?)),
            Some(Value::Object(members)) if !members.is_empty() => {
                let members = serde_saphyr::to_string(members)?;
                text.push_str(&format!("{pad}{name}:\n"));
                for line in members.lines() {
                    text.push_str(&format!("{pad}  {line}\n"));
                }
            }
            Some(Value::String(word)) if !word.is_empty() => text.push_str(&format!("{pad}{name}: {word}\n")),
            Some(value) => text.push_str(&format!("{pad}{name}: {value}\n")),
        }
    }
    Ok(text)
}

/// What `values.yaml` must be.
pub(crate) fn file() -> Result<String, Problem> {
    Ok(format!("# Generated from values.schema.json; CONTRIBUTING.md says how.\n{}", text(&all()?, 0)?))
}

/// Where the schema of the chart has that of repositories, which is made from the definition of the policies.
const REPOSITORIES: &str = "\n    \"repositories\": ";

/// What a schema of Kubernetes says, in the words of JSON Schema. Nothing else than what it knows is taken.
fn strict(schema: &Value) -> Value {
    let mut strict = json!({});
    for (member, value) in schema.as_object().into_iter().flatten() {
        match member.as_str() {
            "type" if schema["nullable"] == true => strict["type"] = json!([value, "null"]),
            "type" | "enum" | "required" | "pattern" | "minLength" | "maxLength" | "minimum" => {
                strict[member] = value.clone();
            }
            "items" | "additionalProperties" => strict[member] = self::strict(value),
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                strict["properties"] = properties.map(|(name, below)| (name.clone(), self::strict(below))).collect();
                strict["additionalProperties"] = json!(false);
            }
            _ => {}
        }
    }
    strict
}

/// What `values.schema.json` must be: in it, repositories are those that the definitions of the policies know.
pub(crate) fn schema_file(definitions: &str) -> Result<String, Problem> {
    let text = fs::read_to_string(root().join("charts/countersign/values.schema.json"))?;
    let (before, rest) = text.split_once(REPOSITORIES).ok_or("values.schema.json has no repositories")?;
    let (_, after) = rest.split_once('\n').ok_or("values.schema.json ends with repositories")?;
    let definition = definitions.split("\n---\n").find(|definition| definition.contains("kind: ClusterImagePolicy\n"));
    let definition: Value = serde_saphyr::from_str(definition.ok_or("there is no definition of ClusterImagePolicy")?)?;
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/repositories";
    let mut repositories = strict(definition.pointer(at).ok_or("ClusterImagePolicy has no repositories")?);
    repositories["type"] = json!(["array", "null"]);
    Ok(format!("{before}{REPOSITORIES}{repositories},\n{after}"))
}

fn rows(knobs: &[Knob], above: &str, table: &mut String) {
    for knob in knobs {
        let name = format!("{above}{}", knob.name);
        match &knob.default {
            None => rows(&knob.below, &format!("{name}."), table),
            Some(default) => {
                let description = knob.description.replace('|', "\\|");
                table.push_str(&format!("| `{name}` | {description} | `{default}` |\n"));
            }
        }
    }
}

/// What the README must be, with the table of values in it.
pub(crate) fn readme(readme: &str) -> Result<String, Problem> {
    let (before, rest) = readme.split_once(BEGIN).ok_or("the README of the chart has no table of values")?;
    let (_, after) = rest.split_once(END).ok_or("the table of values has no end")?;
    let mut table = "\n| value | what it is | default |\n|---|---|---|\n".to_owned();
    rows(&all()?, "", &mut table);
    Ok(format!("{before}{BEGIN}{table}\n{END}{after}"))
}

/// Every value that can be set, by its path, with its default.
pub(crate) fn defaults() -> Result<BTreeMap<String, Value>, Problem> {
    fn collect(knobs: &[Knob], above: &str, found: &mut BTreeMap<String, Value>) {
        for knob in knobs {
            let path = format!("{above}/{}", knob.name);
            match &knob.default {
                None => collect(&knob.below, &path, found),
                Some(default) => {
                    found.insert(path, default.clone());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&all()?, "", &mut found);
    Ok(found)
}

/// The chart knows each setting of the server: others are refused, so a new one must be added to the schema.
#[test]
fn the_schema_has_every_setting_of_serve() -> Result<(), Problem> {
    let help = Countersign::run(&["serve", "--help"])?.stdout;
    let mut settings: BTreeSet<String> = FILE_ONLY.map(ToOwned::to_owned).into();
    for line in help.lines() {
        let line = line.trim_start();
        let flag = line.strip_prefix("--").or_else(|| line.get(4..).and_then(|rest| rest.strip_prefix("--")));
        let name: String =
            flag.into_iter().flat_map(str::chars).take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        if line.starts_with('-') && !name.is_empty() && !FLAGS_ALONE.contains(&name.as_str()) {
            settings.insert(name);
        }
    }
    let schema = schema()?;
    let config = schema["properties"]["config"]["properties"].as_object().ok_or("config has no properties")?;
    let known: BTreeSet<String> = config.keys().cloned().collect();
    assert_eq!(known, settings, "values.schema.json, config: on the left what it knows, on the right what serve has");
    Ok(())
}
