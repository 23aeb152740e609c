//! Countersign: the admission webhook, and the command line around it.
//!
//! `docs/architecture.md` says how a review goes through the crates. This one has the edges: documents and clusters,
//! servers, and the command line; what is decided is decided in `countersign-notary` and `countersign-policy`.

#![forbid(unsafe_code)]

mod admission_review;
mod api;
mod break_glass;
mod children;
mod cli;
mod cluster;
mod config;
mod crd;
mod decision;
mod documents;
mod enforce;
mod events;
mod gate;
mod install;
mod journal;
mod master_config;
mod metrics;
mod namespaces;
mod policy_review;
mod prove;
mod reading;
mod records;
mod registration;
mod source;
mod status;
mod telemetry;
mod tls;
mod web;

pub use admission_review::{Answer, Review};
pub use cli::main;
pub use documents::parse as parse_documents;
pub use reading::Reading;
pub use source::files::Loaded;
