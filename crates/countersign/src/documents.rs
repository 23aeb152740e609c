//! Kubernetes documents in YAML and JSON files: several in one file, in Lists, in folders, or on standard input.

mod edit;

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_image::shown;
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
    part: Arc<Part>,
    /// Where it stands in its part, as a JSON pointer; empty unless it is an item of a List.
    pointer: String,
}

/// One YAML document of a text.
#[derive(Debug)]
struct Part {
    /// It, with as many bytes as it has in the text.
    content: String,
    /// At which byte of the text it begins.
    start: usize,
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
        match self.pointer.as_str() {
            "" => serde_saphyr::from_str(&self.part.content).map_err(|error| malformed(&self.place, &error)),
            _ => serde_json::from_value(self.value.clone()).map_err(|error| DocumentError::Malformed {
                place: self.place.to_string(),
                problem: error.to_string(),
            }),
        }
    }
}

fn malformed(place: &Place, error: &serde_saphyr::Error) -> DocumentError {
    let error = error.without_snippet();
    // The reader counts from the document's first line.
    let below = error.location().map_or(0, |location| usize::try_from(location.line()).unwrap_or(1).saturating_sub(1));
    let line = place.line + below;
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
    only_plain_breaks(file, text)?;
    only_plain_marks(file, text)?;
    let mut documents = Vec::new();
    for (line, start, content) in split(text) {
        let place = Place { file: file.to_owned(), line, item: None };
        let value: Value = serde_saphyr::from_str(&content).map_err(|error| malformed(&place, &error))?;
        match value {
            Value::Null => {}
            Value::Object(_) => {
                no_merge_keys(&place, &value)?;
                let part = Arc::new(Part { content, start });
                push_flat(&mut documents, Document { place, value, part, pointer: String::new() }, 0)?;
            }
            _ => {
                let problem = "a document must be an object with apiVersion and kind".to_owned();
                return Err(DocumentError::Malformed { place: place.to_string(), problem });
            }
        }
        if documents.len() > MAX_DOCUMENTS {
            let limit = format!("more than {MAX_DOCUMENTS} documents; give fewer at once");
            return Err(DocumentError::TooLarge { path: file.to_owned(), limit });
        }
    }
    Ok(documents)
}

fn push_flat(documents: &mut Vec<Document>, document: Document, depth: usize) -> Result<(), DocumentError> {
    let Document { place, value, part, pointer } = &document;
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let malformed = |problem: &str| DocumentError::Malformed { place: place.to_string(), problem: problem.to_owned() };
    let mut listed = value.as_object().into_iter().flatten().filter(|(name, items)| is_items(name) && !items.is_null());
    let (Some((member, items)), second) = (listed.next(), listed.next()) else {
        check_names(place, value)?;
        documents.push(document);
        return Ok(());
    };
    if second.is_some() {
        return Err(malformed("items stands there twice, in different case"));
    }
    let item_kind = kind.strip_suffix("List").unwrap_or_default();
    let items = match items {
        Value::Array(items) if depth < MAX_LIST_DEPTH => items,
        Value::Array(_) => return Err(malformed("Lists are nested more than 8 deep; take the inner ones out")),
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
        let item = Document {
            place: Place { item: Some(index), ..place.clone() },
            value: item,
            part: Arc::clone(part),
            pointer: format!("{pointer}/{member}/{index}"),
        };
        push_flat(documents, item, depth + 1)?;
    }
    Ok(())
}

/// Fails at a line break that some readers of YAML know and others do not: what one takes for the end of a comment, and so for the
/// beginning of an object, would be part of the comment to the other.
fn only_plain_breaks(file: &str, text: &str) -> Result<(), DocumentError> {
    let odd = |(at, character): &(usize, char)| match character {
        '\r' => !text[at + 1..].starts_with('\n'),
        '\u{85}' | '\u{2028}' | '\u{2029}' => true,
        _ => false,
    };
    let Some((at, character)) = text.char_indices().find(odd) else {
        return Ok(());
    };
    let line = text[..at].matches('\n').count() + 1;
    let problem = format!(
        "has the line break {}, which not all readers of YAML take for one; use line feeds",
        character.escape_unicode()
    );
    Err(DocumentError::Malformed { place: format!("{file}:{line}"), problem })
}

