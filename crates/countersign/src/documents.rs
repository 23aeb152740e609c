//! Kubernetes documents in YAML and JSON files: several in one file, in Lists, in folders, or on standard input.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// The largest file that is read. Manifests of some megabytes occur (custom resource definitions).
const MAX_FILE_BYTES: u64 = 32 << 20;

/// How many documents are read in all.
const MAX_DOCUMENTS: usize = 100_000;

/// How deep Lists may nest in Lists.
const MAX_LIST_DEPTH: usize = 8;

/// Why files cannot be read as documents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The path.
        path: String,
        /// The system's reason.
        cause: String,
    },
    /// A document is not YAML, or not of the shape that its kind has.
    #[error("{place}: {problem}")]
    Malformed {
        /// File, and line where known.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Too much to read.
    #[error("{path} is too large: {limit}")]
    TooLarge {
        /// The path.
        path: String,
        /// What the bound is.
        limit: String,
    },
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, or `standard input`.
    pub file: String,
    /// The line on which the document begins, from 1.
    pub line: usize,
    /// Which item of a List it is, from 0.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        self.item.map_or(Ok(()), |item| write!(f, " (item {item} of the List)"))
    }
}

/// One object.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it stands.
    pub place: Place,
    /// The object.
    pub value: Value,
    /// The document's text behind as many empty lines as come before it, so that a reader's line numbers are the file's.
    /// `None` for an item of a List.
    text: Option<String>,
}

impl Document {
    /// A member of the object that is text, or nothing.
    #[must_use]
    pub fn text_of(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Reads the object as a type that knows all its members.
    ///
    /// # Errors
    /// What does not fit, with file and line.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        match &self.text {
            Some(text) => serde_saphyr::from_str(text).map_err(|error| malformed(&self.place, &error)),
            None => serde_json::from_value(self.value.clone()).map_err(|error| DocumentError::Malformed {
                place: self.place.to_string(),
                problem: error.to_string(),
            }),
        }
    }
}

fn malformed(place: &Place, error: &serde_saphyr::Error) -> DocumentError {
    let error = error.without_snippet();
    let line = error.location().map_or(place.line, |location| usize::try_from(location.line()).unwrap_or(place.line));
    let text = error.to_string();
    // The reader puts its own position in front or behind; file and line are said once, in front.
    let problem = text.lines().next().unwrap_or_default();
    let problem = problem.split(" at line ").next().unwrap_or(problem);
    let problem = problem.strip_prefix("error: ").unwrap_or(problem);
    let item = Place { line, ..place.clone() };
    DocumentError::Malformed { place: item.to_string(), problem: problem.to_owned() }
}

/// Reads all documents of one text. `file` is its name in messages. Items of Lists come one by one; empty documents are
/// left out.
///
/// # Errors
/// The first document that cannot be read.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    for (line, part) in split(text) {
        let padded = "\n".repeat(line - 1) + &part;
        let place = Place { file: file.to_owned(), line, item: None };
        let value: Value = serde_saphyr::from_str(&padded).map_err(|error| malformed(&place, &error))?;
        match value {
            Value::Null => {}
            Value::Object(_) => push_flat(&mut documents, place, value, Some(padded), 0)?,
            _ => {
                let problem = "a document must be an object with apiVersion and kind".to_owned();
                return Err(DocumentError::Malformed { place: place.to_string(), problem });
            }
        }
        if documents.len() > MAX_DOCUMENTS {
            let limit = format!("more than {MAX_DOCUMENTS} documents");
            return Err(DocumentError::TooLarge { path: file.to_owned(), limit });
        }
    }
    Ok(documents)
}

fn push_flat(
    documents: &mut Vec<Document>,
    place: Place,
    value: Value,
    text: Option<String>,
    depth: usize,
) -> Result<(), DocumentError> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let Some(item_kind) = kind.strip_suffix("List").filter(|_| value.get("items").is_some()) else {
        check_names(&place, &value)?;
        documents.push(Document { place, value, text });
        return Ok(());
    };
    let malformed = |problem: &str| DocumentError::Malformed { place: place.to_string(), problem: problem.to_owned() };
    let items = match value.get("items") {
        Some(Value::Array(items)) if depth < MAX_LIST_DEPTH => items,
        Some(Value::Array(_)) => return Err(malformed("Lists are nested too deep")),
        _ => return Err(malformed("the items of a List must be a list")),
    };
    for (index, item) in items.iter().enumerate() {
        let mut item = item.clone();
        let Some(members) = item.as_object_mut() else {
            return Err(malformed("an item of a List must be an object"));
        };
        // The items of a PodList say of themselves neither that they are Pods, nor of which version.
        if !item_kind.is_empty() && !members.contains_key("kind") {
            members.insert("kind".into(), item_kind.into());
            members.insert("apiVersion".into(), value.get("apiVersion").cloned().unwrap_or_default());
        }
        push_flat(documents, Place { item: Some(index), ..place.clone() }, item, None, depth + 1)?;
    }
    Ok(())
}

