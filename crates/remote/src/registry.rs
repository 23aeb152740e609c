//! Registries: which content a tag or digest has there now, and manifests, blobs and lists of referrers.
//!
//! What a registry says is believed of presence, and of which digest a tag names now: nothing else. Bytes are compared with the digest
//! that was asked for, documents are read strictly, and tokens are for reading the one repository.

mod blob;
mod document;
mod manifest;
mod referrers;
mod repository;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_image::{ImageReference, NotSha256, Sha256};
use futures::FutureExt as _;
use reqwest::header::HeaderValue;
use thiserror::Error;
use url::Url;

use crate::credentials::{AuthError, Authenticator, LoginError};
use crate::http::{Cures, HttpClient, HttpError, Redirects, Request, Response, Retry};
use crate::login::Login;
use crate::turns::Ticket;

pub use manifest::{Manifest, Which};
pub use referrers::Referrers;
pub use repository::Repository;

/// The largest manifest that is read: what registries themselves take (the OCI distribution specification asks for 4 MiB).
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 << 20;

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
    /// It has no address that can be written.
    #[error("the registry {host} answered to no address that can be written")]
    NoAddress {
        /// `HOST:PORT`
        host: String,
    },
    /// It, or who it sent us to, gave a status that says nothing of what is there.
    #[error("the registry {host} answered {status}{of}")]
    Status {
        /// `HOST:PORT`
        host: String,
        /// The status code.
        status: u16,
        /// What was asked for, in words, where more than one thing is asked of it.
        of: String,
    },
    /// It is not asked for what nobody signs.
    #[error("{0}")]
    NotSha256(NotSha256),
    /// It gave more than is read of such a thing.
    #[error("the registry {host} answered more than {most}{of}")]
    TooLong {
        /// `HOST:PORT`
        host: String,
        /// How much is read, in words.
        most: String,
        /// What was asked for, in words.
        of: String,
    },
    /// It gave other content than was asked for, or none that has a digest.
    #[error("the registry {host} answered {what}")]
    Nonsense {
        /// `HOST:PORT`
        host: String,
        /// What it answered.
        what: String,
    },
    /// The question to it broke off.
    #[error("the question to the registry {host} broke off; this is a fault of Countersign")]
    Broken {
        /// `HOST:PORT`
        host: String,
    },
}

impl RegistryError {
    /// Whether it stays open what the registry has: it was not reached, or refused. If not, it answered with something that is
    /// malformed or too long.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !matches!(self, Self::Nonsense { .. } | Self::TooLong { .. })
    }
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
    /// Registries on plain http, as images name them.
    insecure: Arc<BTreeSet<String>>,
    /// What a registry let in, where all requests are for one repository and with one login.
    session: Option<Arc<Session>>,
}

/// What a registry let in last. The next request says it at once, where each would be refused first and sent again.
#[derive(Default)]
struct Session(Mutex<Option<HeaderValue>>);

/// Without the secret.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    fn authorization(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryClient {
    /// Makes a client.
    #[must_use]
    pub fn new(http: HttpClient, auth: Arc<Authenticator>) -> Self {
        Self { http, auth, insecure: Arc::default(), session: None }
    }

    /// The same client, which asks these registries (`HOST:PORT`, as images name them) over plain http. Whatever they and whoever is
    /// on the way make of that: who we are is not said there.
    #[must_use]
    pub fn with_insecure(self, hosts: impl IntoIterator<Item = String>) -> Self {
        let all = self.insecure.iter().cloned().chain(hosts.into_iter().map(|host| host.to_ascii_lowercase()));
        Self { insecure: Arc::new(all.collect()), ..self }
    }

    /// The same client, whose requests are made for a namespace.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        Self { http: self.http.for_namespace(namespace), ..self.clone() }
    }

    /// The same client, whose requests are made on behalf of somebody, and are all for one repository with one login.
    pub(crate) fn session(&self, ticket: &Arc<Ticket>) -> Self {
        Self { http: self.http.on_behalf(ticket), session: Some(Arc::default()), ..self.clone() }
    }

    /// The address of something of a repository.
    fn url(&self, repository: &Repository, tail: &str) -> Result<Url, RegistryError> {
        let scheme = if self.insecure.contains(&repository.host().to_ascii_lowercase()) { "http" } else { "https" };
        let url = repository.url(scheme, tail);
        url.ok_or_else(|| RegistryError::NoAddress { host: repository.registry().to_owned() })
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
        let url = self.url(&repository, &format!("manifests/{name}"))?;
        // Of a manifest that is only hashed nothing is kept: many images may be asked for at once, of whoever answers slowly.
        let get = Call {
            retry: Retry::Once,
            hashed: true,
            ..Call::get(MANIFESTS, MAX_MANIFEST_BYTES, Redirects::SameOrigin)
        };
        let head = self.request(&Call { head: true, ..get }, &url, &repository, login).await?;
        let digest = match (head.status, head.digest.as_deref()) {
            (404, _) => return Ok(None),
            (200, Some(digest)) => Sha256::parse(digest),
            (200, None) => None,
            (status, _) => return Err(repository.status(status, String::new())),
        };
        let digest = if let Some(digest) = digest {
            digest
        } else {
            // A registry that names no sha256 is asked for the manifest itself.
            let whole = self.request(&get, &url, &repository, login).await?;
            if whole.status != 200 {
                return Err(repository.status(whole.status, String::new()));
            }
            whole.hash.ok_or_else(|| nonsense("without a manifest that can be read"))?
        };
        if let Some(asked) = name.strip_prefix("sha256:")
            && asked != digest.hex()
        {
            return Err(nonsense("with other content than was asked for"));
        }
        Ok(Some(digest))
    }

    /// Asks a registry, without a login first or with what it let in before, and with the logins that there are if it wants one.
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
            let request = if call.hashed { request.hashed() } else { request };
            self.http.send(request.authorization(authorization))
        };
        let known = self.session.as_ref().and_then(|session| session.authorization().clone());
        let response = send(known).await.map_err(RegistryError::Http)?;
        // Where the registry sends us, its logins do not count.
        if response.elsewhere.is_some() || !matches!(response.status, 401 | 403) {
            return Ok(response);
        }
        let again = |header| send(Some(header)).boxed();
        let (response, let_in) =
            self.auth.log_in(&self.http, url, &repository.name(), login, &response, &again).await?;
        if let Some(session) = &self.session {
            *session.authorization() = Some(let_in);
        }
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
    /// The body is hashed, and not kept.
    hashed: bool,
}

impl Call {
    /// To ask once more changes nothing at the registry.
    fn get(accept: &'static str, limit: u64, redirects: Redirects) -> Self {
        Self { head: false, accept, limit, redirects, retry: Retry::IfBroken, hashed: false }
    }
}

impl Repository {
    fn nonsense(&self, what: String) -> RegistryError {
        RegistryError::Nonsense { host: self.registry().to_owned(), what }
    }

    fn too_long(&self, limit: u64, of: String) -> RegistryError {
        let most = if limit == MAX_MANIFEST_BYTES { format!("{} MiB", limit >> 20) } else { format!("{limit} bytes") };
        RegistryError::TooLong { host: self.registry().to_owned(), most, of }
    }

    fn status(&self, status: u16, of: String) -> RegistryError {
        RegistryError::Status { host: self.registry().to_owned(), status, of }
    }
}
