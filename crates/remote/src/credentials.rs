//! Who we are to a registry or trust server, and the tokens that we get for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::challenge::{self, Challenge};
use crate::http::{HttpClient, HttpError, host_port};

/// The most bytes that a token server's answer may have. Tokens of some kilobytes occur.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// How long a token lives if its server does not say (the distribution token specification).
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token is not used in its last seconds: the request must still arrive.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// How many tokens are kept.
const MAX_TOKENS: usize = 4096;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A user name and password for one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl Credential {
    fn basic(&self) -> Option<HeaderValue> {
        let encoded = STANDARD.encode(format!("{}:{}", self.username, self.password.0));
        HeaderValue::from_str(&format!("Basic {encoded}")).ok()
    }
}

/// Why a docker configuration cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DockerConfigError {
    /// Not JSON, or not of the known shape. The text itself is never shown: it holds secrets.
    #[error("not a docker config.json (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An `auth` that is not base64 of `user:password`.
    #[error("the \"auth\" of {host:?} is not base64 of user:password")]
    BadAuth {
        /// The entry.
        host: String,
    },
}

/// The `auths` of a docker `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    auths: HashMap<String, Credential>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl DockerConfig {
    /// Reads a `config.json`, or the data of a `kubernetes.io/dockerconfigjson` secret.
    ///
    /// # Errors
    /// Text of another shape, or an `auth` that cannot be read.
    pub fn parse(text: &[u8]) -> Result<Self, DockerConfigError> {
        let malformed =
            |error: serde_json::Error| DockerConfigError::Malformed { line: error.line(), column: error.column() };
        // A map first: serde would also take a list for a struct.
        let raw: HashMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(malformed)?;
        let entries: HashMap<String, RawAuth> = match raw.get("auths") {
            Some(entries) => HashMap::deserialize(entries).map_err(malformed)?,
            None => HashMap::new(),
        };
        let mut auths = HashMap::new();
        for (host, auth) in entries {
            let pair = match auth.auth.filter(|auth| !auth.is_empty()) {
                Some(auth) => {
                    let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
                    let (user, password) = pair.ok_or_else(|| DockerConfigError::BadAuth { host: host.clone() })?;
                    Some((user.to_owned(), password.to_owned()))
                }
                None => auth.username.zip(auth.password),
            };
            if let Some((username, password)) = pair {
                auths.insert(entry_host(&host).to_owned(), Credential { username, password: Secret(password) });
            }
        }
        Ok(Self { auths })
    }

    /// The credential for a host: an entry for `HOST:PORT`, else one for the bare host.
    #[must_use]
    pub fn for_host(&self, host_port: &str) -> Option<&Credential> {
        let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host);
        self.auths.get(host_port).or_else(|| self.auths.get(host))
    }
}

/// The host of an entry's key, which may have a scheme and a path (`https://index.docker.io/v1/`).
fn entry_host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Why a server's challenge could not be answered. None of these is a decision about the image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The challenge names no scheme that we speak.
    #[error("{host} asks for a login of a kind that is not supported")]
    Unsupported {
        /// `HOST:PORT`
        host: String,
    },
    /// The token server is on plain http, or named by something that is no URL.
    #[error("{host} names the token server {realm:?}, which is not an https address; nothing is sent there")]
    BadRealm {
        /// `HOST:PORT` of the server that asked.
        host: String,
        /// The realm.
        realm: String,
    },
    /// The server refuses what we are.
    #[error("{host} refuses access{}", by(*.anonymous))]
    Refused {
        /// `HOST:PORT`
        host: String,
        /// Whether we had no credential to show.
        anonymous: bool,
    },
    /// The token server's answer makes no sense.
    #[error("the token server {host} answered {what}")]
    BadToken {
        /// `HOST:PORT`
        host: String,
        /// What it answered.
        what: String,
    },
    /// The token server could not be reached.
    #[error("token server: {0}")]
    Http(HttpError),
}