/// Fails at a line that some versions of kubectl take for the end of a document, and YAML does not: `---` with a comment or odd white
/// space right behind it. What comes after would be an object to them, and part of the one before to this reader.
fn only_plain_marks(file: &str, text: &str) -> Result<(), DocumentError> {
    let disputed = |line: &str| {
        line.strip_prefix("---").is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with([' ', '\t', '\r'])
                && (rest.trim().is_empty() || rest.trim_start().starts_with('#'))
        })
    };
    match text.split('\n').position(disputed) {
        None => Ok(()),
        Some(index) => {
            let problem = "begins with --- and something that not all readers take for the end of a document; put a space behind the ---";
            Err(DocumentError::Malformed { place: format!("{file}:{}", index + 1), problem: problem.to_owned() })
        }
    }
}

/// Fails at a merge key (`<<`): kubectl would merge what this reader leaves where it is.
fn no_merge_keys(place: &Place, value: &Value) -> Result<(), DocumentError> {
    match value {
        Value::Object(members) if members.contains_key("<<") => {
            let problem = "merge keys (<<) are not read; write the members out".to_owned();
            Err(DocumentError::Malformed { place: place.to_string(), problem })
        }
        Value::Object(members) => members.values().try_for_each(|member| no_merge_keys(place, member)),
        Value::Array(items) => items.iter().try_for_each(|item| no_merge_keys(place, item)),
        _ => Ok(()),
    }
}

/// Whether a member of an object makes a List of it. To kubectl any object with `items` is one, whatever its kind says, and Go reads
/// members without regard to case; it takes `ſ` for `s` as well.
fn is_items(member: &str) -> bool {
    member.replace('\u{17f}', "s").eq_ignore_ascii_case("items")
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
/// (YAML 1.2.2 §9.1.2), so this needs no parser. Each part comes with the number of its first line, and of its
/// first byte; it has as many bytes as in the text.
fn split(text: &str) -> Vec<(usize, usize, String)> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut start = (1, 0);
    let mut at = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marks = |mark: &str| {
            line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        if marks("---") || marks("...") {
            parts.push((start.0, start.1, std::mem::take(&mut part)));
            start = (index + 1, at);
            // `--- {a: 1}`: what follows the mark belongs to the document.
            let rest = &line[3..];
            part.push_str("   ");
            part.push_str(rest);
        } else {
            part.push_str(line);
        }
        at += line.len();
    }
    parts.push((start.0, start.1, part));
    parts.retain(|(.., part)| {
        part.lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#') && !line.starts_with('%'))
    });
    parts
}

/// Which files of a folder are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Those whose names do not begin with a dot: editors leave such files, and a mounted `ConfigMap` keeps its real files in `..data`.
    Plain,
    /// All of them, as kubectl reads them.
    All,
}

/// A text that was read, with its documents.
#[derive(Debug)]
pub(crate) struct Text {
    /// The file, or `standard input`.
    file: String,
    /// All of it, but for a byte order mark in front.
    all: String,
    /// Whether there is one.
    marked: bool,
    /// Its documents.
    pub(crate) documents: Vec<Document>,
}

impl Text {
    fn read(file: String, from: impl std::io::Read) -> Result<Self, DocumentError> {
        let text = read_text(Path::new(&file), from)?;
        let (text, marked) = match text.strip_prefix('\u{feff}') {
            Some(rest) => (rest.to_owned(), true),
            None => (text, false),
        };
        let documents = parse(&file, &text)?;
        Ok(Self { file, all: text, marked, documents })
    }

