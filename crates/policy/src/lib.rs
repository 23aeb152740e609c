//! Image policies.
