//! Verification of Notary v1 (Docker Content Trust) metadata.
//!
//! Bytes, what was trusted before, and a time go in; a proof or an error comes out. Nothing here reads a clock, a file or
//! a socket. [`Update`] says which files of a repository it needs and ends with a [`Repository`], which answers what an
//! image reference stands for with a [`Proof`].
//!
//! The rules are those of the protocol as real servers and signers speak it, which is not quite TUF; where the Go client
//! is careless this crate is strict (`docs/notary-v1.md#differences`). Each check names its reason.

#![forbid(unsafe_code)]

mod collection;
mod error;
mod key;
mod memory;
pub mod metadata;
mod record;
mod remembered;
mod role;
mod root;
mod server;
mod signed;
mod update;

pub use collection::{Proof, Repository, RoleState, SignedBy, Status};
pub use error::{Error, Remedy, RootKeyProblem};
pub use key::{KeyId, PublicKey, Signer, SignerError};
pub use memory::{Floors, MAX_BYTES_BELOW, MAX_RECORD_BYTES, Memory, Seen};
pub use record::{Encoded, MemoryRecord, RecordError};
pub use remembered::{
    AsOf, Basis, Generation, Generations, Observed, RecordId, Remembered, State, Target, ToWrite, Weighed, Written,
    weigh,
};
pub use role::RoleName;
pub use root::{KnownRoot, RootKey, RootPins, RootRecord};
pub use server::{TrustServer, TrustServerError};
pub use signed::Trusted;
pub use update::{Answer, MAX_FILE_BYTES, MAX_UPDATE_SIGNATURES, Request, Step, Update};
