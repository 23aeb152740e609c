//! Makes Notary repositories.
