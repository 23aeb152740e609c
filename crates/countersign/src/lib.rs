//! Countersign: the admission webhook, and the command line around it.
//!
//! `docs/architecture.md` says how a review goes through the crates. This one has the edges: documents and clusters,
//! servers, and the command line; what is decided is decided in `countersign-notary` and `countersign-policy`.

#![forbid(unsafe_code)]

pub mod api;
pub mod children;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod crd;
pub mod decision;
pub mod documents;
pub mod enforce;
pub mod gate;
pub mod journal;
pub mod manifests;
pub mod metrics;
pub mod openshift;
pub mod policy_review;
pub mod prove;
pub mod reading;
pub mod records;
pub mod registration;
pub mod review;
pub mod source;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod web;