/// YAML 1.1, which Kubernetes reads, takes `n`, `on` and `123` for something other than text: an object must not end up
/// under another name, or in another namespace, for that.
fn check_names(place: &Place, value: &Value) -> Result<(), DocumentError> {
    for pointer in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"] {
        if value.pointer(pointer).is_some_and(|found| !found.is_string() && !found.is_null()) {
            let member = pointer[1..].replace('/', ".");
            let problem = format!("{member} is not text; put quotes around it");
            return Err(DocumentError::Malformed { place: place.to_string(), problem });
        }
    }
    Ok(())
}

/// Cuts a text at the lines that begin or end a YAML document. In YAML such a line is never part of a value
/// (YAML 1.2.2 §9.1.2), so this needs no parser. Each part comes with the number of its first line.
pub(crate) fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut start = 1;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marks = |mark: &str| {
            line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        if marks("---") || marks("...") {
            parts.push((start, std::mem::take(&mut part)));
            start = index + 1;
            // `--- {a: 1}`: what follows the mark belongs to the document.
            let rest = &line[3..];
            part.push_str("   ");
            part.push_str(rest);
        } else {
            part.push_str(line);
        }
    }
    parts.push((start, part));
    parts.retain(|(_, part)| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#') && !line.starts_with('%'))
    });
    parts
}

/// Reads a file (`-` is standard input), or every `.yaml`, `.yml` and `.json` file of a folder and its subfolders, in the order
/// of their names.
///
/// # Errors
/// The first file or document that cannot be read.
pub fn read(path: &Path) -> Result<Vec<Document>, DocumentError> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut text);
        read.map_err(|error| unreadable(Path::new("standard input"), &error))?;
        return parse("standard input", &text);
    }
    let mut documents = Vec::new();
    for file in files(path)? {
        let size = fs::metadata(&file).map_err(|error| unreadable(&file, &error))?.len();
        let name = file.display().to_string();
        if size > MAX_FILE_BYTES {
            return Err(DocumentError::TooLarge {
                path: name,
                limit: format!("more than {} MiB", MAX_FILE_BYTES >> 20),
            });
        }
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        documents.extend(parse(&name, text.strip_prefix('\u{feff}').unwrap_or(&text))?);
    }
    Ok(documents)
}

fn unreadable(path: &Path, error: &std::io::Error) -> DocumentError {
    DocumentError::Unreadable { path: path.display().to_string(), cause: error.to_string() }
}

/// The files that [`read`] reads for a path. Names that begin with a dot are passed over: editors leave such files, and a
/// mounted `ConfigMap` keeps its real files in `..data`.
///
/// # Errors
/// A folder that cannot be listed.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, DocumentError> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<_> = fs::read_dir(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let child = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let wanted = child.extension().is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json");
        if fs::metadata(&child).map_err(|error| unreadable(&child, &error))?.is_dir() {
            found.extend(files(&child)?);
        } else if wanted {
            found.push(child);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_lists_and_comments() {
        let text = "# a comment\n---\na: 1\n---\n# nothing\n--- {a: 2}\n...\nkind: PodList\nitems:\n- a: 3\n- a: 4\n";
        let found: Vec<_> = parse("f.yaml", text)
            .unwrap()
            .into_iter()
            .map(|document| (document.place.to_string(), document.value["a"].as_i64().unwrap()))
            .collect();
        let expected = [
            ("f.yaml:2", 1),
            ("f.yaml:6", 2),
            ("f.yaml:7 (item 0 of the List)", 3),
            ("f.yaml:7 (item 1 of the List)", 4),
        ];
        assert_eq!(found, expected.map(|(place, a)| (place.to_owned(), a)));
    }

    #[test]
    fn a_key_in_a_block_scalar_is_no_mark() {
        let text = "stringData:\n  key: |\n    -----BEGIN PUBLIC KEY-----\n    abc\n    -----END PUBLIC KEY-----\n";
        assert_eq!(parse("f", text).unwrap().len(), 1);
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[expect(dead_code, reason = "only its name matters")]
        a: i64,
    }

    #[test]
    fn errors_name_file_and_line() {
        let documents = parse("f.yaml", "a: 1\n---\na: 1\nb: 2\n").unwrap();
        assert!(documents[0].typed::<Strict>().is_ok());
        let error = documents[1].typed::<Strict>().unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:4: ") && error.contains('b'), "{error}");
        let error = parse("f.yaml", "---\na: 1\n---\na: [\n").unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:"), "{error}");
        let error = parse("f.yaml", "a: 1\na: 2\n").unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:2"), "{error}");
        assert!(parse("f.yaml", "- 1\n").unwrap_err().to_string().starts_with("f.yaml:1: "));
    }
}
