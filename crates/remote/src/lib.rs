//! HTTP to strangers.
