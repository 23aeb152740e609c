//! Which credentials a trust server, a registry or a token server is shown, and the tokens that are got for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::challenge::{self, Challenge};
use crate::docker_config::{Care, Credential, DockerConfig, Secret, is_node_port};
use crate::http::{Cures, HttpClient, HttpError, Request, Response, Retry, host_port};
use crate::login::{Login, NamedBy};
use crate::party::Party;

/// The most bytes that a token server's answer may have. Tokens of some kilobytes occur.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// How long a token lives if its server does not say (the distribution token specification).
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token is not used in its last seconds: the request must still arrive.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// How many tokens are kept.
const MAX_TOKENS: usize = 1024;

/// How long realm, service and scope of a challenge may be.
const MAX_PARAMETER: usize = 2048;

/// How many credentials are tried for one repository. A pod has a few pull secrets, each with a few entries.
const MAX_TRIES: usize = 16;

/// What helps with a token server that cannot be asked. The server that named it asks for the login.
const CURES: Cures = Cures {
    unknown_authority: "give that authority's certificate with --trust-ca",
    namesake: "if another one has the same name, give its certificate with --trust-ca",
    redirect: "name the final address as the trust server",
    pin: "",
};

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
    /// The token server is on plain http, or named by something that is no URL, or by one with a user name in it.
    #[error("{host} names the token server {realm:?}, which is not an https address; nothing is sent there")]
    BadRealm {
        /// `HOST:PORT` of the server that asked.
        host: String,
        /// The realm.
        realm: String,
    },
    /// Nobody is let in without a credential, and there is none.
    #[error(
        "{host} asks for a login, and there are no credentials for it; add a pull secret to the pod or its service account"
    )]
    NoCredentials {
        /// `HOST:PORT`
        host: String,
    },
    /// Whoever checks passwords refuses ours.
    #[error("{host} refuses the login with the credentials at hand: wrong user name, password or token")]
    WrongCredentials {
        /// `HOST:PORT` of the trust server, or of the token server that it named.
        host: String,
    },
    /// We are who we say, and may not read the repository.
    #[error("{host} gives no access to {repository} with the credentials at hand")]
    NoAccess {
        /// `HOST:PORT`
        host: String,
        /// The repository.
        repository: String,
    },
    /// The token server's answer makes no sense.
    #[error("the token server {host} answered {what}")]
    BadToken {
        /// `HOST:PORT`
        host: String,
        /// What it answered.
        what: String,
    },
    /// The server's challenge asks for more than to read the repository.
    #[error(
        "{host} asks for a token for {scope:?}, which is not to pull {repository}; no credentials are used for that"
    )]
    BadScope {
        /// `HOST:PORT`
        host: String,
        /// The repository.
        repository: String,
        /// What it asks for.
        scope: String,
    },
    /// There are credentials, but the token server is somebody else's.
    #[error(
        "{host} names the token server {realm}, which gets no credentials since it is on another domain, and gives nothing without; if it is the right one, list it under token-servers of {host}"
    )]
    ForeignRealm {
        /// `HOST:PORT` of the server that asked.
        host: String,
        /// `HOST:PORT` of the token server.
        realm: String,
    },
    /// The token server could not be reached.
    #[error("token server: {}", .0.with(&CURES))]
    Http(HttpError),
}

/// Why nobody was let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginError {
    /// For want of a credential that would do.
    #[error(transparent)]
    Auth(AuthError),
    /// The server could not be asked again.
    #[error(transparent)]
    Http(HttpError),
}

/// Whoever keeps passwords for the user of a command, as Docker's credential helpers do.
pub trait CredentialHelper: Send + Sync + std::fmt::Debug {
    /// The credentials for a host (`HOST` or `HOST:PORT`), as the configuration that would say them; nothing if it has none. It is asked
    /// once for each time that a server of that host, or for its images, wants a login.
    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Arc<DockerConfig>>>;
}

