//! HTTP to strangers: trust servers, registries, and whoever gives tokens for them.
//!
//! This crate fetches; what the bytes are worth is decided in `countersign-notary` and `countersign-cosign`. It knows nothing
//! of Kubernetes and logs nothing: errors are returned.

mod addresses;
// Public for its fuzz target.
pub mod challenge;
mod connections;
mod cosign;
mod credentials;
mod docker_config;
mod failure;
mod http;
mod load;
mod login;
mod notary;
mod party;
mod registry;
// Public for stores elsewhere.
pub mod shares;
mod state_dir;
mod store;
mod threads;
mod turns;

pub use connections::{Connections, PinnedCertificate, TlsError};
pub use cosign::{CosignClient, Inspected, SignatureFailure, SignaturesAsk};
pub use credentials::{AuthError, Authenticator, CredentialHelper, LoginError};
pub use docker_config::{Credential, DockerConfig, DockerConfigError};
pub use failure::Failure;
pub use http::{Cures, HttpClient, HttpError, RedirectProblem, Redirects, Request, Response, Retry, TlsProblem};
pub use load::{Load, Outcomes};
pub use login::{Login, NamedBy};
pub use notary::record;
pub use notary::{Ask, Clock, Committed, DENIAL_AGE, MAX_LOOKS, NotaryClient, OnTrouble, Options, Seen, Sharing};
pub use registry::{Manifest, Referrers, RegistryClient, RegistryError, Repository, Which};
pub use state_dir::StateDir;
pub use store::{Content, RecordKey, Saved, StateError, StateStore, Stored, UNKNOWN_MARK};
pub use turns::TooMany;