    /// The text with others in place of some: for each document its pointers and texts. Every other byte is as it was read.
    ///
    /// # Errors
    /// A text that is not written where the document has it, or that is the value of something else too, through an alias.
    pub(crate) fn replaced<'a>(&'a self, changes: &[Vec<(String, String)>]) -> Result<String, DocumentError> {
        let failed = |place: &Place, problem: String| DocumentError::Malformed { place: place.to_string(), problem };
        let mut places = Vec::new();
        let mut left = self.documents.iter().zip(changes).peekable();
        // The items of a List stand in one part, which is gone through once.
        while let Some((first, changes)) = left.next() {
            let mut edits: Vec<(edit::Edit, &Place)> = Vec::new();
            let mut add = |document: &'a Document, changes: &[(String, String)]| {
                edits.extend(changes.iter().map(|(pointer, text)| {
                    let pointer = format!("{}{pointer}", document.pointer);
                    (edit::Edit { pointer, text: text.clone() }, &document.place)
                }));
            };
            add(first, changes);
            while let Some((document, changes)) = left.next_if(|(next, _)| Arc::ptr_eq(&next.part, &first.part)) {
                add(document, changes);
            }
            if edits.is_empty() {
                continue;
            }
            let (edits, of): (Vec<_>, Vec<_>) = edits.into_iter().unzip();
            let found = edit::places(&first.part.content, &edits).map_err(|index| {
                let problem =
                    format!("{} is not written there, but behind an alias (*); write it out", edits[index].pointer);
                failed(of[index], problem)
            })?;
            let start = first.part.start;
            places.extend(found.into_iter().map(|(range, text)| (range.start + start..range.end + start, text)));
        }
        places.sort_by_key(|(range, _)| range.start);
        let (mut text, mut at) = (String::with_capacity(self.all.len()), 0);
        for (range, new) in places {
            text.push_str(self.all.get(at..range.start).unwrap_or_default());
            text.push_str(&new);
            at = range.end;
        }
        text.push_str(self.all.get(at..).unwrap_or_default());
        // What was not meant to change has not.
        let after = parse(&self.file, &text)?;
        for (index, (document, changes)) in self.documents.iter().zip(changes).enumerate() {
            let mut expected = document.value.clone();
            for (pointer, text) in changes {
                if let Some(found) = expected.pointer_mut(pointer) {
                    *found = Value::String(text.clone());
                }
            }
            if after.get(index).map(|after| &after.value) != Some(&expected) {
                let problem = "an image is written once for several places (&name, *name), so it cannot be changed for one alone; write it out";
                return Err(failed(&document.place, problem.to_owned()));
            }
        }
        Ok(if self.marked { format!("\u{feff}{text}") } else { text })
    }
}

/// Several texts as one stream of documents.
#[must_use]
pub(crate) fn joined(texts: Vec<String>) -> String {
    let mark = |text: &str| {
        text.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    // kubectl takes what begins with a brace for JSON alone, and stops at a mark.
    let several = texts.len() > 1 && texts[0].trim_start().starts_with('{');
    let mut all = if several { "---\n".to_owned() } else { String::new() };
    for (index, text) in texts.into_iter().enumerate() {
        if index > 0 {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            if text.starts_with('%') {
                all.push_str("...\n");
            } else if !mark(&text) {
                all.push_str("---\n");
            }
        }
        all.push_str(&text);
    }
    all
}

/// Reads a file (`-` is standard input), or every `.yaml`, `.yml` and `.json` file of a folder and its subfolders, in the order
/// of their names.
///
/// # Errors
/// The first file or document that cannot be read, or is larger than what is read: nothing is ever cut.
pub(crate) fn read(path: &Path, names: Names) -> Result<Vec<Document>, DocumentError> {
    Ok(read_texts(path, names)?.into_iter().flat_map(|text| text.documents).collect())
}

/// The same, with the texts that the documents stand in.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_texts(path: &Path, names: Names) -> Result<Vec<Text>, DocumentError> {
    if path.as_os_str() == "-" {
        return Ok(vec![Text::read("standard input".to_owned(), std::io::stdin().lock())?]);
    }
    let (mut texts, mut documents) = (Vec::new(), 0);
    for file in files(path, names)? {
        let opened = fs::File::open(&file).map_err(|error| unreadable(&file, &error))?;
        let text = Text::read(shown(&file.display().to_string()), opened)?;
        documents += text.documents.len();
        check_count(path, documents)?;
        texts.push(text);
    }
    Ok(texts)
}

