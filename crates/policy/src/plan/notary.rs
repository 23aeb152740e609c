//! Which trust server is asked for an image, and for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_notary::TrustServer;

use super::{Asking, Defaults, NamedBy};
use crate::evidence::Refusal;
use crate::policies::PolicyKind;
use crate::proof_policy::TrustPolicy;
use crate::secret::SecretRef;

/// Trust servers that are shut down for good: host, the registry whose default it was or that dropped content trust, and the
/// day, in seconds since 1970 and as people write it.
const RETIRED: [(&str, i64, &str); 2] = [
    // https://docs.docker.com/engine/security/trust/: the server stops on 2026-12-08.
    ("notary.docker.io", 1_796_688_000, "2026-12-08"),
    // Azure Container Registry ends content trust on 2028-03-31.
    (".azurecr.io", 1_838_073_600, "2028-03-31"),
];

/// What is asked of a trust server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotaryAsk {
    /// Where to ask.
    pub server: TrustServer,
    /// Who says that this is the place.
    pub named_by: NamedBy,
    /// The repository's name there.
    pub gun: String,
    /// What the entry says: its keys and the names of its secrets, which may be long, are there once for all images.
    pub policy: Arc<TrustPolicy>,
    /// Where its secrets are.
    pub secrets_namespace: String,
}

impl NotaryAsk {
    /// Secrets of signers that must have signed.
    pub fn signer_secrets(&self) -> impl Iterator<Item = SecretRef> {
        self.policy.signer_secrets.iter().map(|name| self.secret(name))
    }

    /// Secrets that hold pinned root keys.
    pub fn root_secrets(&self) -> impl Iterator<Item = SecretRef> {
        self.policy.root_secrets.iter().map(|name| self.secret(name))
    }

    /// The namespace whose `ImagePolicy` says which certificate the server has; `None` if none is pinned, or the operator pins it.
    #[must_use]
    pub fn pinned_in(&self) -> Option<&str> {
        let by_tenant = self.named_by == NamedBy::Tenant && self.policy.server_certificate.is_some();
        by_tenant.then_some(self.secrets_namespace.as_str())
    }

    fn secret(&self, name: &str) -> SecretRef {
        SecretRef { namespace: self.secrets_namespace.clone(), name: name.to_owned() }
    }
}

/// What an entry with trust asks for an image.
pub(crate) fn ask(trust: &Arc<TrustPolicy>, asking: &Asking<'_>) -> Result<NotaryAsk, Refusal> {
    let Asking { found, reference, defaults, now, .. } = asking;
    let usual = default_trust_server(reference.matched_host(), &defaults.trust_servers);
    let server = match &trust.trust_server {
        Some(server) if !may_name(&found.policy.kind, server, defaults) => {
            return Err(Refusal::TrustServerNotAllowed { host: server.host_port().to_owned() });
        }
        Some(server) => server.clone(),
        None => usual.clone()?,
    };
    // Whoever says which certificate the server has says who the server is.
    let by_tenant = matches!(found.policy.kind, PolicyKind::Image { .. });
    let is_usual = usual.as_ref().ok() == Some(&server);
    let is_configured = is_usual && defaults.trust_servers.contains_key(reference.matched_host());
    let named_by = match by_tenant {
        true if trust.server_certificate.is_some() => NamedBy::Tenant,
        // A list names hosts, and what stands at another path of one may be anybody's.
        true if is_configured || (is_listed(&server, defaults) && !server.has_path()) => NamedBy::Operator,
        true if is_usual => NamedBy::Image,
        true => NamedBy::Tenant,
        false if trust.trust_server.is_some() || is_configured => NamedBy::Operator,
        false => asking.registry_named_by(),
    };
    if let Some((host, _, day)) = RETIRED.iter().find(|(host, since, _)| *now >= *since && is_host(&server, host)) {
        return Err(Refusal::Retired { host: host.trim_start_matches('.').to_owned(), day });
    }
    Ok(NotaryAsk {
        gun: reference.repository(),
        server,
        named_by,
        policy: Arc::clone(trust),
        secrets_namespace: asking.secrets_namespace().to_owned(),
    })
}

/// Whoever writes a namespace's policy makes Countersign send requests into its network, so that may be restricted.
fn may_name(kind: &PolicyKind, server: &TrustServer, defaults: &Defaults) -> bool {
    match (kind, &defaults.tenants_may_name) {
        (PolicyKind::Cluster, _) | (_, None) => true,
        (PolicyKind::Image { .. }, Some(hosts)) => {
            hosts.iter().any(|host| host == server.host_port() || host == server.host())
        }
    }
}

/// Whether the operator lists exactly this server as one that tenants may name. A host without a port stands for the ports that such servers
/// have; at others it may be named too, but anybody might listen there.
fn is_listed(server: &TrustServer, defaults: &Defaults) -> bool {
    let usual = [":443", ":4443"].iter().any(|port| server.host_port().ends_with(port));
    let listed = |host: &String| host == server.host_port() || (usual && host == server.host());
    defaults.tenants_may_name.iter().flatten().any(listed)
}

/// The trust server of a registry for entries that name none: the configured one; `quay.io` has its own; for any other it is the
/// registry's host at port 4443.
///
/// # Errors
/// Docker Hub, which has none any more.
pub fn default_trust_server(host: &str, configured: &BTreeMap<String, TrustServer>) -> Result<TrustServer, Refusal> {
    if let Some(server) = configured.get(host) {
        return Ok(server.clone());
    }
    // Docker Hub goes by other names too, none of which has a server at port 4443.
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    if name == "docker.io" || name.ends_with(".docker.io") {
        return Err(Refusal::NoTrustServer { host: host.to_owned() });
    }
    let address = match host {
        "quay.io" => "https://quay.io".to_owned(),
        _ => format!("https://{}:4443", without_port(host)),
    };
    TrustServer::parse(&address).map_err(|_| Refusal::NoTrustServer { host: host.to_owned() })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

fn is_host(server: &TrustServer, host: &str) -> bool {
    if host.starts_with('.') { server.host().ends_with(host) } else { server.host() == host }
}

/// Whether a trust server is one that is shut down now or will be: its host and the day, for `lint`.
#[must_use]
pub fn retirement(server: &TrustServer) -> Option<(&'static str, &'static str)> {
    let found = RETIRED.iter().find(|(host, ..)| is_host(server, host))?;
    Some((found.0.trim_start_matches('.'), found.2))
}

#[cfg(test)]
mod tests;
