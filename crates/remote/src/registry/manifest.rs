//! Manifests of registries, fetched by tag or digest.

use countersign_image::Sha256;
use countersign_image::reference::is_tag;

use super::{Call, MANIFESTS, MAX_MANIFEST_BYTES, RegistryClient, RegistryError, Repository, document};
use crate::http::Redirects;
use crate::login::Login;

/// Which manifest of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one that a tag names now.
    Tag(&'a str),
    /// The one with this digest.
    Digest(Sha256),
}

impl std::fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest as a registry has it. Nobody has signed it yet: what it is worth is known of its digest, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes, which its digest is of.
    pub bytes: Vec<u8>,
    /// What kind it is, as the registry says, and as it says itself if it does.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Sha256,
}

impl RegistryClient {
    /// The manifest of a repository with this tag or digest; `None` if it is not there. It is of a kind that an image, an index
    /// or an artifact has, of 4 MiB at most, and JSON that is no index and manifest at once; and if a digest was asked for, it
    /// has that one.
    ///
    /// # Errors
    /// The registry did not say, or gave something else.
    pub async fn manifest(
        &self,
        repository: &Repository,
        which: Which<'_>,
        login: &Login,
    ) -> Result<Option<Manifest>, RegistryError> {
        self.manifest_of(repository, which, MANIFESTS, MAX_MANIFEST_BYTES, login).await
    }

    /// The same, of so many bytes at most.
    pub(crate) async fn manifest_within(
        &self,
        repository: &Repository,
        which: Which<'_>,
        limit: u64,
        login: &Login,
    ) -> Result<Option<Manifest>, RegistryError> {
        self.manifest_of(repository, which, MANIFESTS, limit.min(MAX_MANIFEST_BYTES), login).await
    }

    /// The same, of one of these kinds.
    pub(super) async fn manifest_of(
        &self,
        repository: &Repository,
        which: Which<'_>,
        kinds: &'static str,
        limit: u64,
        login: &Login,
    ) -> Result<Option<Manifest>, RegistryError> {
        let nonsense = |what: String| repository.nonsense(format!("{what} for {repository}, {which}"));
        // What is no tag could lead to another path.
        let url = match which {
            Which::Tag(tag) if !is_tag(tag) => {
                return Err(repository.nonsense("to no address that can be written".to_owned()));
            }
            _ => self.url(repository, &format!("manifests/{which}"))?,
        };
        let call = Call::get(kinds, limit, Redirects::SameOrigin);
        let response = self.request(&call, &url, repository, login).await?;
        match response.status {
            200 => {}
            404 => return Ok(None),
            status => return Err(repository.status(status, format!(" for {repository}, {which}"))),
        }
        if response.body.len() as u64 > limit {
            return Err(repository.too_long(limit, format!(" for {repository}, {which}")));
        }
        let digest = Sha256::of(&response.body);
        if matches!(which, Which::Digest(asked) if asked != digest) {
            return Err(nonsense(format!("with other content ({digest})")));
        }
        let media_type = document::essence(response.content_type.as_deref());
        if !kinds.split(", ").any(|kind| kind == media_type) {
            return Err(nonsense(format!("with a document of the type {media_type:?}, which was not asked for,")));
        }
        document::read(&response.body, &media_type).map_err(|what| nonsense(format!("with {what},")))?;
        Ok(Some(Manifest { bytes: response.body, media_type, digest }))
    }
}
