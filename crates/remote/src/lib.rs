//! HTTP to strangers: trust servers, and whoever gives tokens for them.
//!
//! This crate fetches; what the bytes are worth is decided in `countersign-notary`. It knows nothing of Kubernetes and
//! logs nothing: errors are returned.

mod addresses;
pub mod challenge;
pub mod connections;
pub mod credentials;
pub mod docker_config;
pub mod failure;
mod fetch;
mod heavy;
pub mod http;
mod kept;
mod load;
pub mod notary;
pub mod registry;
pub mod seen;
pub mod shares;
pub mod state;
mod turns;

pub use connections::{Connections, PinnedCertificate, TlsError};
pub use credentials::{AuthError, Authenticator, Login, LoginError};
pub use docker_config::{Credential, DockerConfig, DockerConfigError};
pub use failure::Failure;
pub use http::{HttpClient, HttpError};
pub use load::Load;
pub use notary::{Ask, Clock, DENIAL_AGE, MAX_LOOKS, NotaryClient, Options};
pub use registry::{RegistryClient, RegistryError};
pub use seen::{Committed, Seen};
pub use state::{Remembered, Saved, StateAction, StateDir, StateError, StateStore};
pub use turns::TooMany;
