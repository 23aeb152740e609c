//! What is asked, of which repository on which server, and on whose terms.

use std::time::Duration;

use countersign_notary::{RootPins, Signer, TrustServer};
use url::Url;

use crate::connections::PinnedCertificate;
use crate::http::host_port;
use crate::login::Login;
use crate::store::RecordKey;

/// A question to a trust server.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The server.
    pub server: &'a TrustServer,
    /// The repository's name there.
    pub gun: &'a str,
    /// Root keys, one of which must have signed the repository's root.
    pub pins: &'a RootPins,
    /// The one certificate that the server must show, if one is pinned.
    pub certificate: Option<&'a PinnedCertificate>,
    /// The namespace whose policy pins the certificate, see [`RecordKey::pinned_in`]; `None` if the operator does.
    pub pinned_in: Option<&'a str>,
    /// The signers whom the answer will be asked for: where nothing is at hand, their files are asked for together with the first ones.
    pub signers: &'a [Signer],
    /// Credentials that may be tried before the configured ones.
    pub login: &'a Login,
    /// The namespace that it is asked for, which takes turns with others; empty for none.
    pub namespace: &'a str,
    /// How long ago at most its server was asked, if that is less than [`crate::Options::refresh`]. With it, nothing is served
    /// for the sake of [`crate::Options::stale`].
    pub max_age: Option<Duration>,
}

impl<'a> Ask<'a> {
    /// A question for no namespace, without a pinned certificate, to which any answer will do that is fresh enough by
    /// [`crate::Options::refresh`].
    #[must_use]
    pub fn new(server: &'a TrustServer, gun: &'a str, pins: &'a RootPins, login: &'a Login) -> Self {
        Self {
            server,
            gun,
            pins,
            certificate: None,
            pinned_in: None,
            signers: &[],
            login,
            namespace: "",
            max_age: None,
        }
    }
}

/// Which repository on which server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) record: RecordKey,
    /// What came over a connection that a policy would not take does not count for it.
    pub(crate) certificate: Option<PinnedCertificate>,
}

impl Key {
    /// That of a question.
    pub(crate) fn of(ask: &Ask<'_>) -> Self {
        Self::new(ask.server, ask.gun, ask.certificate.cloned(), ask.pinned_in)
    }

    /// That of a repository on a server that shows this certificate, pinned in a namespace.
    pub(crate) fn new(
        server: &TrustServer,
        gun: &str,
        certificate: Option<PinnedCertificate>,
        pinned_in: Option<&str>,
    ) -> Self {
        let pinned_in = pinned_in.map(str::to_owned);
        Self { record: RecordKey { pinned_in, ..RecordKey::new(server.as_str(), gun) }, certificate }
    }
}

/// What a flight is for: who is let in, and which roots count, differs from policy to policy and from pod to pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) pins: RootPins,
    pub(crate) login: Login,
}

/// `HOST:PORT` of a server.
pub(crate) fn host_of(server: &str) -> String {
    Url::parse(server).map_or_else(|_| server.to_owned(), |url| host_port(&url))
}
