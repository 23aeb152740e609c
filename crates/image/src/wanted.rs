//! What an image reference asks of whoever knows signed digests.

use thiserror::Error;

use crate::digest::Sha256;
use crate::reference::ImageReference;

/// What an image reference asks of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// `name:tag`: whatever digest is signed for the tag.
    Tag(String),
    /// `name:tag@sha256:…`: the tag, which must be signed with that digest.
    TagAndDigest(String, Sha256),
    /// `name@sha256:…`: some tag must be signed with that digest.
    Digest(Sha256),
}

/// A reference names its content by a digest that nobody signs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the image is named by a {algorithm} digest, but only sha256 digests are signed")]
pub struct NotSha256 {
    /// The algorithm of the digest.
    pub algorithm: String,
}

impl Wanted {
    /// What a reference asks for. Signatures are over sha256, so no other digest can be looked up.
    ///
    /// # Errors
    /// A digest of another algorithm.
    pub fn of(reference: &ImageReference) -> Result<Self, NotSha256> {
        let sha256 = |digest: &crate::Digest| {
            digest.sha256().ok_or_else(|| NotSha256 { algorithm: digest.algorithm().to_owned() })
        };
        let digest = reference.digest().map(sha256).transpose()?;
        Ok(match (reference.tag(), digest) {
            (Some(tag), Some(digest)) => Self::TagAndDigest(tag.to_owned(), digest),
            (None, Some(digest)) => Self::Digest(digest),
            (tag, None) => Self::Tag(tag.unwrap_or("latest").to_owned()),
        })
    }

    /// The digest that the reference names, if it names one: no other may ever take its place.
    #[must_use]
    pub fn digest(&self) -> Option<Sha256> {
        match self {
            Self::Tag(_) => None,
            Self::TagAndDigest(_, digest) | Self::Digest(digest) => Some(*digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked() {
        let digest = Sha256::of(b"");
        let asked = |text: &str| Wanted::of(&ImageReference::parse(text).unwrap());
        assert_eq!(asked("h.io/a"), Ok(Wanted::Tag("latest".into())));
        assert_eq!(asked(&format!("h.io/a@{digest}")), Ok(Wanted::Digest(digest)));
        assert_eq!(asked(&format!("h.io/a:1@{digest}")), Ok(Wanted::TagAndDigest("1".into(), digest)));
        let sha512 = format!("h.io/a@sha512:{}", "a".repeat(128));
        assert_eq!(asked(&sha512), Err(NotSha256 { algorithm: "sha512".into() }));
    }
}