fn by(anonymous: bool) -> &'static str {
    if anonymous { " (no credentials are configured for it)" } else { " to the configured user" }
}

/// Answers challenges: Basic directly, Bearer through its token server. Tokens are kept until shortly before they expire.
#[derive(Debug, Default)]
pub struct Authenticator {
    config: DockerConfig,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: String,
    service: String,
    scope: String,
    credential: Option<Credential>,
}

#[derive(Debug, Clone)]
struct Token {
    text: Secret,
    good_until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authenticator {
    /// Takes the credentials that are configured for hosts.
    #[must_use]
    pub fn new(config: DockerConfig) -> Self {
        Self { config, tokens: Mutex::default() }
    }

    /// The `Authorization` that answers the challenges of a server.
    ///
    /// A credential goes to the server that asked only over https, and to a token server only if that is on https too and on
    /// the same host or below the same parent domain. A token server elsewhere is asked anonymously.
    ///
    /// # Errors
    /// No challenge that can be answered, or a token server that does not give a token.
    pub async fn answer(&self, http: &HttpClient, url: &Url, headers: &[String]) -> Result<HeaderValue, AuthError> {
        let host = host_port(url);
        let challenges: Vec<Challenge> = headers.iter().flat_map(|header| challenge::parse(header)).collect();
        let credential = self.config.for_host(&host).filter(|_| url.scheme() == "https");
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let token = self.token(http, url, bearer, credential).await?;
            return bearer_header(&token)
                .ok_or_else(|| AuthError::BadToken { host, what: "a token that no header can hold".into() });
        }
        if !challenges.iter().any(|challenge| challenge.scheme == "basic") {
            return Err(AuthError::Unsupported { host });
        }
        credential.and_then(Credential::basic).ok_or(AuthError::Refused { host, anonymous: true })
    }

    /// What is said when the server refuses what [`Self::answer`] gave.
    #[must_use]
    pub fn refused(&self, url: &Url) -> AuthError {
        let host = host_port(url);
        AuthError::Refused { anonymous: self.config.for_host(&host).is_none(), host }
    }

    async fn token(
        &self,
        http: &HttpClient,
        url: &Url,
        bearer: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<Secret, AuthError> {
        let named = bearer.parameter("realm").unwrap_or_default();
        let realm = Url::parse(named).ok().filter(|realm| realm.scheme() == "https" && realm.host_str().is_some());
        let mut realm = realm
            .ok_or_else(|| AuthError::BadRealm { host: host_port(url), realm: named.chars().take(200).collect() })?;
        let credential = credential.filter(|_| may_share(url, &realm));
        let key = TokenKey {
            realm: realm.to_string(),
            service: bearer.parameter("service").unwrap_or_default().to_owned(),
            scope: bearer.parameter("scope").unwrap_or_default().to_owned(),
            credential: credential.cloned(),
        };
        if let Some(token) = self.kept(&key) {
            return Ok(token);
        }
        {
            let mut query = realm.query_pairs_mut();
            for (name, value) in [("service", &key.service), ("scope", &key.scope)] {
                if !value.is_empty() {
                    query.append_pair(name, value);
                }
            }
        }
        let answer = http.get(&realm, credential.and_then(Credential::basic), MAX_TOKEN_BYTES).await;
        let answer = answer.map_err(AuthError::Http)?;
        let host = host_port(&realm);
        match answer.status {
            200 => {}
            401 | 403 => return Err(AuthError::Refused { host, anonymous: credential.is_none() }),
            status => return Err(AuthError::BadToken { host, what: format!("{status}") }),
        }
        let parsed: Option<TokenAnswer> = Some(&answer.body)
            .filter(|body| body.len() as u64 <= MAX_TOKEN_BYTES)
            .and_then(|body| serde_json::from_slice(body).ok());
        let bad = || AuthError::BadToken { host: host.clone(), what: "something that holds no token".into() };
        let parsed = parsed.ok_or_else(bad)?;
        let text = parsed.token.or(parsed.access_token).filter(|token| !token.is_empty()).ok_or_else(bad)?;
        let text = Secret(text);
        let life = parsed.expires_in.map_or(DEFAULT_TOKEN_LIFE, Duration::from_secs).min(Duration::from_secs(3600));
        self.keep(key, Token { text: text.clone(), good_until: Instant::now() + life.saturating_sub(TOKEN_MARGIN) });
        Ok(text)
    }

    fn kept(&self, key: &TokenKey) -> Option<Secret> {
        let tokens = self.tokens.lock().ok()?;
        tokens.get(key).filter(|token| token.good_until > Instant::now()).map(|token| token.text.clone())
    }

    fn keep(&self, key: TokenKey, token: Token) {
        if let Ok(mut tokens) = self.tokens.lock() {
            if tokens.len() >= MAX_TOKENS {
                let now = Instant::now();
                tokens.retain(|_, token| token.good_until > now);
            }
            if tokens.len() < MAX_TOKENS {
                tokens.insert(key, token);
            }
        }
    }
}

fn bearer_header(token: &Secret) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("Bearer {}", token.0)).ok()
}

