//! Registries: which content a tag or digest has there now, and manifests, blobs and lists of referrers.
//!
//! What a registry says is believed of nothing but presence: bytes are compared with the digest that was asked for, documents
//! are read strictly, and tokens are for reading the one repository.

mod blob;
mod document;
mod manifest;
mod referrers;
mod repository;

use std::sync::Arc;

use countersign_image::{ImageReference, Sha256};
use futures::FutureExt as _;
use reqwest::header::HeaderValue;
use thiserror::Error;
use url::Url;

use crate::credentials::{AuthError, Authenticator, LoginError};
use crate::http::{Cures, HttpClient, HttpError, Redirects, Request, Response, Retry};
use crate::login::Login;

pub use manifest::{Manifest, Which};
pub use referrers::Descriptor;
pub use repository::Repository;

/// The largest manifest that is read: what registries themselves take (the OCI distribution specification asks for 4 MiB).
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// Every kind of manifest that an image can have. A registry that is not told so may answer with another, older one, which
/// has another digest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// What helps with a registry that cannot be asked.
const CURES: Cures = Cures {
    unknown_authority: "give that authority's certificate with --trust-ca",
    namesake: "if another one has the same name, give its certificate with --trust-ca",
    redirect: "name the final address as the trust server",
    pin: "",
};

/// Why a registry did not say.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It could not be asked.
    #[error("registry: {}", .0.with(&CURES))]
    Http(HttpError),
    /// It wants a login that we do not have.
    #[error("registry: {0}")]
    Auth(AuthError),
    /// It gave other content than was asked for, or none that has a digest.
    #[error("the registry {host} answered {what}")]
    Nonsense {
        /// `HOST:PORT`
        host: String,
        /// What it answered.
        what: String,
    },
}

impl From<LoginError> for RegistryError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Auth(error) => Self::Auth(error),
            LoginError::Http(error) => Self::Http(error),
        }
    }
}

/// Client of any number of registries.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: HttpClient,
    auth: Arc<Authenticator>,
}

impl RegistryClient {
    /// Makes a client.
    #[must_use]
    pub fn new(http: HttpClient, auth: Arc<Authenticator>) -> Self {
        Self { http, auth }
    }

    /// The same client, whose requests are made for a namespace.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        Self { http: self.http.for_namespace(namespace), auth: Arc::clone(&self.auth) }
    }

    /// The sha256 that an image's manifest has in its registry now; `None` if it is not there. A reference with a digest is
    /// asked for by that, one without by its tag.
    ///
    /// # Errors
    /// The registry did not say.
    pub async fn digest(&self, image: &ImageReference, login: &Login) -> Result<Option<Sha256>, RegistryError> {
        let asked = image.digest().map(ToString::to_string);
        let tag = image.tag().unwrap_or("latest");
        self.look(image, asked.as_deref().unwrap_or(tag), login).await
    }

    /// Whether the registry has a manifest with this sha256 in the image's repository.
    ///
    /// # Errors
    /// The registry did not say.
    pub async fn has(&self, image: &ImageReference, sha256: &Sha256, login: &Login) -> Result<bool, RegistryError> {
        let found = self.look(image, &sha256.to_string(), login).await?;
        Ok(found.as_ref() == Some(sha256))
    }

    async fn look(&self, image: &ImageReference, name: &str, login: &Login) -> Result<Option<Sha256>, RegistryError> {
        let repository = Repository::of(image);
        let nonsense = |what: &str| repository.nonsense(what.to_owned());
        let url = repository.url(&format!("manifests/{name}"));
        let url = url.ok_or_else(|| nonsense("to no address that can be written"))?;
        let get = Call { retry: Retry::Once, ..Call::get(MANIFESTS, MAX_MANIFEST_BYTES, Redirects::SameOrigin) };
        let head = self.request(&Call { head: true, ..get }, &url, &repository, login).await?;
        let digest = match (head.status, head.digest.as_deref()) {
            (404, _) => return Ok(None),
            (200, Some(digest)) => Sha256::parse(digest),
            (200, None) => None,
            (status, _) => return Err(nonsense(&status.to_string())),
        };
        let digest = if let Some(digest) = digest {
            digest
        } else {
            // A registry that names no sha256 is asked for the manifest itself.
            let whole = self.request(&get, &url, &repository, login).await?;
            if whole.status != 200 || whole.body.len() as u64 > MAX_MANIFEST_BYTES {
                return Err(nonsense("without a manifest that can be read"));
            }
            Sha256::of(&whole.body)
        };
        if let Some(asked) = name.strip_prefix("sha256:")
            && asked != digest.hex()
        {
            return Err(nonsense("with other content than was asked for"));
        }
        Ok(Some(digest))
    }

    /// Asks a registry, without a login first, and with those that there are if it wants one.
    async fn request(
        &self,
        call: &Call,
        url: &Url,
        repository: &Repository,
        login: &Login,
    ) -> Result<Response, RegistryError> {
        let send = |authorization: Option<HeaderValue>| {
            let request = if call.head { Request::head(url) } else { Request::get(url, call.limit) };
            let request = request.accept(call.accept).redirects(call.redirects).retry(call.retry);
            self.http.send(request.authorization(authorization))
        };
        let response = send(None).await.map_err(RegistryError::Http)?;
        // Where the registry sends us, its logins do not count.
        if response.elsewhere.is_some() || !matches!(response.status, 401 | 403) {
            return Ok(response);
        }
        let again = |header| send(Some(header)).boxed();
        let (response, _) = self.auth.log_in(&self.http, url, &repository.name(), login, &response, &again).await?;
        Ok(response)
    }

    /// `HOST:PORT` of the registry of an image.
    #[must_use]
    pub fn host(image: &ImageReference) -> String {
        Repository::of(image).host_port()
    }
}

/// What is asked of a registry, besides where.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// For the headers alone.
    head: bool,
    accept: &'static str,
    limit: u64,
    redirects: Redirects,
    retry: Retry,
}

impl Call {
    /// To ask once more changes nothing at the registry.
    fn get(accept: &'static str, limit: u64, redirects: Redirects) -> Self {
        Self { head: false, accept, limit, redirects, retry: Retry::IfBroken }
    }
}

impl Repository {
    fn nonsense(&self, what: String) -> RegistryError {
        RegistryError::Nonsense { host: self.registry().to_owned(), what }
    }
}