/// Whether so many documents are read of a path.
///
/// # Errors
/// They are too many.
pub(crate) fn check_count(path: &Path, documents: usize) -> Result<(), DocumentError> {
    if documents <= MAX_DOCUMENTS {
        return Ok(());
    }
    let limit = format!("more than {MAX_DOCUMENTS} documents; give fewer at once");
    Err(DocumentError::TooLarge { path: path.display().to_string(), limit })
}

/// All bytes of a file.
///
/// # Errors
/// It cannot be read, or is larger than what is read.
pub(crate) fn bytes(file: &Path) -> Result<Vec<u8>, DocumentError> {
    let opened = fs::File::open(file).map_err(|error| unreadable(file, &error))?;
    read_bytes(file, opened)
}

/// The documents of a file with these bytes.
///
/// # Errors
/// The first document that cannot be read.
pub(crate) fn of_bytes(file: &Path, bytes: &[u8]) -> Result<Vec<Document>, DocumentError> {
    Ok(Text::read(shown(&file.display().to_string()), bytes)?.documents)
}

/// All of a text, or an error.
fn read_text(path: &Path, from: impl std::io::Read) -> Result<String, DocumentError> {
    String::from_utf8(read_bytes(path, from)?).map_err(|error| DocumentError::Unreadable {
        path: path.display().to_string(),
        cause: format!("it is not UTF-8: {}", error.utf8_error()),
    })
}

fn read_bytes(path: &Path, from: impl std::io::Read) -> Result<Vec<u8>, DocumentError> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = format!("more than {} MiB; split it into several files", MAX_FILE_BYTES >> 20);
        return Err(DocumentError::TooLarge { path: path.display().to_string(), limit });
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> DocumentError {
    DocumentError::Unreadable { path: shown(&path.display().to_string()), cause: error.to_string() }
}

