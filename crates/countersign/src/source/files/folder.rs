//! A folder of files, of which only those are parsed again that have changed: to parse ten thousand entries takes a second.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_policy::{Policy, SecretRef};
use serde_json::Value;

use super::{LoadError, Loaded};
use crate::api::{self, PolicyDocument, PolicyFault};
use crate::documents::{self, Document, DocumentError, Names};
use crate::source::SecretData;

/// A folder, or a single file, as it was when it was last looked at.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// In the order of their names; or why they cannot be told.
    files: Result<Vec<File>, DocumentError>,
}

/// A file, and what it says.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// All of it: policies are small.
    bytes: Result<Vec<u8>, DocumentError>,
    pieces: Result<Vec<Piece>, LoadError>,
}

/// What one document says.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it stands.
    pub(super) place: String,
    /// Kind and name.
    pub(super) title: String,
    /// What it says.
    pub(super) content: Content,
}

/// What a document says.
#[derive(Debug)]
pub(super) enum Content {
    /// A policy, and what is read of it but not enforced.
    Policy(Arc<Policy>, Vec<PolicyFault>),
    /// A policy with faults.
    Faults(Vec<PolicyFault>),
    /// A secret.
    Secret(SecretRef, Arc<SecretData>),
    /// A service account, by namespace and name, and its pull secrets.
    Account((String, String), Vec<String>),
}

impl Folder {
    /// Looks at a folder.
    pub(super) fn read(path: &Path) -> Self {
        let mut folder = Self { path: path.to_owned(), files: Ok(Vec::new()) };
        folder.look_again();
        folder
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at it again, and says whether anything is different: all bytes are compared.
    pub(super) fn look_again(&mut self) -> bool {
        let before = std::mem::replace(&mut self.files, Ok(Vec::new())).unwrap_or_default();
        let found = match documents::files(&self.path, Names::Plain) {
            Ok(found) => found,
            Err(error) => {
                self.files = Err(error);
                return true;
            }
        };
        let mut changed = found.len() != before.len();
        let mut before: HashMap<_, _> = before.into_iter().map(|file| (file.path.clone(), file)).collect();
        let file = |path: PathBuf| {
            let bytes = documents::bytes(&path);
            if let Some(same) = before.remove(&path).filter(|file| file.bytes == bytes) {
                return same;
            }
            changed = true;
            let documents = bytes.as_ref().map_err(Clone::clone).and_then(|bytes| documents::of_bytes(&path, bytes));
            let pieces = documents.map_err(LoadError::Document).and_then(|documents| pieces(&documents));
            File { path, bytes, pieces }
        };
        self.files = Ok(found.into_iter().map(file).collect());
        changed
    }

    /// The policies and secrets that it has. What was made of them before is used again where they are the same.
    ///
    /// # Errors
    /// The first file that cannot be read, or all faults of its policies.
    pub(super) fn load(&self, before: &Loaded) -> Result<Loaded, LoadError> {
        let files = self.files.as_ref().map_err(|error| LoadError::Document(error.clone()))?;
        let mut all = Vec::new();
        for file in files {
            all.extend(file.pieces.as_ref().map_err(Clone::clone)?);
        }
        documents::check_count(&self.path, all.len()).map_err(LoadError::Document)?;
        Loaded::of_pieces(all, before)
    }
}

/// What documents say.
///
/// # Errors
/// The first one that has no place among policies, or cannot be read.
pub(super) fn pieces(documents: &[Document]) -> Result<Vec<Piece>, LoadError> {
    documents.iter().map(piece).collect()
}

fn piece(document: &Document) -> Result<Piece, LoadError> {
    let place = document.place.to_string();
    let (title, content) = match (document.text_of("/apiVersion"), document.text_of("/kind")) {
        (_, "ImagePolicy" | "ClusterImagePolicy") => {
            // Says the line of a member that is not known.
            let _: PolicyDocument = document.typed().map_err(LoadError::Document)?;
            let content = match api::check(&document.value) {
                Ok(converted) => Content::Policy(Arc::new(converted.policy), converted.warnings),
                Err(faults) => Content::Faults(faults),
            };
            (api::title(&document.value), content)
        }
        ("v1", "Secret") => {
            let (secret, data) = read_secret(document)?;
            (format!("Secret {}/{}", secret.namespace, secret.name), Content::Secret(secret, Arc::new(data)))
        }
        ("v1", "ServiceAccount") => {
            let key = (namespace_of(document).to_owned(), document.text_of("/metadata/name").to_owned());
            let listed = document.value.get("imagePullSecrets").and_then(Value::as_array);
            let names = listed.into_iter().flatten().filter_map(|secret| secret["name"].as_str());
            let title = format!("ServiceAccount {}/{}", key.0, key.1);
            (title, Content::Account(key, names.map(str::to_owned).collect()))
        }
        (api_version, kind) => {
            let (kind, api_version) = (kind.to_owned(), api_version.to_owned());
            return Err(LoadError::Kind { place, kind, api_version });
        }
    };
    Ok(Piece { place, title, content })
}

/// `data` is base64, `stringData` is not, and wins where both have a key: as in Kubernetes.
fn read_secret(document: &Document) -> Result<(SecretRef, SecretData), LoadError> {
    let name = document.text_of("/metadata/name").to_owned();
    let failed = |problem: String| LoadError::Secret { place: document.place.to_string(), name: name.clone(), problem };
    if name.is_empty() {
        return Err(failed("metadata.name is missing".into()));
    }
    let value_of = |key: &str| -> Result<Option<Vec<u8>>, LoadError> {
        match document.value.pointer(&format!("/stringData/{key}")) {
            Some(Value::String(text)) => return Ok(Some(text.clone().into_bytes())),
            None | Some(Value::Null) => {}
            Some(_) => return Err(failed(format!("stringData.{key} is not a string"))),
        }
        match document.value.pointer(&format!("/data/{key}")) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                let packed: String = text.split_ascii_whitespace().collect();
                let decoded = STANDARD.decode(packed);
                decoded.map(Some).map_err(|_| failed(format!("data.{key} is not base64 (stringData takes plain text)")))
            }
            Some(_) => Err(failed(format!("data.{key} is not a string"))),
        }
    };
    let data = SecretData::read(document.text_of("/type"), value_of)?;
    Ok((SecretRef { namespace: namespace_of(document).to_owned(), name: name.clone() }, data))
}

