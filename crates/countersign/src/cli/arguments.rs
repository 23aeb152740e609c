//! Images, trust servers, signers and root keys, as somebody types them on a command line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use countersign_cosign::{Demand, Key};
use countersign_image::{ImageReference, NotSha256, Wanted};
use countersign_notary::{RootPins, Signer, TrustServer};
use countersign_policy::DenyReason;
use countersign_remote::{PinnedCertificate, Repository};

use crate::config::Settings;
use crate::prove::notary::{CERTIFICATE, Demands};

/// An image on the command line.
pub(crate) fn image(text: &str) -> anyhow::Result<ImageReference> {
    ImageReference::parse(text).map_err(|problem| anyhow!("{text:?} is not an image reference: {problem}"))
}

/// The trust server for an image on the command line: what was typed, or the one that the server would ask.
pub(crate) fn server(given: Option<&str>, image: &ImageReference, settings: &Settings) -> anyhow::Result<TrustServer> {
    let configured = super::clients::trust_servers(&settings.trust_servers)?;
    match given {
        Some(address) => TrustServer::parse(address).context("--trust-server"),
        None => countersign_policy::plan::notary::default_trust_server(image.matched_host(), &configured)
            .map_err(|reason| anyhow!("{reason} (on the command line: --trust-server URL)")),
    }
}

/// `NAME=KEYFILE`
fn signer(text: &str) -> anyhow::Result<Signer> {
    let Some((name, path)) = text.split_once('=') else {
        bail!("--signer {text}: write NAME=KEYFILE, for example alice=alice.pub");
    };
    let key = std::fs::read(path).with_context(|| format!("--signer {name}: cannot read {path}"))?;
    Signer::new(name, &key).with_context(|| format!("--signer {name}={path}"))
}

/// What the signers of the command line demand of a repository.
pub(crate) fn demands(signers: &[String]) -> anyhow::Result<Demands> {
    let signers = signers.iter().map(|text| signer(text)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Demands { signers, ..Demands::none() })
}

/// Keys for signatures of cosign, each `NAME=KEYFILE`.
pub(crate) fn cosign_keys(texts: &[String]) -> anyhow::Result<Vec<Key>> {
    let read = |text: &String| {
        let Some((name, path)) = text.split_once('=') else {
            bail!("--cosign-key {text}: write NAME=KEYFILE, for example alice=cosign.pub");
        };
        let pem = std::fs::read(path).with_context(|| format!("--cosign-key {name}: cannot read {path}"))?;
        Key::from_pem(name, &pem).with_context(|| format!("--cosign-key {name}={path}"))
    };
    texts.iter().map(read).collect()
}

/// That all of some keys must have signed.
pub(crate) fn cosign_demand(texts: &[String]) -> anyhow::Result<Demand> {
    Demand::new(cosign_keys(texts)?, None, Vec::new(), BTreeMap::new()).context("--cosign-key")
}

/// The repository that holds signatures: the one that is named, or the image's own.
pub(crate) fn signatures_of(given: Option<&str>, image: &ImageReference) -> anyhow::Result<Repository> {
    match given {
        Some(name) => Repository::parse(name).with_context(|| format!("--cosign-repository {name}")),
        None => Ok(Repository::of(image)),
    }
}

/// What an image on the command line asks for.
pub(crate) fn wanted(image: &ImageReference) -> anyhow::Result<Wanted> {
    Wanted::of(image).map_err(|NotSha256 { algorithm }| anyhow!("{}", DenyReason::DigestAlgorithm { algorithm }))
}

/// The certificate that a trust server shows, from a file in PEM.
pub(crate) fn certificate(file: &Path) -> anyhow::Result<PinnedCertificate> {
    let of = || format!("--trust-server-certificate {}", file.display());
    let pem = std::fs::read_to_string(file).with_context(of)?;
    PinnedCertificate::parse(&pem, CERTIFICATE).with_context(of)
}

/// A root key id, or a file with a key or certificate in PEM.
pub(crate) fn root_pins(texts: &[String]) -> anyhow::Result<RootPins> {
    let mut pins = RootPins::none();
    for text in texts {
        if pins.add(text).is_err() {
            let pem = std::fs::read_to_string(text)
                .with_context(|| format!("--root-key {text} is neither a key id nor a file"))?;
            pins.add(&pem).with_context(|| format!("--root-key {text}"))?;
        }
    }
    Ok(pins)
}
