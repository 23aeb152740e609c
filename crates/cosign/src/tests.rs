//! Hostile and sound signatures, a test for each case.

mod bundles;
mod counting;
mod mutations;
mod places;
mod simple_signing;
