//! The next policies to write: `anyOf` where an entry asks for Docker Content Trust alone, and cosign alone where all is ready for it.

use anyhow::{Context as _, bail};
use countersign_image::shown;
use countersign_policy::PolicyKind;
use serde_json::{Map, Value, json};

use super::state::{EntryAt, Looked};
use super::yaml;
use crate::api;
use crate::documents;

const HEAD: &str = "# Written by countersign bridge -o policy. What it changes has a comment that says why; all else is as it was.\n# Look it through, run countersign lint on it (together with the signer secrets), and put it in place of the policies of the same names.\n";

/// How long the lines of comments are.
const WIDTH: usize = 110;

/// Where the keys of signers with cosign come from.
pub(super) struct Signers<'a> {
    /// Keys of the command line, in PEM, under their names; none: secrets are named instead.
    pub(super) keys: &'a [(String, String)],
    /// The namespace of the secrets of cluster policies.
    pub(super) secrets_namespace: &'a str,
}

/// The documents, one for each policy.
///
/// # Errors
/// A policy with a fault, or one that would not be what it should.
pub(super) fn policies(documents: &[Value], images: &[Looked], signers: &Signers<'_>) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for document in documents {
        text.push_str("---\n");
        text.push_str(&policy(document, images, signers).with_context(|| api::title(document))?);
    }
    Ok(text)
}

