//! Blobs of registries, fetched by their digest.

use countersign_image::Sha256;

use super::{Call, RegistryClient, RegistryError, Repository};
use crate::http::Redirects;
use crate::login::Login;

/// A blob is of whatever type.
const ANY: &str = "*/*";

impl RegistryClient {
    /// The blob of a repository with this digest, of `limit` bytes at most; `None` if it is not there. Registries keep blobs
    /// elsewhere, and redirects to there are followed ([`Redirects::ContentAddressed`]): the digest says that it is the one.
    ///
    /// # Errors
    /// The registry, or who it sent us to, did not say, or gave something else.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: Sha256,
        limit: u64,
        login: &Login,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let call = Call::get(ANY, limit, Redirects::ContentAddressed);
        let response = self.request(&call, &url, repository, login).await?;
        let host = response.elsewhere.as_deref();
        let at = host.map_or_else(String::new, |host| format!(" (at {host}, to which it redirects)"));
        let of = format!(" for the blob {digest} of {repository}{at}");
        let nonsense = |what: String| repository.nonsense(format!("{what}{of}"));
        match (response.status, host) {
            (200, _) => {}
            (404, None) => return Ok(None),
            // That the storage has lost it, or does not let us in, is not for it to decide.
            (status, _) => return Err(repository.status(status, of)),
        }
        if response.body.len() as u64 > limit {
            return Err(nonsense(format!("more than {limit} bytes")));
        }
        let found = Sha256::of(&response.body);
        if found != digest {
            return Err(nonsense(format!("with other content ({found})")));
        }
        Ok(Some(response.body))
    }
}
