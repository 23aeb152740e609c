//! How close two hosts are: whether credentials for one may be shown to the other.

use url::Url;

/// How close two hosts are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// Nothing says that they belong together.
    Other,
    /// Names below one registrable domain, if the last label of a name that the public suffix list does not know counts as a
    /// suffix, as the list has it. Everything in a cluster is below `cluster.local`.
    SameDomain,
    /// Names below one registrable domain, as the public suffix list knows it (`registry.example.co.uk` and
    /// `auth.example.co.uk`, but not `a.co.uk` and `b.co.uk`).
    SameKnownDomain,
    /// One host.
    Same,
}

impl Party {
    /// How close they are.
    pub(crate) fn of(one: &Url, other: &Url) -> Self {
        if one.host().is_some() && one.host() == other.host() {
            return Self::Same;
        }
        let (Some(url::Host::Domain(one)), Some(url::Host::Domain(other))) = (one.host(), other.host()) else {
            return Self::Other;
        };
        match psl::domain(one.as_bytes()) {
            Some(domain) if psl::domain(other.as_bytes()) == Some(domain) => {
                if domain.suffix().is_known() {
                    Self::SameKnownDomain
                } else {
                    Self::SameDomain
                }
            }
            _ => Self::Other,
        }
    }
}
