//! How much of what strangers send is looked at, each bound with its origin.
//!
//! Whoever may push can fill these up. That denies an image and says so; it never admits one.

/// Keys of one demand: each of them is tried on each signature.
pub const MAX_KEYS: usize = 32;
