//! The script that signs with cosign what Docker Content Trust proves: text for people to read and to run, as nothing is signed by us.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_image::{Sha256, shown};

use super::state::{Looked, Manner, Signed, State};

const HEAD: &str = r#"#!/bin/sh
# Written by `countersign bridge -o script`: signs with cosign each digest that Docker Content Trust
# proves and that cosign has not signed yet. Read it before you run it; it signs nothing but what stands here.
#
#   COSIGN_KEY=cosign.key sh sign.sh
#
# COSIGN_KEY    the private key: a file, or what else `cosign sign --key` takes (k8s://NAMESPACE/NAME, awskms://…).
#               Where several keys must have signed, run the script once with each of them.
# COSIGN_FLAGS  further flags for every signature. Without any, cosign writes each signature into the public log of
#               sigstore (rekor.sigstore.dev), where everybody can read the names of your images for ever.
#               To sign without the log, which Countersign does not need for keys:
#                 cosign 3:  COSIGN_FLAGS="--tlog-upload=false --use-signing-config=false"
#                 cosign 2:  COSIGN_FLAGS="--tlog-upload=false"
#
# The digests are those that were trusted when this was written. If it is old, have it written again.
set -u
: "${COSIGN_KEY:?set COSIGN_KEY to the private key that signs, for example cosign.key}"
failed=0
"#;

/// What is signed: the repository, the digest, and how.
type Target<'a> = (&'a str, Sha256, &'a Manner);

/// The script. `sign_for` are the namespaces whose own policies may say what is signed, and how; `None` where all policies are the
/// operator's own files. Whoever may write an `ImagePolicy` names the trust server that proves a digest, and so would choose what the
/// operator's key signs.
pub(super) fn script(images: &[Looked], sign_for: Option<&[String]>) -> String {
    let mut targets: Vec<(Target<'_>, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut left_out = Vec::new();
    for image in images {
        let Some(signatures) = image.signatures() else { continue };
        let name = shown(&format!("{} in namespace {}", image.asked.image, image.asked.namespace));
        let of_tenant = image.entry.as_ref().and_then(|(at, _)| at.kind.namespace());
        let trusted = |namespace: &str| sign_for.is_none_or(|named| named.iter().any(|named| named == namespace));
        match (image.state(), signatures.proven_by_dct()) {
            (State::Dct | State::Differ, Some(_)) if of_tenant.is_some_and(|namespace| !trusted(namespace)) => {
                left_out.push(format!(
                    "{name}: an ImagePolicy of the namespace says what is trusted there, so whoever may write it would choose what you sign; give --sign-for NAMESPACE if that is right"
                ));
            }
            (State::Dct | State::Differ, Some(digest)) => {
                let target = (signatures.repository.as_str(), digest, &signatures.manner);
                let at = *places.entry(line(&target)).or_insert(targets.len());
                if at == targets.len() {
                    targets.push((target, Vec::new()));
                }
                if let Some((_, names)) = targets.get_mut(at) {
                    names.push(name);
                }
            }
            (State::Both, Some(digest)) if signatures.cosign.get(&digest) == Some(&Signed::Unverified) => {
                left_out
                    .push(format!("{name}: signed already, by which key is not known (give --cosign-key NAME=FILE)"));
            }
            (State::Undecided, _) => left_out.push(format!("{name}: could not be decided")),
            _ => {}
        }
    }
    let mut text = HEAD.to_owned();
    for (target, names) in &targets {
        text.push('\n');
        for name in names {
            let _ = writeln!(text, "# {name}");
        }
        let _ = writeln!(text, "{} || failed=1", line(target));
    }
    if targets.is_empty() {
        text.push_str("\n# There is nothing to sign.\n");
    }
    if !left_out.is_empty() {
        text.push_str("\n# Not here:\n");
        for line in left_out {
            let _ = writeln!(text, "#   {line}");
        }
    }
    text.push_str("\nexit \"$failed\"\n");
    text
}

/// One call of cosign.
fn line((repository, digest, manner): &Target<'_>) -> String {
    let mut line = String::new();
    if let Some(place) = &manner.repository {
        let _ = write!(line, "COSIGN_REPOSITORY={} ", quoted(place));
    }
    // The flags are several words, so nothing stands around them.
    line.push_str("cosign sign --yes --key \"$COSIGN_KEY\" ${COSIGN_FLAGS:-}");
    for (name, value) in &manner.annotations {
        let _ = write!(line, " -a {}", quoted(&format!("{name}={value}")));
    }
    let _ = write!(line, " {}", quoted(&format!("{repository}@{digest}")));
    line
}

/// A text as one word of a POSIX shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