/// Answers challenges: Basic directly, Bearer through its token server. Tokens are kept until shortly before they expire.
#[derive(Debug, Default)]
pub struct Authenticator {
    config: Arc<DockerConfig>,
    /// Asked for what the configuration does not say itself.
    helper: Option<Arc<dyn CredentialHelper>>,
    realms: HashMap<String, Vec<String>>,
    /// Trust servers (`HOST:PORT`) that are configured for registries, which get the credentials of those.
    pairs: HashSet<(String, String)>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
    /// Held while a token is asked for, so that the others who want it wait for that one.
    asking: Mutex<HashMap<TokenKey, Weak<tokio::sync::Mutex<()>>>>,
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
    /// Takes the credentials that are configured.
    #[must_use]
    pub fn new(config: DockerConfig) -> Self {
        Self { config: Arc::new(config), ..Self::default() }
    }

    /// Asks a helper as well, for hosts that want a login. What it gives counts as configured.
    #[must_use]
    pub fn with_helper(self, helper: Arc<dyn CredentialHelper>) -> Self {
        Self { helper: Some(helper), ..self }
    }

    /// What the helper has for a server and for the registry of a repository.
    async fn helped(&self, server: &Url, repository: &str) -> Vec<Arc<DockerConfig>> {
        let Some(helper) = &self.helper else {
            return Vec::new();
        };
        let registry = repository.split('/').next().unwrap_or_default();
        let with_port = host_port(server);
        let mut hosts = vec![with_port.as_str(), server.host_str().unwrap_or_default(), registry];
        hosts.dedup();
        let mut found = Vec::new();
        for host in hosts {
            found.extend(helper.credentials(host).await);
        }
        found
    }

    /// Lets a server (`HOST` or `HOST:PORT`) name token servers on other hosts, which then get credentials too.
    pub fn allow_realms(&mut self, server: &str, hosts: Vec<String>) {
        self.realms.entry(server.to_owned()).or_default().extend(hosts);
    }

    /// Lets a trust server (`HOST:PORT`) have the credentials for a registry (as in images), whatever their domains.
    pub fn allow_pair(&mut self, registry: &str, server: &str) {
        self.pairs.insert((registry.to_owned(), server.to_owned()));
    }

    /// The credentials that may be shown to a server, best first: in each configuration those for the server itself, then
    /// those for the registry of the repository if the server is of the same party.
    pub(crate) fn candidates(
        &self,
        login: &Login,
        server: &Url,
        repository: &str,
        helped: &[Arc<DockerConfig>],
    ) -> Vec<Credential> {
        if server.scheme() != "https" {
            return Vec::new();
        }
        let host = host_port(server);
        let registry = repository.split('/').next().unwrap_or_default();
        let is_operators = login.named_by == NamedBy::Operator;
        let party = match Url::parse(&format!("https://{registry}")) {
            // The pair is of the server that the operator named; a tenant may name another path of its host, which may be anybody's.
            _ if is_operators && self.pairs.contains(&(registry.to_owned(), host.clone())) => Party::Same,
            Ok(registry) => Party::of(&registry, server),
            Err(_) => Party::Other,
        };
        let at_node_port = is_node_port(&host) && !registry.ends_with(&host[host.rfind(':').unwrap_or(0)..]);
        let of_pod = login.configs.iter().map(|config| (config, false));
        let mut found: Vec<Credential> = Vec::new();
        let configured = [&self.config].into_iter().chain(helped).map(|config| (config, true));
        for (config, is_configured) in of_pod.chain(configured) {
            let (care, shares) = match (is_configured, login.named_by) {
                (false, NamedBy::Operator | NamedBy::Image) => (Care::None, party >= Party::SameDomain),
                // The namespace's own, for a server that the namespace names.
                (false, NamedBy::Tenant | NamedBy::TenantWithCertificate) => {
                    (Care::None, party >= Party::SameKnownDomain)
                }
                (true, NamedBy::Operator) => (Care::NodePorts, party >= Party::SameDomain),
                (true, NamedBy::Image | NamedBy::Tenant) => (Care::Names, party == Party::Same && !at_node_port),
                // The tenant says who the server is: that is nobody whom the operator knows.
                (true, NamedBy::TenantWithCertificate) => continue,
            };
            let by_name = is_configured && login.named_by != NamedBy::Operator;
            let images = shares.then(|| config.for_image(repository, by_name)).into_iter().flatten();
            for credential in config.for_server(&host, care).chain(images) {
                if !found.contains(credential) && found.len() < MAX_TRIES {
                    found.push(credential.clone());
                }
            }
        }
        found
    }

