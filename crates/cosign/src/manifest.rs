//! Manifests that hold signatures.

use countersign_image::{Descriptor, Sha256, shown};
use countersign_json::{Object, Value};
use thiserror::Error;

use crate::bundle::is_bundle;
use crate::document::{self, DocumentError};
use crate::limits::{MAX_LISTED_LAYERS, MAX_MANIFEST_BYTES};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// How much of a layer's signature is kept, line breaks included: three times what the longest has. Who may push can write megabytes.
const MAX_SIGNATURE_TEXT: usize = 4 << 10;
/// Where a layer has its signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Why a manifest is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestProblem {
    /// It is no such document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It came as something else than a manifest: an index, for one.
    #[error("it is of the type {0}, which is no image manifest")]
    Type(String),
    /// It says that it is something else than it came as.
    #[error("it came as {came} and says that it is {says}")]
    OtherType {
        /// What the registry said.
        came: String,
        /// What it says itself.
        says: String,
    },
    /// It could be read as an index too (CVE-2021-41190).
    #[error("it is a manifest and an index at once")]
    ManifestAndIndex,
    /// The bytes are not those that were asked for.
    #[error("its bytes are not those that the list named")]
    OtherBytes,
    /// It refers to another image.
    #[error("it refers to another image, or to none")]
    OtherSubject,
    /// A bundle does not come alone.
    #[error("it has {0} layers, where exactly one bundle is expected")]
    NotOneLayer(usize),
}

/// In which form a signature was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Simple signing, in the manifest that the tag `sha256-….sig` names.
    SigTag,
    /// Simple signing, in a manifest that refers to the image.
    SigReferrer,
    /// A sigstore bundle, in a manifest that refers to the image.
    Bundle,
}

/// What a manifest says of one signature.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    pub(crate) form: Form,
    pub(crate) media_type: String,
    pub(crate) digest: Sha256,
    pub(crate) size: u64,
    /// Base64 text, in layers of simple signing.
    pub(crate) signature: Option<String>,
}

impl Layer {
    /// In which form its signature is, if it is one.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// The digest of the blob to fetch.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// How many bytes the blob has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The blob, if it is one of these texts ([`crate::guesses`]): then it need not be fetched.
    #[must_use]
    pub fn guessed<'g>(&self, guesses: &'g [Vec<u8>]) -> Option<&'g [u8]> {
        guesses.iter().find(|guess| self.is(guess)).map(Vec::as_slice)
    }

    /// Whether some bytes are the blob.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        self.size == bytes.len() as u64 && self.digest == Sha256::of(bytes)
    }

    /// Whether it is of a type that can hold a signature in its form.
    pub(crate) fn is_candidate(&self) -> bool {
        match self.form {
            Form::SigTag | Form::SigReferrer => self.media_type == SIMPLE_SIGNING,
            Form::Bundle => is_bundle(&self.media_type),
        }
    }
}

/// The layers of the manifest that a tag `sha256-….sig` names, in their order. `media_type` is what the registry said that
/// it is, without parameters.
///
/// # Errors
/// What is no such manifest. Without layers it holds no signatures, which is no error.
pub fn sig_tag(bytes: &[u8], media_type: &str) -> Result<Vec<Layer>, ManifestProblem> {
    let manifest = read(bytes, media_type)?;
    layers(&manifest, Form::SigTag)
}

/// The layers of a manifest that was listed as one that refers to the image: some of simple signing, or one bundle. One of
/// something else has none.
///
/// # Errors
/// Other bytes than those that the list named, what is no such manifest, or one of signatures that refers to another image.
pub fn referrer(
    bytes: &[u8],
    media_type: &str,
    listed: &Descriptor,
    image: Sha256,
) -> Result<Vec<Layer>, ManifestProblem> {
    if bytes.len() as u64 != listed.size || Sha256::of(bytes) != listed.digest {
        return Err(ManifestProblem::OtherBytes);
    }
    let manifest = read(bytes, media_type)?;
    let mut layers = layers(&manifest, Form::SigReferrer)?;
    let bundles = layers.iter().any(|layer| is_bundle(&layer.media_type));
    if bundles {
        if layers.len() != 1 {
            return Err(ManifestProblem::NotOneLayer(layers.len()));
        }
        layers[0].form = Form::Bundle;
    }
    layers.retain(Layer::is_candidate);
    // This proves nothing, as nobody signed it; what was signed says what it is about. It saves fetching it.
    if !layers.is_empty() && subject(&manifest)? != Some(image.to_string().as_str()) {
        return Err(ManifestProblem::OtherSubject);
    }
    Ok(layers)
}

fn read<'a>(bytes: &'a [u8], media_type: &str) -> Result<Object<'a>, ManifestProblem> {
    if !matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST) {
        return Err(ManifestProblem::Type(shown(media_type)));
    }
    let manifest = document::read(bytes, MAX_MANIFEST_BYTES)?;
    // Old writers of OCI manifests leave it out, which the image specification allows.
    if let Some(says) = document::optional_text(&manifest, "mediaType")?
        && says != media_type
    {
        return Err(ManifestProblem::OtherType { came: media_type.to_owned(), says: shown(says) });
    }
    if manifest.get("schemaVersion") != Some(&Value::Number("2")) {
        return Err(DocumentError::Member { member: "schemaVersion", expected: "2" }.into());
    }
    if manifest.get("manifests").is_some() {
        return Err(ManifestProblem::ManifestAndIndex);
    }
    Ok(manifest)
}

fn subject<'o>(manifest: &'o Object<'_>) -> Result<Option<&'o str>, DocumentError> {
    document::optional_object(manifest, "subject")?.map(|subject| document::text(subject, "digest")).transpose()
}

fn layers(manifest: &Object<'_>, form: Form) -> Result<Vec<Layer>, ManifestProblem> {
    let listed = document::list(manifest, "layers", MAX_LISTED_LAYERS)?;
    // A layer that is none is passed over as an unknown one is: another's signature stands beside it.
    Ok(listed.iter().filter_map(|value| layer(value, form).ok()).collect())
}

fn layer(value: &Value<'_>, form: Form) -> Result<Layer, DocumentError> {
    const SIZE: DocumentError = DocumentError::Member { member: "size", expected: "a number of bytes" };
    const DIGEST: DocumentError = DocumentError::Member { member: "digest", expected: "a sha256" };
    let Value::Object(layer) = value else {
        return Err(DocumentError::Member { member: "layers", expected: "a list of objects" });
    };
    let Some(Value::Number(size)) = layer.get("size") else { return Err(SIZE) };
    let size = size.parse().map_err(|_| SIZE)?;
    let digest = Sha256::parse(document::text(layer, "digest")?).ok_or(DIGEST)?;
    let annotations = document::optional_object(layer, "annotations")?;
    let signature = annotations.map(|annotations| document::optional_text(annotations, SIGNATURE)).transpose()?;
    Ok(Layer {
        form,
        media_type: document::text(layer, "mediaType")?.to_owned(),
        digest,
        size,
        signature: signature.flatten().map(|text| text[..text.floor_char_boundary(MAX_SIGNATURE_TEXT)].to_owned()),
    })
}