/// Whether a credential for one server may be shown to a token server: on the same host, or both below one parent domain
/// of at least two labels (`registry.example.com` and `auth.example.com`).
fn may_share(server: &Url, realm: &Url) -> bool {
    if server.scheme() != "https" || realm.scheme() != "https" {
        return false;
    }
    let (Some(url::Host::Domain(server)), Some(url::Host::Domain(realm))) = (server.host(), realm.host()) else {
        return server.host() == realm.host();
    };
    let parent = |host: &str| {
        let parent = host.split_once('.').map(|(_, parent)| parent.to_owned());
        parent.filter(|parent| parent.contains('.'))
    };
    server == realm || parent(server).is_some_and(|shared| Some(shared) == parent(realm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_configurations_are_read() {
        let auth = STANDARD.encode("alice:pass:word");
        let text = format!(
            r#"{{"auths":{{"https://reg.example.com:5000/v1/":{{"auth":"{auth}"}},"other.example.com":{{"username":"bob","password":"x"}},"empty":{{}}}}}}"#
        );
        let config = DockerConfig::parse(text.as_bytes()).unwrap();
        let credential =
            |host: &str| config.for_host(host).map(|found| (found.username.as_str(), found.password.0.as_str()));
        assert_eq!(credential("reg.example.com:5000"), Some(("alice", "pass:word")));
        assert_eq!(credential("other.example.com:4443"), Some(("bob", "x")));
        assert_eq!(credential("reg.example.com:5001"), None);
        assert_eq!(credential("empty:443"), None);
        let shown = format!("{config:?}");
        assert!(shown.contains("alice") && !shown.contains("pass:word") && !shown.contains("word\""), "{shown}");
    }

    #[test]
    fn broken_configurations_are_refused_without_showing_them() {
        for text in ["", "[]", "{\"auths\":3}", "{\"auths\":{\"h\":{\"auth\":\"c2VjcmV0\"}}}"] {
            let error = DockerConfig::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("c2VjcmV0") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_stay_home() {
        let cases = [
            ("https://reg.example.com:5000", "https://reg.example.com/token", true),
            ("https://reg.example.com", "https://auth.example.com/token", true),
            ("https://reg.example.com", "http://reg.example.com/token", false),
            ("https://reg.example.com", "https://example.org/token", false),
            ("https://a.com", "https://b.com/token", false),
            ("https://127.0.0.1:5000", "https://127.0.0.1:5001/token", true),
            ("https://127.0.0.1:5000", "https://127.0.0.2/token", false),
            ("http://reg.example.com", "https://reg.example.com/token", false),
        ];
        for (server, realm, expected) in cases {
            let url = |text| Url::parse(text).unwrap();
            assert_eq!(may_share(&url(server), &url(realm)), expected, "{server} {realm}");
        }
    }
}