fn policy(document: &Value, images: &[Looked], signers: &Signers<'_>) -> anyhow::Result<String> {
    let checked = api::check(document);
    let faults = |faults: Vec<api::PolicyFault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let policy = match checked {
        Ok(checked) => checked.policy,
        Err(found) => bail!("{}; correct that first", faults(found)),
    };
    let at = |index| EntryAt { kind: policy.kind.clone(), policy: policy.name.clone(), index };
    let scope = Scope {
        namespace: policy.kind.namespace().unwrap_or(signers.secrets_namespace),
        policy: &policy.name,
        keys: signers.keys,
    };
    let entries = document["spec"]["repositories"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut next = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = at(index);
        let looked: Vec<_> =
            images.iter().filter(|image| image.entry.as_ref().is_some_and(|(of, _)| *of == at)).collect();
        next.push(self::entry(entry, &looked, &scope));
    }
    let mut whole = document.clone();
    if let Some(members) = whole.as_object_mut() {
        members.shift_remove("status");
        members.shift_remove("spec");
    }
    let mut text = yaml::lines(&whole).join("\n") + "\nspec:\n  repositories:\n";
    for Next { entry, why } in &next {
        for line in why.iter().flat_map(|line| wrapped(&shown(line))) {
            text.push_str(&format!("    # {line}\n"));
        }
        for line in yaml::item(entry) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    whole["spec"] = json!({"repositories": next.iter().map(|next| next.entry.clone()).collect::<Vec<_>>()});
    // What is read of the text must be what was meant, and sound.
    let read = documents::parse("the policy that was written", &text)?;
    if read.len() != 1 || read.first().is_none_or(|read| read.value != whole) {
        bail!("the policy that was written is not read back as it was meant; this is a fault of Countersign");
    }
    if let Err(found) = api::check(&whole) {
        bail!("the next policy would have faults: {}", faults(found));
    }
    Ok(text)
}

/// A sentence in lines that are not too long. A command, which is indented, stays whole.
fn wrapped(text: &str) -> Vec<String> {
    if text.starts_with(' ') {
        return vec![text.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.len() + word.len() < WIDTH) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What is the same for all entries of a policy.
struct Scope<'a> {
    /// Where its secrets are.
    namespace: &'a str,
    /// Its name.
    policy: &'a str,
    /// Keys in PEM, under their names.
    keys: &'a [(String, String)],
}

/// An entry as it is to be, and why.
struct Next {
    entry: Value,
    why: Vec<String>,
}

/// What is to become of an entry.
fn entry(entry: &Value, images: &[&Looked], scope: &Scope<'_>) -> Next {
    let stays = |why: Vec<String>| Next { entry: entry.clone(), why };
    let policy = &entry["policy"];
    let trusts = |whole: &Value| whole["trust"]["enabled"] == true;
    let has = |whole: &Value, member: &str| !whole[member].is_null();
    let alternatives = policy["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let any_trusts = trusts(policy) || alternatives.iter().any(trusts);
    if !any_trusts {
        // Nothing is asked, or nothing of Docker Content Trust: no step is left.
        return stays(Vec::new());
    }
    if images.is_empty() {
        return stays(vec!["as it was: no image was looked at to which this entry applies".to_owned()]);
    }
    let ready = images.iter().filter(|image| image.ready()).count();
    let count = images.len();
    if trusts(policy) && alternatives.is_empty() && !has(policy, "cosign") {
        return either(
            entry,
            scope,
            &format!("{ready} of the {count} images that were looked at are ready for cosign alone"),
        );
    }
    if trusts(policy) {
        return stays(vec![
            "as it was: trust is needed here in any case; take it out by hand, when all images are signed with cosign, before its server goes away".to_owned(),
        ]);
    }
    let alone: Vec<_> =
        alternatives.iter().filter(|alternative| has(alternative, "cosign") && !has(alternative, "trust")).collect();
    if alone.is_empty() {
        return stays(vec!["as it was: none of its alternatives is cosign alone".to_owned()]);
    }
    if ready < count {
        let mut why =
            format!("as it was: {ready} of the {count} images that were looked at are ready for cosign alone");
        if alternatives.first().is_some_and(trusts) {
            why += "; list cosign first, since of two that hold the first gives the digest, and the trust server goes on giving the one that it knew last";
        }
        return stays(vec![why]);
    }
    if has(policy, "cosign") && alone.len() == 1 {
        return stays(vec![
            "as it was: cosign stands beside anyOf; take the alternative with trust out by hand".to_owned(),
        ]);
    }
    let mut changed = without(policy, &["anyOf"]);
    match alone[..] {
        [one] => changed.insert("cosign".to_owned(), one["cosign"].clone()),
        _ => changed.insert("anyOf".to_owned(), json!(alone)),
    };
    let why = vec![format!(
        "cosign alone: all {count} images that were looked at are ready for it. Docker Content Trust is not asked any more, so what only that has signed is denied from now on: images that were not looked at (jobs that ran before, former versions to roll back to) too"
    )];
    Next { entry: with(entry, changed), why }
}

/// The entry with `anyOf` in place of trust alone.
fn either(entry: &Value, scope: &Scope<'_>, found: &str) -> Next {
    let policy = &entry["policy"];
    let (cosign, mut how) = cosign(&policy["trust"], scope);
    let mut changed = without(policy, &["trust"]);
    changed.insert("anyOf".to_owned(), json!([{"cosign": cosign}, {"trust": policy["trust"]}]));
    let mut why = vec![format!(
        "cosign or Docker Content Trust, where it was Docker Content Trust alone: {found}. From now on either of them is enough to admit an image; cosign is listed first, so its digest counts where both prove one"
    )];
    why.append(&mut how);
    Next { entry: with(entry, changed), why }
}

/// What is asked of cosign, and what of that must be made first.
fn cosign(trust: &Value, scope: &Scope<'_>) -> (Value, Vec<String>) {
    let signers: Vec<_> =
        trust["signerSecrets"].as_array().into_iter().flatten().filter_map(|secret| secret["name"].as_str()).collect();
    if !scope.keys.is_empty() {
        let names: Vec<_> = scope.keys.iter().map(|(name, _)| name.as_str()).collect();
        let mut why = vec![format!("keys: {}; every one of them must have signed", names.join(", "))];
        if names.len() < signers.len() {
            why.push(format!(
                "that are fewer keys than signers ({}): less is asked for than before",
                signers.join(", ")
            ));
        }
        let keys: Vec<_> = scope.keys.iter().map(|(_, pem)| format!("{}\n", pem.trim())).collect();
        return (json!({"keys": keys}), why);
    }
    // Where whatever is released counts, there is no signer whose name could be taken.
    let of: Vec<_> = if signers.is_empty() { vec![scope.policy] } else { signers.clone() };
    let mut names: Vec<String> = Vec::new();
    for name in of {
        // A secret's name has at most 253 bytes.
        let stem: String = name.chars().take(253 - "-cosign".len()).collect();
        let name = format!("{}-cosign", stem.trim_end_matches(['.', '-']));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut why = vec!["these secrets must be there first; each of them is made with a new key pair by".to_owned()];
    why.extend(names.iter().map(|name| format!("  cosign generate-key-pair k8s://{}/{name}", scope.namespace)));
    why.push("or, of a public key that is there (a file cosign.pub), by".to_owned());
    why.extend(
        names.iter().map(|name| {
            format!("  kubectl create secret generic {name} -n {} --from-file=cosign.pub", scope.namespace)
        }),
    );
    let secrets: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    (json!({"signerSecrets": secrets}), why)
}

/// A policy's members but for some.
fn without(policy: &Value, members: &[&str]) -> Map<String, Value> {
    let kept = policy.as_object().into_iter().flatten().filter(|(name, _)| !members.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// An entry with another policy.
fn with(entry: &Value, policy: Map<String, Value>) -> Value {
    let mut changed = entry.clone();
    changed["policy"] = Value::Object(policy);
    changed
}

/// A policy of a cluster as somebody would have written it: without what the cluster keeps of it.
pub(super) fn written(kind: &PolicyKind, object: &kube::api::DynamicObject) -> Value {
    let metadata = &object.metadata;
    let mut kept = Map::new();
    kept.insert("name".to_owned(), json!(metadata.name));
    if let PolicyKind::Image { .. } = kind {
        kept.insert("namespace".to_owned(), json!(metadata.namespace));
    }
    for (member, values) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        let values =
            values.iter().flatten().filter(|(name, _)| *name != "kubectl.kubernetes.io/last-applied-configuration");
        let values: Map<_, _> = values.map(|(name, value)| (name.clone(), json!(value))).collect();
        if !values.is_empty() {
            kept.insert(member.to_owned(), Value::Object(values));
        }
    }
    let mut document = json!({"apiVersion": api::API_VERSION, "kind": kind.kind(), "metadata": kept});
    for (name, value) in object.data.as_object().into_iter().flatten().filter(|(name, _)| *name != "status") {
        document[name.as_str()] = value.clone();
    }
    document
}
