//! What a list in a registry says of a manifest (the OCI image specification's descriptor).

use std::collections::BTreeMap;

use crate::Sha256;

/// What a list says of one manifest. Nobody has signed that: it says what is worth fetching, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The type of the manifest.
    pub media_type: String,
    /// The digest of the manifest.
    pub digest: Sha256,
    /// How many bytes the manifest has.
    pub size: u64,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Whatever its maker noted.
    pub annotations: BTreeMap<String, String>,
}