    /// The `Authorization` that answers the challenges of a server with a credential, or with none.
    ///
    /// A credential goes to the server that asked only over https, and to a token server only if that is on https too and on
    /// the same host, below the same registrable domain, or allowed by the configuration.
    ///
    /// # Errors
    /// No challenge that can be answered, or a token server that does not give a token.
    pub async fn answer(
        &self,
        http: &HttpClient,
        url: &Url,
        repository: &str,
        headers: &[String],
        credential: Option<&Credential>,
    ) -> Result<HeaderValue, AuthError> {
        let host = host_port(url);
        let challenges: Vec<Challenge> = headers.iter().flat_map(|header| challenge::parse(header)).collect();
        let credential = credential.filter(|_| url.scheme() == "https");
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let token = self.token(http, url, repository, bearer, credential).await?;
            let header = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
            return header.map_err(|_| AuthError::BadToken { host, what: "a token that no header can hold".into() });
        }
        if !challenges.iter().any(|challenge| challenge.scheme == "basic") {
            return Err(AuthError::Unsupported { host });
        }
        credential.and_then(Credential::basic).ok_or(AuthError::NoCredentials { host })
    }

    /// Answers the challenges of a refusal with each credential in turn, and with none at the end, until the server gives
    /// something. `send` asks it again with an `Authorization`; that which was let in is given back too.
    ///
    /// # Errors
    /// What was wrong with the best of the credentials, or what kept them from being tried.
    pub async fn log_in<'a>(
        &self,
        http: &HttpClient,
        url: &Url,
        repository: &str,
        login: &Login,
        refusal: &Response,
        send: &(dyn Fn(HeaderValue) -> BoxFuture<'a, Result<Response, HttpError>> + Sync),
    ) -> Result<(Response, HeaderValue), LoginError> {
        let host = host_port(url);
        let no_access = || AuthError::NoAccess { host: host.clone(), repository: repository.to_owned() };
        if refusal.status == 403 && refusal.challenges.is_empty() {
            return Err(LoginError::Auth(no_access()));
        }
        let mut worst = AuthError::NoCredentials { host: host.clone() };
        // Over plain http no credential is shown, so a helper need not be asked.
        let helped = if url.scheme() == "https" { self.helped(url, repository).await } else { Vec::new() };
        for credential in self.candidates(login, url, repository, &helped).iter().map(Some).chain([None]) {
            let header = match self.answer(http, url, repository, &refusal.challenges, credential).await {
                Ok(header) => header,
                Err(
                    refused @ (AuthError::NoCredentials { .. }
                    | AuthError::WrongCredentials { .. }
                    | AuthError::ForeignRealm { .. }
                    | AuthError::BadScope { .. }),
                ) => {
                    worst = worse(worst, refused);
                    continue;
                }
                // That it gets no credential says more than that it cannot be asked without.
                Err(AuthError::Http(_)) if matches!(worst, AuthError::ForeignRealm { .. }) => continue,
                Err(other) => return Err(LoginError::Auth(other)),
            };
            let response = send(header.clone()).await.map_err(LoginError::Http)?;
            // Who was sent on from there was let in there.
            if response.elsewhere.is_some() || !matches!(response.status, 401 | 403) {
                return Ok((response, header));
            }
            // A token that was given says that the login was right; a password that is refused as such was wrong.
            let basic = header.as_bytes().starts_with(b"Basic ");
            worst = match credential {
                Some(_) if basic && response.status == 401 => {
                    worse(worst, AuthError::WrongCredentials { host: host.clone() })
                }
                Some(_) => worse(worst, no_access()),
                None => worst,
            };
        }
        Err(LoginError::Auth(worst))
    }

    fn may_share(&self, server: &Url, realm: &Url) -> bool {
        let host = host_port(server);
        let listed = |name: &str| {
            let hosts = self.realms.get(name).into_iter().flatten();
            hosts.into_iter().any(|allowed| *allowed == host_port(realm) || Some(allowed.as_str()) == realm.host_str())
        };
        let both = server.scheme() == "https" && realm.scheme() == "https";
        both && (Party::of(server, realm) >= Party::SameDomain
            || listed(&host)
            || listed(server.host_str().unwrap_or_default()))
    }

    async fn token(
        &self,
        http: &HttpClient,
        url: &Url,
        repository: &str,
        bearer: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<Secret, AuthError> {
        let named = bearer.parameter("realm").unwrap_or_default();
        let realm = Some(named).filter(|realm| realm.len() <= MAX_PARAMETER).and_then(|realm| Url::parse(realm).ok());
        // Who names the token server does not choose as whom we come to it.
        let nobody = |realm: &Url| realm.username().is_empty() && realm.password().is_none();
        let realm = realm.filter(|realm| realm.scheme() == "https" && realm.host_str().is_some() && nobody(realm));
        let realm = realm
            .ok_or_else(|| AuthError::BadRealm { host: host_port(url), realm: named.chars().take(200).collect() })?;
        // A certificate of ours that the token server is shown says who we are, just as a password does.
        let known_there = credential.is_some() || http.shows_certificate(&realm);
        let may_share = self.may_share(url, &realm);
        if known_there && !may_share {
            return Err(AuthError::ForeignRealm { host: host_port(url), realm: host_port(&realm) });
        }
        let scope = bearer.parameter("scope").unwrap_or_default();
        let service = bearer.parameter("service").unwrap_or_default();
        let bad_scope = || AuthError::BadScope {
            host: host_port(url),
            repository: repository.to_owned(),
            scope: scope.chars().take(200).collect(),
        };
        // Whoever asks might pass the token on to the registry itself, so what we are is used to read this repository only.
        let scope = match scope {
            "" => String::new(),
            scope => pull_only(scope, repository).ok_or_else(bad_scope)?,
        };
        if scope.len().max(service.len()) > MAX_PARAMETER {
            return Err(bad_scope());
        }
        let key =
            TokenKey { realm: realm.to_string(), service: service.to_owned(), scope, credential: credential.cloned() };
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        if let Some(token) = self.kept(&key) {
            return Ok(token);
        }
        let sent = !may_share && realm.host() != url.host() && !http.is_set_up(&realm);
        self.ask_for_token(http, url, &realm, &key, sent).await
    }

    /// The turn at asking for a token. It is gone with the last who waits for it, also where a review was given up.
    fn turn(&self, key: &TokenKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = asking.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        asking.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        asking.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    async fn ask_for_token(
        &self,
        http: &HttpClient,
        url: &Url,
        realm: &Url,
        key: &TokenKey,
        sent: bool,
    ) -> Result<Secret, AuthError> {
        let credential = &key.credential;
        let answer = ask(http, realm, key, sent).await.map_err(AuthError::Http)?;
        let host = host_port(realm);
        match answer.status {
            200 => {}
            // Without a credential that is what anybody gets; with one, it is a wrong one.
            400 | 401 | 403 if credential.is_some() => return Err(AuthError::WrongCredentials { host }),
            401 | 403 => return Err(AuthError::NoCredentials { host: host_port(url) }),
            status => return Err(AuthError::BadToken { host, what: format!("{status}") }),
        }
        let parsed: Option<TokenAnswer> = Some(&answer.body)
            .filter(|body| body.len() as u64 <= MAX_TOKEN_BYTES)
            .and_then(|body| serde_json::from_slice(body).ok());
        let bad = || AuthError::BadToken { host: host.clone(), what: "something that holds no token".into() };
        let parsed = parsed.ok_or_else(bad)?;
        let text = parsed.token.or(parsed.access_token).filter(|token| !token.is_empty()).ok_or_else(bad)?;
        let text = Secret::new(text);
        let life = parsed.expires_in.map_or(DEFAULT_TOKEN_LIFE, Duration::from_secs).min(Duration::from_secs(3600));
        self.keep(
            key.clone(),
            Token { text: text.clone(), good_until: Instant::now() + life.saturating_sub(TOKEN_MARGIN) },
        );
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
            if tokens.len() >= MAX_TOKENS {
                // Better asked for once more than never kept again.
                let first = tokens.iter().min_by_key(|(_, token)| token.good_until).map(|(key, _)| key.clone());
                first.map(|first| tokens.remove(&first));
            }
            tokens.insert(key, token);
        }
    }
}