/// What kubectl would do with a document that names no namespace.
fn namespace_of(document: &Document) -> &str {
    Some(document.text_of("/metadata/namespace")).filter(|text| !text.is_empty()).unwrap_or("default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, entry: &str) -> String {
        format!(
            "apiVersion: {}\nkind: ClusterImagePolicy\nmetadata: {{name: {name}}}\nspec: {{repositories: [{{name: '{entry}'}}]}}\n",
            api::API_VERSION
        )
    }

    /// The policies of a folder by their names, as they are in memory.
    fn policies(folder: &Folder) -> HashMap<String, Arc<Policy>> {
        let pieces = folder.files.as_ref().unwrap().iter().flat_map(|file| file.pieces.as_ref().unwrap());
        let policies = pieces.filter_map(|piece| match &piece.content {
            Content::Policy(policy, _) => Some((policy.name.clone(), Arc::clone(policy))),
            _ => None,
        });
        policies.collect()
    }

    #[test]
    fn only_what_has_changed_is_read_again() {
        let at = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(at.path().join(name), text).unwrap();
        write("a.yaml", &policy("a", "h.io/*"));
        write("b.yaml", &policy("b", "g.io/*"));
        let mut folder = Folder::read(at.path());
        let loaded = folder.load(&Loaded::default()).unwrap();
        let first = policies(&folder);
        assert!(!folder.look_again());
        assert!(Arc::ptr_eq(&first["a"], &policies(&folder)["a"]));
        // One is changed, one is new.
        write("b.yaml", &policy("b", "g.io/x"));
        write("c.yaml", &policy("c", "f.io/x"));
        assert!(folder.look_again());
        let second = policies(&folder);
        assert!(Arc::ptr_eq(&first["a"], &second["a"]) && !Arc::ptr_eq(&first["b"], &second["b"]));
        let names = |loaded: &Loaded| {
            let entries = loaded.policies.policies().flat_map(|policy| &policy.entries);
            let mut names: Vec<_> = entries.map(|entry| entry.pattern.written().to_owned()).collect();
            names.sort();
            names
        };
        let loaded = folder.load(&loaded).unwrap();
        assert_eq!(names(&loaded), ["f.io/x", "g.io/x", "h.io/*"]);
        // One that cannot be read makes all of them unusable, until it can be.
        write("b.yaml", "kind: {");
        assert!(folder.look_again() && !folder.look_again());
        assert!(matches!(folder.load(&loaded), Err(LoadError::Document(_))));
        write("b.yaml", &policy("a", "g.io/x"));
        assert!(folder.look_again());
        assert!(matches!(folder.load(&loaded), Err(LoadError::Twice { .. })));
        std::fs::remove_file(at.path().join("b.yaml")).unwrap();
        assert!(folder.look_again());
        assert_eq!(names(&folder.load(&loaded).unwrap()), ["f.io/x", "h.io/*"]);
        drop(at);
        assert!(folder.look_again());
        assert!(matches!(folder.load(&loaded), Err(LoadError::Document(_))));
    }
}
