//! Why a repository on a trust server is not at hand, in the words that users read.

use countersign_notary::Error;
use thiserror::Error as ThisError;

use crate::credentials::{AuthError, LoginError};
use crate::http::{Cures, HttpError};
use crate::load::MAX_UPDATE_BYTES;
use crate::store::StateError;

/// What helps with a trust server that cannot be asked.
const CURES: Cures = Cures {
    unknown_authority: "give that authority's certificate with --trust-ca",
    namesake: "if another one has the same name, give its certificate with --trust-ca",
    redirect: "name the final address as the trust server",
    pin: "trustServerCertificate",
};

/// Why a repository is not at hand.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Failure {
    /// It was looked at, and is not trusted.
    #[error("{0}")]
    Untrusted(Box<Error>),
    /// The server could not be asked.
    #[error("{}", .0.with(&CURES))]
    Http(HttpError),
    /// The server wants a login that we do not have.
    #[error("{0}")]
    Auth(AuthError),
    /// What is remembered of it cannot be read, so it cannot be told whether it went backwards.
    #[error("{0}")]
    State(StateError),
    /// The repository is larger than anything sound.
    #[error("the metadata of {gun} on {host} is more than {} MiB", MAX_UPDATE_BYTES >> 20)]
    TooMuch {
        /// The repository.
        gun: String,
        /// `HOST:PORT`
        host: String,
    },
    /// The server did not bring everything in time.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// `HOST:PORT`
        host: String,
    },
    /// The name cannot be put into an address of the server.
    #[error("{gun:?} cannot be asked for")]
    BadName {
        /// The repository.
        gun: String,
    },
    /// What this process saw, what is remembered, and what the server shows are not of one repository's life.
    #[error(
        "what {host} shows of {gun} does not fit together with what was seen of it before; if that is intended, an administrator accepts it with countersign trust accept"
    )]
    Contradicted {
        /// The repository.
        gun: String,
        /// `HOST:PORT`
        host: String,
    },
    /// Its turn did not come, for all that is asked for in the same namespace.
    #[error(
        "the turn of {gun} on {host} did not come in time: {} repositories of one namespace are looked at at once, and more of this one wait; try again",
        crate::load::FLIGHTS.1
    )]
    Busy {
        /// The repository.
        gun: String,
        /// `HOST:PORT`
        host: String,
    },
    /// Nobody waits for it any more.
    #[error("the verification of {gun} was given up")]
    Abandoned {
        /// The repository.
        gun: String,
    },
    /// The flight broke off.
    #[error("the verification of {gun} broke off; this is a fault of Countersign")]
    Broken {
        /// The repository.
        gun: String,
    },
}

impl Failure {
    /// Whether nothing was decided: the server was not reached, or would not talk.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        !matches!(self, Self::Untrusted(_) | Self::TooMuch { .. } | Self::BadName { .. })
    }

    /// Whether it was not even looked at.
    pub(crate) fn is_of_turns(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Abandoned { .. })
    }

    /// Whether it is for the server alone that nothing was decided, so that what it said before may still do for a while.
    pub(crate) fn is_of_the_server(&self) -> bool {
        matches!(self, Self::Http(_) | Self::TimedOut { .. })
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Auth(error) => Self::Auth(error),
            LoginError::Http(error) => Self::Http(error),
        }
    }
}
