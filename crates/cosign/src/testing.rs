//! Keys for tests.

use crate::Key;

/// The public half of the P-256 key of that name.
pub(crate) fn key(name: &str) -> Key {
    Key::from_pem(name, forge::Key::p256(name).pem().as_bytes()).unwrap()
}
