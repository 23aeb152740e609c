//! Which addresses are never connected to.
//!
//! Whoever names a server may name one on this machine or in this cluster. A server that merely sends us on may not: what is
//! there may let in whoever comes from here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Where clouds give machines their credentials, besides the link-local 169.254.169.254: at Alibaba Cloud, at Oracle's, and the
/// host of every machine at Azure (each vendor's documentation of its metadata service).
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// The same over IPv6, at AWS. It is not link-local there.
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// The same at Google Cloud.
const GOOGLE_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254);

/// Names that lead to such addresses wherever they are looked up. A proxy looks names up itself, so they are known by name too:
/// `localhost` (RFC 6761), and the metadata service of Google Cloud.
const NAMES: [&str; 2] = ["localhost", "metadata.google.internal"];

/// How it comes that a host is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Somebody named it.
    Named,
    /// Another server sent us there.
    Sent,
}

impl Reach {
    /// Whether an address may be connected to.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Named => !is_link_local(address),
            Self::Sent => !is_off_limits(address),
        }
    }

    /// Whether the host of a URL may be asked, as far as it is written there. What a name leads to is seen when it is looked up.
    pub(crate) fn allows_host(self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.allows(address.into()),
            Some(Host::Ipv6(address)) => self.allows(address.into()),
            Some(Host::Domain(name)) => self == Self::Named || !is_off_limits_by_name(name),
            None => false,
        }
    }
}

/// Whether an address is one that a machine's own cloud answers at, with credentials for whoever asks (169.254.169.254).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            embedded(address).is_some_and(|embedded| embedded.is_link_local() || embedded.is_unspecified())
                || address.is_unicast_link_local()
                || address.is_unspecified()
                || address == AWS_METADATA
        }
    }
}

/// Whether an address is this machine's own, or one at which machines are told their secrets. Private networks are not: object
/// storage of one's own is there.
fn is_off_limits(address: IpAddr) -> bool {
    let of_v4 = |address: Ipv4Addr| {
        // All of 0.0.0.0/8 is "this host on this network" (RFC 1122, 3.2.1.3).
        address.is_loopback() || address.is_link_local() || address.octets()[0] == 0 || METADATA_V4.contains(&address)
    };
    match address {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => {
            is_link_local(address.into())
                || address.is_loopback()
                || address == GOOGLE_METADATA
                || embedded(address).is_some_and(of_v4)
        }
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped or compatible (RFC 4291, 2.5.5), or through the well-known prefix of
/// NAT64 (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |address: Ipv6Addr| {
        let [.., a, b, c, d] = address.octets();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(last(address)),
        _ => None,
    }
}

fn is_off_limits_by_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    NAMES.iter().any(|known| name == *known) || name.ends_with(".localhost")
}

/// Looks names up as the system does, and leaves out what may not be connected to. The check stands here, and not before the
/// connection, so that a name cannot have another address by then.
#[derive(Debug)]
pub(crate) struct Lookup(pub(crate) Reach);

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (good, bad): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(|found| reach.allows(found.ip()));
            if good.is_empty() && !bad.is_empty() {
                return Err(match reach {
                    Reach::Named => "its name leads to a link-local address, which is never asked".into(),
                    Reach::Sent => "its name leads to an address that no other server may send us to".into(),
                });
            }
            let addresses: Addrs = Box::new(good.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each address, whether it may be asked when it is named, and whether a redirect to it is followed.
    #[test]
    fn clouds_are_not_asked_for_their_credentials() {
        let cases = [
            ("169.254.169.254", false, false),
            ("169.254.0.1", false, false),
            ("0.0.0.0", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("fd00:ec2::254", false, false),
            ("::", false, false),
            ("127.0.0.1", true, false),
            ("127.255.255.254", true, false),
            ("::1", true, false),
            ("::ffff:127.0.0.1", true, false),
            ("::127.0.0.1", true, false),
            ("64:ff9b::7f00:1", true, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("0.0.0.1", true, false),
            ("100.100.100.200", true, false),
            ("192.0.0.192", true, false),
            ("168.63.129.16", true, false),
            ("::ffff:100.100.100.200", true, false),
            ("fd20:ce::254", true, false),
            ("10.0.0.1", true, true),
            ("172.16.0.1", true, true),
            ("192.168.1.1", true, true),
            ("203.0.113.1", true, true),
            ("fd00::1", true, true),
            ("2001:db8::1", true, true),
            ("64:ff9b::a00:1", true, true),
            ("::ffff:10.0.0.1", true, true),
        ];
        for (text, named, sent) in cases {
            let address = text.parse().unwrap();
            assert_eq!((Reach::Named.allows(address), Reach::Sent.allows(address)), (named, sent), "{text}");
        }
    }

    #[test]
    fn names() {
        for (text, sent) in [
            ("https://localhost/", false),
            ("https://LOCALHOST.:8443/", false),
            ("https://a.b.localhost/", false),
            ("https://metadata.google.internal/computeMetadata/v1/", false),
            ("https://2130706433/", false),
            ("https://0x7f.1/", false),
            ("https://notlocalhost/", true),
            ("https://storage.example.com/", true),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(Reach::Sent.allows_host(&url), sent, "{text}");
            assert!(Reach::Named.allows_host(&url), "{text}");
        }
    }

    /// A name that leads nowhere else is as good as not found.
    #[tokio::test]
    async fn names_are_looked_up() {
        let found = |reach| async move { Lookup(reach).resolve("localhost".parse().unwrap()).await };
        assert!(found(Reach::Named).await.unwrap().all(|address| address.ip().is_loopback()));
        let refused = found(Reach::Sent).await.err().unwrap().to_string();
        assert_eq!(refused, "its name leads to an address that no other server may send us to");
    }
}