/// The files that [`read`] reads for a path.
///
/// # Errors
/// A folder that cannot be listed.
pub(crate) fn files(path: &Path, names: Names) -> Result<Vec<PathBuf>, DocumentError> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<_> = fs::read_dir(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let child = entry.path();
        if names == Names::Plain && entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // By the end of the name, as kubectl does: a file may be called `.yaml`.
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let wanted = [&b".yaml"[..], b".yml", b".json"].iter().any(|ending| name.ends_with(ending));
        if fs::metadata(&child).map_err(|error| unreadable(&child, &error))?.is_dir() {
            found.extend(files(&child, names)?);
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

    /// What is held is the text, however many documents it has and wherever they stand.
    #[test]
    fn many_documents_take_what_they_say() {
        let text = "\n".repeat(100_000) + &"---\na: 1\n".repeat(2000);
        let found = parse("f.yaml", &text).unwrap();
        assert_eq!((found.len(), found[1999].place.to_string().as_str()), (2000, "f.yaml:103999"));
        let held: usize = found.iter().map(|document| document.part.content.len()).sum();
        assert!(held <= text.len(), "{held}");
        let error = parse("f.yaml", &(text + "---\nb: 1\nb: 2\n")).unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:104003: "), "{error}");
    }

    /// The items of a List are found in one pass: with one for each this would take hours.
    #[test]
    fn a_long_list_is_edited_at_once() {
        let item = "- kind: Pod\n  spec: {containers: [{name: a, image: app:v1}], m: 0400}\n";
        let text = format!("kind: List\napiVersion: v1\nitems:\n{}", item.repeat(10_000));
        let read = Text::read("f.yaml".to_owned(), text.as_bytes()).unwrap();
        assert_eq!(read.documents.len(), 10_000);
        let pin = vec![("/spec/containers/0/image".to_owned(), "app:v1@sha256:ab".to_owned())];
        let changes: Vec<_> = (0..10_000).map(|index| if index % 2 == 0 { pin.clone() } else { Vec::new() }).collect();
        let pair = item.replace("app:v1", "app:v1@sha256:ab") + item;
        let expected = format!("kind: List\napiVersion: v1\nitems:\n{}", pair.repeat(5_000));
        assert!(read.replaced(&changes).unwrap() == expected);
    }

    /// Each text stays what it is to whoever reads the stream.
    #[test]
    fn texts_are_joined_for_every_reader() {
        let join = |texts: &[&str]| joined(texts.iter().map(|text| (*text).to_owned()).collect());
        for (texts, expected) in [
            (&["{\"a\":1}"][..], "{\"a\":1}"),
            (&["a: 1\n", "b: 2"], "a: 1\n---\nb: 2"),
            (&["a: 1", "--- # x\nb: 2\n", "---\nc: 3\n", "---"], "a: 1\n--- # x\nb: 2\n---\nc: 3\n---"),
            (&["{\"a\":1}", "{\"b\":2}"], "---\n{\"a\":1}\n---\n{\"b\":2}"),
            (&["a: 1\n", "---x: 1\n"], "a: 1\n---\n---x: 1\n"),
            (&["a: 1\n", "%YAML 1.1\n---\nb: 1\n"], "a: 1\n...\n%YAML 1.1\n---\nb: 1\n"),
        ] {
            assert_eq!(join(texts), expected, "{texts:?}");
        }
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

    /// To kubectl whatever has items is a List, so what is in them is read here too.
    #[test]
    fn items_make_a_list_of_any_kind() {
        for (member, kind) in [("items", "ConfigMap"), ("Items", "List"), ("item\u{17f}", "X")] {
            let text = format!("kind: {kind}\n{member}:\n- kind: Pod\n  metadata: {{name: p}}\n");
            let found = parse("f.yaml", &text).unwrap();
            assert_eq!((found.len(), found[0].text_of("/kind")), (1, "Pod"), "{text}");
        }
        for text in ["kind: List\nitems: {}\n", "kind: List\nitems: []\nItems: []\n", "kind: List\nitems: [1]\n"] {
            assert!(parse("f.yaml", text).is_err(), "{text}");
        }
        assert!(parse("f.yaml", "kind: PodList\nitems:\n").is_ok());
    }

    /// What another reader would take for an object is never passed over.
    #[test]
    fn what_readers_do_not_agree_on_is_refused() {
        for text in
            ["# c\rkind: Pod\n", "# c\u{85}kind: Pod\n", "a: 1\n# c\u{2028}kind: Pod\n", "a: &x {b: 1}\nc:\n  <<: *x\n"]
        {
            let read = parse("f.yaml", text);
            // A reader that merges has nothing left to refuse.
            let merged = read.as_ref().is_ok_and(|documents| documents[0].value["c"]["b"] == 1);
            assert!(read.is_err() || merged, "{text:?}");
        }
        assert!(parse("f.yaml", "a: 1\r\nb: 2\r\n").is_ok());
        for mark in ["---#: |", "---\u{a0}#: |", "---\u{a0}", "---#"] {
            let error = parse("f.yaml", &format!("a: 1\n{mark}\n  kind: Pod\n")).unwrap_err().to_string();
            assert!(error.starts_with("f.yaml:2: begins with ---"), "{error}");
        }
        assert_eq!(parse("f.yaml", "a: 1\n--- # a comment\nb: 2\n---\t\nc: 3\n---\r\nd: 4\n").unwrap().len(), 4);
    }

    #[test]
    fn duplicate_members_are_refused() {
        for text in ["kind: Pod\nkind: ConfigMap\n", "{\"kind\": \"Pod\", \"kind\": \"ConfigMap\"}"] {
            assert!(parse("f.yaml", text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_cut() {
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        let read = |text: &str| read_text(Path::new("x"), text.as_bytes()).map(|text| text.len());
        assert_eq!(read(&" ".repeat(limit)), Ok(limit));
        let error = read(&" ".repeat(limit + 1)).unwrap_err().to_string();
        assert!(error.contains("x is too large: more than 32 MiB"), "{error}");
        // The limit falls into the middle of a character.
        let mut text = " ".repeat(limit);
        text.push('\u{20ac}');
        assert!(matches!(read(&text), Err(DocumentError::TooLarge { .. })));
    }

    #[test]
    fn hidden_files_are_read_where_kubectl_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".hidden.yaml", ".yaml"] {
            fs::write(folder.path().join(name), "kind: Pod\n").unwrap();
        }
        assert_eq!(files(folder.path(), Names::All).unwrap().len(), 2);
        assert_eq!(files(folder.path(), Names::Plain).unwrap().len(), 0);
    }
}
