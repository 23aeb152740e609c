//! How much of what strangers send is looked at, each bound with its origin.
//!
//! Whoever may push can fill these up. That denies an image and says so; it never admits one.

/// Bytes of a manifest: what registries must take (OCI distribution specification 1.1, "Pushing Manifests").
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;

/// Bytes of a bundle. One with a certificate, a log entry and a timestamp has 10 KiB.
pub const MAX_BUNDLE_BYTES: usize = 1 << 20;

/// Bytes of a simple signing payload. One without claims has 250.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Bytes of a signature: one by the longest RSA key that is taken, of 8192 bits.
pub const MAX_SIGNATURE_BYTES: usize = 1 << 10;

/// JSON values in one document, enough for a bundle of a megabyte and ten bytes a value.
pub(crate) const MAX_VALUES: usize = 100_000;

/// Layers that one manifest may list (cosign reads as many: `maxLayers` after CVE-2024-29903).
pub const MAX_LISTED_LAYERS: usize = 1000;

/// Manifests of one digest that are fetched. Each signer and each attestation takes one.
pub const MAX_MANIFESTS: usize = 64;

/// Layers of one digest that are looked at, in all its manifests. Each signature takes one.
pub const MAX_LAYERS: usize = 64;

/// Subjects of a statement. An image signature has one.
pub const MAX_SUBJECTS: usize = 1024;

/// Entries of a transparency log in one bundle, and timestamps in one bundle (`maxAllowedTlogEntries` and
/// `maxAllowedTimestamps` of sigstore-go).
pub const MAX_WITNESSES: usize = 32;

/// Keys of one demand: each of them is tried on each signature.
pub const MAX_KEYS: usize = 32;

/// Signatures that are computed in one review: 0.3 s on P-256.
pub const MAX_VERIFICATIONS: usize = 2048;

/// How many different things of a sort are kept for messages.
pub(crate) const MAX_TOLD: usize = 8;
