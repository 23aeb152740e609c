//! Docker's configuration files, and which of their credentials are for whom.

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// How many entries one configuration may have. People have a handful; a Secret holds at most a megabyte.
const MAX_ENTRIES: usize = 1000;

/// The ports at which a cluster opens services of its users on every node, unless it is set up otherwise (Kubernetes,
/// `--service-node-port-range`): whoever is there is not who keeps the machine.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// Whether users of a cluster may have put something at a port (of `HOST:PORT`).
pub(crate) fn is_node_port(host_port: &str) -> bool {
    let port = split_port(host_port).1.and_then(|port| port.parse().ok());
    port.is_some_and(|port| NODE_PORTS.contains(&port))
}

/// How much it takes for a server to be shown the credentials for its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// It is the server that the entry means.
    None,
    /// An entry without a port does not mean the ports that users of a cluster may have.
    NodePorts,
    /// Nor does an entry with a pattern mean any server that somebody names.
    Names,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is shown to a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A user name and a password.
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that a token server takes for another one (`OAuth2`, grant type `refresh_token`).
    IdentityToken(Secret),
}

impl Credential {
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else {
            return None;
        };
        let encoded = STANDARD.encode(format!("{username}:{}", password.reveal()));
        HeaderValue::from_str(&format!("Basic {encoded}")).ok()
    }
}

/// Why a docker configuration cannot be read. The text itself is never shown: it holds secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DockerConfigError {
    /// Not JSON.
    #[error("not a docker configuration: it is no JSON (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// JSON of another shape.
    #[error("not a docker configuration: {0}")]
    Shape(&'static str),
    /// An entry that cannot be read.
    #[error("not a docker configuration: the entry of {host:?} {problem}")]
    Entry {
        /// The entry's key, shortened.
        host: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Who a credential is for, as the kubelet reads it: `HOST[:PORT][/PATH]`, where a label of the host may have `*` in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pattern {
    host: String,
    port: Option<String>,
    path: String,
}

impl Pattern {
    fn parse(key: &str) -> Self {
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // `https://index.docker.io/v1/` means the host.
        let path = path.trim_end_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let (host, port) = split_port(authority);
        let host =
            if host.eq_ignore_ascii_case("index.docker.io") { "docker.io".to_owned() } else { host.to_lowercase() };
        Self { host, port: port.map(str::to_owned), path: path.to_owned() }
    }

    fn matches_host(&self, host: &str) -> bool {
        let (mut ours, mut theirs) = (self.host.split('.'), host.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(pattern), Some(label)) if matches_label(pattern, label) => {}
                _ => return false,
            }
        }
    }
}

