//! HTTP to strangers: trust servers, and whoever gives tokens for them.
//!
//! This crate fetches; what the bytes are worth is decided in `countersign-notary`. It knows nothing of Kubernetes and
//! logs nothing: errors are returned.

pub mod challenge;
pub mod credentials;
pub mod http;
pub mod notary;
pub mod state;

pub use credentials::{AuthError, Authenticator, Credential, DockerConfig, DockerConfigError};
pub use http::{HttpClient, HttpError, TlsError, TrustedCas};
pub use notary::{Clock, Failure, NotaryClient, Options};
pub use state::{StateDir, StateError, StateStore};
