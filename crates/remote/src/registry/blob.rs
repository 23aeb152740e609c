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
        let url = repository.url(&format!("blobs/{digest}"));
        let url = url.ok_or_else(|| repository.nonsense("to no address that can be written".to_owned()))?;
        let call = Call::get(ANY, limit, Redirects::ContentAddressed);
        let response = self.request(&call, &url, repository, login).await?;
        let host = response.elsewhere.as_deref();
        let nonsense = |what: String| {
            let of = host.map_or_else(String::new, |host| format!(" (at {host}, to which it redirects)"));
            repository.nonsense(format!("{what} for the blob {digest} of {repository}{of}"))
        };
        match (response.status, host) {
            (200, _) => {}
            (404, None) => return Ok(None),
            // That the storage has lost it, or does not let us in, is not for it to decide.
            (status, _) => return Err(nonsense(status.to_string())),
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