/// `HOST:PORT`, where the host may be an IPv6 address in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `*` stands for any run of characters of one label.
fn matches_label(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = label.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The credentials of one configuration, the most exact first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DockerConfig {
    entries: Vec<(Pattern, Credential)>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a `config.json`, or the data of a `kubernetes.io/dockerconfigjson` secret.
    ///
    /// # Errors
    /// Text of another shape, or an entry that cannot be read.
    pub fn parse(text: &[u8]) -> Result<Self, DockerConfigError> {
        match object(text)?.remove("auths") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Object(entries)) => Self::of(entries),
            Some(_) => Err(DockerConfigError::Shape("its \"auths\" is no object")),
        }
    }

    /// Reads the data of a `kubernetes.io/dockercfg` secret: the entries alone, as docker wrote them before 1.7.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_legacy(text: &[u8]) -> Result<Self, DockerConfigError> {
        Self::of(object(text)?)
    }

    fn of(entries: Map<String, Value>) -> Result<Self, DockerConfigError> {
        if entries.len() > MAX_ENTRIES {
            return Err(DockerConfigError::Shape("it has more than 1000 entries"));
        }
        let mut config = Self::default();
        for (host, entry) in entries {
            let failed = |problem| DockerConfigError::Entry { host: host.chars().take(200).collect(), problem };
            if !entry.is_object() {
                return Err(failed("is no object"));
            }
            let raw = RawAuth::deserialize(entry).map_err(|_| failed("has a member that is no string"))?;
            if let Some(credential) = credential(raw).map_err(failed)? {
                config.entries.push((Pattern::parse(&host), credential));
            }
        }
        // As the kubelet does: the longer key first, so that an entry for a path comes before the one for its host.
        config.entries.sort_by_key(|(pattern, _)| {
            let stars = pattern.host.matches('*').count();
            (std::cmp::Reverse(pattern.path.len()), stars, pattern.port.is_none())
        });
        Ok(config)
    }

    /// Credentials that are meant for a server: those of its host, for its port or for none in particular.
    pub(crate) fn for_server<'a>(&'a self, host_port: &'a str, care: Care) -> impl Iterator<Item = &'a Credential> {
        let (host, port) = split_port(host_port);
        let any_port = care == Care::None || !is_node_port(host_port);
        self.entries
            .iter()
            .filter(move |(pattern, _)| {
                let for_port = pattern.port.as_deref().map_or(any_port, |ours| Some(ours) == port);
                let by_name = care != Care::Names || !pattern.host.contains('*');
                pattern.path.is_empty() && pattern.matches_host(host) && for_port && by_name
            })
            .map(|(_, credential)| credential)
    }

    /// Credentials that the kubelet would pull an image with: `HOST[:PORT]/PATH`. `by_name` leaves out those for a pattern of hosts.
    pub(crate) fn for_image<'a>(&'a self, repository: &'a str, by_name: bool) -> impl Iterator<Item = &'a Credential> {
        let (authority, path) = repository.split_once('/').unwrap_or((repository, ""));
        let (host, port) = split_port(authority);
        self.entries
            .iter()
            .filter(move |(pattern, _)| {
                let by_name = !by_name || !pattern.host.contains('*');
                let is_there = pattern.port.as_deref() == port && pattern.matches_host(host);
                is_there && path.starts_with(&pattern.path) && by_name
            })
            .map(|(_, credential)| credential)
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, DockerConfigError> {
    let read = serde_json::from_slice::<Value>(text)
        .map_err(|error| DockerConfigError::Malformed { line: error.line(), column: error.column() })?;
    match read {
        Value::Object(members) => Ok(members),
        _ => Err(DockerConfigError::Shape("it is no object")),
    }
}

fn credential(raw: RawAuth) -> Result<Option<Credential>, &'static str> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(token) = given(raw.identitytoken) {
        return Ok(Some(Credential::IdentityToken(Secret(token))));
    }
    let pair = match given(raw.auth) {
        Some(auth) => {
            // With or without padding, as the kubelet reads it.
            let decoded = STANDARD_NO_PAD
                .decode(auth.trim().trim_end_matches('='))
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let (user, password) = pair.ok_or("has an \"auth\" that is not base64 of user:password")?;
            // docker login leaves NUL characters behind a password that it read from some terminals.
            Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
        }
        None => raw.username.zip(raw.password),
    };
    Ok(pair.map(|(username, password)| Credential::Password { username, password: Secret(password) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users<'a>(found: impl Iterator<Item = &'a Credential>) -> Vec<String> {
        let name = |credential: &Credential| match credential {
            Credential::Password { username, password } => format!("{username}:{}", password.reveal()),
            Credential::IdentityToken(token) => token.reveal().to_owned(),
        };
        found.map(name).collect()
    }

    #[test]
    fn docker_configurations_are_read() {
        let auth = STANDARD.encode("alice:pass:word");
        let text = format!(
            r#"{{"auths":{{"https://reg.example.com:5000/v1/":{{"auth":"{auth}"}},"other.example.com":{{"username":"bob","password":"x"}},"id.example.com":{{"identitytoken":"t"}},"empty":{{}}}},"credsStore":"x"}}"#
        );
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(users(config.for_server("reg.example.com:5000", Care::None)), ["alice:pass:word"]);
        assert_eq!(users(config.for_server("other.example.com:4443", Care::None)), ["bob:x"]);
        assert_eq!(users(config.for_server("id.example.com:443", Care::None)), ["t"]);
        assert!(users(config.for_server("reg.example.com:5001", Care::None)).is_empty());
        for (care, port, found) in [(Care::None, 30_443, 1), (Care::NodePorts, 30_443, 0), (Care::NodePorts, 29_999, 1)]
        {
            assert_eq!(
                users(config.for_server(&format!("other.example.com:{port}"), care)).len(),
                found,
                "{care:?} {port}"
            );
        }
        assert!(users(config.for_server("empty:443", Care::None)).is_empty());
        let shown = format!("{config:?}");
        assert!(shown.contains("alice") && !shown.contains("pass:word") && !shown.contains("\"x\""), "{shown}");
        let legacy = DockerConfig::parse_legacy(br#"{"h.io":{"username":"u","password":"p","email":"e"}}"#).unwrap();
        assert_eq!(users(legacy.for_image("h.io/x", false)), ["u:p"]);
    }

    /// The cases of the Kubernetes documentation on `imagePullSecrets`, and their traps.
    #[test]
    fn keys_match_as_the_kubelet_matches_them() {
        let cases = [
            ("h.io", "h.io/x", true),
            ("https://h.io/v2/", "h.io/x", true),
            ("h.io", "h.io:5000/x", false),
            ("h.io:5000", "h.io:5000/x", true),
            ("h.io:5000", "h.io/x", false),
            ("*.h.io", "a.h.io/x", true),
            ("*.h.io", "h.io/x", false),
            ("*.h.io", "a.b.h.io/x", false),
            ("*.*.h.io", "a.b.h.io/x", true),
            ("prefix.*.io", "prefix.k8s.io/x", true),
            ("*-good.h.io", "prefix-good.h.io/x", true),
            ("*.h.io/team", "a.h.io/team/x", true),
            ("h.io/team", "h.io/other/x", false),
            ("h.io", "evil-h.io/x", false),
            ("h.io", "h.io.evil.com/x", false),
            ("*", "h.io/x", false),
            ("https://index.docker.io/v1/", "docker.io/library/nginx", true),
            ("[::1]:5000", "[::1]:5000/x", true),
            ("H.IO", "h.io/x", true),
        ];
        for (key, image, expected) in cases {
            let text = serde_json::json!({"auths": {key: {"username": "u", "password": "p"}}}).to_string();
            let config = DockerConfig::parse(text.as_bytes()).unwrap();
            assert_eq!(!users(config.for_image(image, false)).is_empty(), expected, "{key} {image}");
        }
        let text = r#"{"auths":{"h.io":{"username":"host","password":""},"*.io":{"username":"star","password":""},"h.io/team":{"username":"team","password":""}}}"#;
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(users(config.for_image("h.io/team/app", false)), ["team:", "host:", "star:"]);
        assert_eq!(users(config.for_image("h.io/team/app", true)), ["team:", "host:"]);
    }

    #[test]
    fn broken_configurations_are_refused_without_showing_them() {
        for text in [
            "",
            "[]",
            "\"secret\"",
            "{\"auths\":3}",
            "{\"auths\":{\"h\":[]}}",
            "{\"auths\":{\"h\":{\"auth\":5}}}",
            "{\"auths\":{\"h\":{\"auth\":\"c2VjcmV0\"}}}",
            "{\"auths\":{\"h\":{\"password\":{\"secret\":1}}}}",
        ] {
            let error = DockerConfig::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("c2VjcmV0") && !error.contains("secret"), "{error}");
        }
    }
}