/// Of two refusals the one that says more: who was let in and may not read knows more than who was not let in.
fn worse(one: AuthError, other: AuthError) -> AuthError {
    let rank = |error: &AuthError| match error {
        AuthError::NoCredentials { .. } => 0,
        AuthError::ForeignRealm { .. } => 1,
        AuthError::WrongCredentials { .. } => 2,
        _ => 3,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// Asks a token server: by GET with a password or without, by POST with an identity token (the distribution
/// specification's `OAuth2` form). `sent` says that only the server that asks for a token names the token server; no credential
/// is shown to that one.
async fn ask(http: &HttpClient, realm: &Url, key: &TokenKey, sent: bool) -> Result<Response, HttpError> {
    let given = [("service", &key.service), ("scope", &key.scope)];
    let given = given.into_iter().filter(|(_, value)| !value.is_empty());
    if let Some(Credential::IdentityToken(token)) = &key.credential {
        let mut form =
            vec![("grant_type", "refresh_token"), ("client_id", "countersign"), ("refresh_token", token.reveal())];
        form.extend(given.map(|(name, value)| (name, value.as_str())));
        return http.send(Request::post_form(realm, &form, MAX_TOKEN_BYTES)).await;
    }
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        for (name, value) in given {
            query.append_pair(name, value);
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    let authorization = key.credential.as_ref().and_then(Credential::basic);
    let request = Request::get(&url, MAX_TOKEN_BYTES).authorization(authorization).retry(Retry::IfBroken);
    http.send(if sent { request.sent() } else { request }).await
}

/// What is left of a token's scope (the distribution token specification: `TYPE:NAME:ACTIONS`, several with spaces between)
/// when it may do no more than read a repository: the name with or without the registry's host.
fn pull_only(scope: &str, repository: &str) -> Option<String> {
    let path = repository.split_once('/').map_or(repository, |(_, path)| path);
    let granted = scope.split_ascii_whitespace().filter_map(|item| {
        let (kind, rest) = item.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let pulls = actions.split(',').any(|action| matches!(action, "pull" | "*"));
        let is_ours = name == repository || name == path;
        (kind == "repository" && is_ours && pulls).then(|| format!("repository:{name}:pull"))
    });
    let granted: Vec<_> = granted.collect();
    (!granted.is_empty()).then(|| granted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_home() {
        let mut authenticator = Authenticator::default();
        authenticator.allow_realms("far.example.com", vec!["auth.example.org".into(), "auth.example.net:5001".into()]);
        let cases = [
            ("https://reg.example.com:5000", "https://reg.example.com/token", true),
            ("https://reg.example.com", "https://auth.example.com/token", true),
            ("https://a.b.example.com", "https://auth.example.com/token", true),
            ("https://reg.example.com", "http://reg.example.com/token", false),
            ("https://reg.example.com", "https://example.org/token", false),
            ("https://reg.example.com", "https://auth.example.org/token", false),
            ("https://far.example.com:5000", "https://auth.example.org/token", true),
            ("https://far.example.com", "http://auth.example.org/token", false),
            ("https://far.example.com", "https://auth.example.net:5001/token", true),
            ("https://far.example.com", "https://auth.example.net:5002/token", false),
            ("https://a.com", "https://b.com/token", false),
            ("https://a.co.uk", "https://b.co.uk/token", false),
            ("https://a.github.io", "https://b.github.io/token", false),
            ("https://reg.a.co.uk", "https://auth.a.co.uk/token", true),
            ("https://registry", "https://auth/token", false),
            ("https://127.0.0.1:5000", "https://127.0.0.1:5001/token", true),
            ("https://127.0.0.1:5000", "https://127.0.0.2/token", false),
            ("http://reg.example.com", "https://reg.example.com/token", false),
        ];
        for (server, realm, expected) in cases {
            let (from, to) = (Url::parse(server).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(authenticator.may_share(&from, &to), expected, "{server} {realm}");
        }
    }

    fn config(host: &str, user: &str) -> DockerConfig {
        let text = serde_json::json!({"auths": {host: {"username": user, "password": "p"}}}).to_string();
        DockerConfig::parse(text.as_bytes()).unwrap()
    }

    fn users(authenticator: &Authenticator, login: &Login, server: &str, repository: &str) -> Vec<String> {
        let found = authenticator.candidates(login, &Url::parse(server).unwrap(), repository, &[]).into_iter();
        let name = |credential| match credential {
            Credential::Password { username, .. } => username,
            Credential::IdentityToken(_) => String::new(),
        };
        found.map(name).collect()
    }

    #[test]
    fn a_trust_server_gets_no_credential_that_is_for_somebody_else() {
        let authenticator = Authenticator::new(config("notary.example.com", "configured"));
        let of_pod = ["reg.example.com", "notary.example.com:4443"].into_iter().zip(["pod", "account"]);
        let login = Login::with(of_pod.map(|(host, user)| Arc::new(config(host, user))).collect());
        let users = |server: &str, repository: &str| users(&authenticator, &login, server, repository);
        let repository = "reg.example.com/team/app";
        assert_eq!(users("https://notary.example.com:4443", repository), ["pod", "account", "configured"]);
        // Who listens at ports of a node is not known.
        assert_eq!(users("https://notary.example.com:30443", repository), ["pod"]);
        assert_eq!(users("https://notary.example.com:5443", repository), ["pod", "configured"]);
        assert!(users("https://evil.example.org", repository).is_empty());
        let many = Login::with((0..20).map(|user| Arc::new(config("reg.example.com", &format!("u{user}")))).collect());
        let tried =
            authenticator.candidates(&many, &Url::parse("https://notary.example.com").unwrap(), repository, &[]);
        assert_eq!(tried.len(), MAX_TRIES);
        assert!(users("http://notary.example.com:4443", repository).is_empty());
        assert_eq!(users("https://notary.example.com:4443", "other.io/x"), ["account", "configured"]);
    }

    /// What a server gets that only an `ImagePolicy` names, beside what it gets if the operator does.
    #[test]
    fn a_tenants_server_gets_nothing_that_is_not_its_own() {
        let both: &[&str] = &["pod", "configured"];
        let cases: [(&str, &str, &[&str], &[&str]); 14] = [
            ("https://notary.example.com:4443", "reg.example.com/app", both, &["pod"]),
            // Anybody may have a route, a service, or a port of a node.
            ("https://reg.example.com:4443", "reg.example.com/app", both, both),
            ("https://reg.example.com:5443", "reg.example.com:5000/app", both, both),
            ("https://reg.example.com:30443", "reg.example.com/app", both, &["pod"]),
            ("https://10.0.0.5:4443", "10.0.0.5:5000/app", both, both),
            ("https://10.0.0.5:30443", "10.0.0.5:5000/app", both, &["pod"]),
            ("https://10.0.0.5:30500", "10.0.0.5:30500/app", both, both),
            ("https://10.0.0.6:4443", "10.0.0.5:5000/app", &[], &[]),
            ("https://evil.n.svc.cluster.local", "reg.infra.svc.cluster.local/app", both, &[]),
            ("https://reg.infra.svc.cluster.local:4443", "reg.infra.svc.cluster.local/app", both, both),
            ("https://evil.github.io", "reg.github.io/app", &[], &[]),
            ("https://evil.star.com", "reg.star.com/app", both, &["pod"]),
            ("https://notary.corp", "registry.corp/app", &[], &[]),
            ("https://notary.own.corp", "registry.other.corp/app", both, both),
        ];
        for (server, repository, of_operator, of_tenant) in cases {
            let registry = repository.split('/').next().unwrap();
            let pattern = registry.replace("reg.star.com", "*.star.com");
            let mut authenticator = Authenticator::new(config(&pattern, "configured"));
            authenticator.allow_pair("registry.other.corp", "notary.own.corp:443");
            let login = Login::with(vec![Arc::new(config(registry, "pod"))]);
            assert_eq!(users(&authenticator, &login, server, repository), of_operator, "{server} {repository}");
            let shown = |named_by| users(&authenticator, &login.at(named_by), server, repository);
            // A pair of the operator's is vouched for; a tenant may name another path of the same host.
            let of_tenant: &[&str] = if server.contains("own.corp") { &[] } else { of_tenant };
            assert_eq!(shown(NamedBy::Tenant), of_tenant, "{server} {repository}");
            let of_pod: Vec<_> = of_tenant.iter().filter(|user| **user != "configured").copied().collect();
            assert_eq!(shown(NamedBy::TenantWithCertificate), of_pod, "{server} {repository}");
        }
    }

    /// Whoever writes a pod may have some host of the operator's domain.
    #[test]
    fn a_pod_does_not_choose_who_is_shown_a_pattern_of_credentials() {
        let of_pattern = Authenticator::new(config("*.example.com", "configured"));
        let of_name = Authenticator::new(config("reg.example.com", "configured"));
        let login = Login::with(vec![Arc::new(config("reg.example.com", "pod"))]);
        for server in ["https://reg.example.com:4443", "https://reg.example.com"] {
            let shown =
                |authenticator, named_by| users(authenticator, &login.at(named_by), server, "reg.example.com/team/app");
            assert_eq!(shown(&of_pattern, NamedBy::Operator), ["pod", "configured"]);
            assert_eq!(shown(&of_name, NamedBy::Image), ["pod", "configured"]);
            for named_by in [NamedBy::Image, NamedBy::Tenant, NamedBy::TenantWithCertificate] {
                assert_eq!(shown(&of_pattern, named_by), ["pod"], "{named_by:?} {server}");
            }
        }
        // The registry itself is asked for signatures of cosign: at a node's port there may be anybody.
        let at_port =
            users(&of_name, &Login::none().at(NamedBy::Image), "https://reg.example.com:30443", "reg.example.com/x");
        assert!(at_port.is_empty(), "{at_port:?}");
    }

    #[test]
    fn tokens_are_for_reading_one_repository() {
        let repository = "reg.example.com:5000/team/app";
        let cases = [
            ("repository:team/app:pull", Some("repository:team/app:pull")),
            ("repository:reg.example.com:5000/team/app:pull", Some("repository:reg.example.com:5000/team/app:pull")),
            ("repository:team/app:pull,push,delete", Some("repository:team/app:pull")),
            ("repository:team/app:*", Some("repository:team/app:pull")),
            ("repository:team/app:pull repository:team/secret:pull", Some("repository:team/app:pull")),
            ("repository:team/secret:pull", None),
            ("repository:app:pull", None),
            ("repository:x/team/app:pull", None),
            ("repository:team/app:push", None),
            ("registry:catalog:*", None),
            ("repository(plugin):team/app:pull", None),
            ("repository:team/app", None),
            ("nonsense", None),
        ];
        for (scope, expected) in cases {
            assert_eq!(pull_only(scope, repository).as_deref(), expected, "{scope}");
        }
    }
}
