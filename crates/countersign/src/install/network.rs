//! Who may connect to the pods of the installation, where the cluster's network enforces a `NetworkPolicy`.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Value, json};
use thiserror::Error;

use super::{Install, NAME_LABEL, OPERATIONS_PORT, REVIEWS_PORT};
use crate::cluster::is_object_name;

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Addresses: `10.0.0.0/28`.
    Addresses(String),
    /// The pods of a namespace.
    Namespace(String),
}

/// A text that is neither a range of addresses nor the name of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is neither a range of addresses, such as 10.0.0.0/28, nor the name of a namespace")]
pub(crate) struct NoSource;

impl FromStr for Source {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        let Some((address, bits)) = text.split_once('/') else {
            let is_namespace = is_object_name(text) && !text.contains('.');
            return is_namespace.then(|| Self::Namespace(text.to_owned())).ok_or(NoSource);
        };
        let address: IpAddr = address.parse().map_err(|_| NoSource)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let whole = bits.parse::<u8>().is_ok_and(|number| number <= most && number.to_string() == bits);
        if whole { Ok(Self::Addresses(text.to_owned())) } else { Err(NoSource) }
    }
}

impl Source {
    fn peer(&self) -> Value {
        match self {
            Self::Addresses(range) => json!({"ipBlock": {"cidr": range}}),
            Self::Namespace(name) => json!({"namespaceSelector": {"matchLabels": {NAME_LABEL: name}}}),
        }
    }
}

impl Install {
    /// Nothing but reviews and probes comes in. Who sends reviews must be said by whoever knows: the API server has no label, and no address
    /// that is the same everywhere. Probes come from the node of the pod, which a `NetworkPolicy` never keeps out.
    pub(super) fn network_policy(&self) -> Value {
        let ingress =
            [(REVIEWS_PORT, &self.reviews_from), (OPERATIONS_PORT, &self.operations_from)].map(|(port, from)| {
                let mut rule = json!({"ports": [{"port": port, "protocol": "TCP"}]});
                if !from.is_empty() {
                    rule["from"] = from.iter().map(Source::peer).collect();
                }
                rule
            });
        let spec = json!({
            "podSelector": {"matchLabels": Self::selector()},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        });
        self.object("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": spec}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_ranges_and_namespaces() {
        for text in ["10.0.0.0/28", "0.0.0.0/0", "fd00::/8", "192.0.2.1/32"] {
            assert_eq!(text.parse(), Ok(Source::Addresses(text.to_owned())));
        }
        assert_eq!("monitoring".parse(), Ok(Source::Namespace("monitoring".to_owned())));
        for text in
            ["", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/+8", "x/8", "A", "a.b", "10.0.0.0/8 "]
        {
            assert_eq!(text.parse::<Source>(), Err(NoSource), "{text:?}");
        }
    }

    #[test]
    fn each_port_has_its_own_sources() {
        let from = vec![Source::Addresses("10.0.0.0/28".into()), Source::Namespace("kube-system".into())];
        let policy = Install { reviews_from: from, ..Install::default() }.network_policy();
        assert_eq!(
            policy["spec"]["ingress"],
            json!([
                {"ports": [{"port": 8443, "protocol": "TCP"}], "from": [
                    {"ipBlock": {"cidr": "10.0.0.0/28"}},
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
                ]},
                {"ports": [{"port": 8081, "protocol": "TCP"}]},
            ])
        );
    }
}
