//! Docker's credential helpers: programs that keep passwords out of `config.json`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_image::shown;
use countersign_remote::{CredentialHelper, DockerConfig};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// How long a helper may take: some ask the user something.
const LIMIT: Duration = Duration::from_secs(30);

/// How many bytes of its answer are read.
const MAX_ANSWER: u64 = 64 << 10;

/// How Docker's tools call the registry of Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// The helpers that a configuration names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Helpers {
    /// For all hosts that have none of their own.
    #[serde(rename = "credsStore")]
    store: Option<String>,
    /// For single hosts.
    #[serde(rename = "credHelpers")]
    by_host: BTreeMap<String, String>,
    /// Where the programs are, if not where all are.
    #[serde(skip)]
    path: Option<OsString>,
    /// What was answered, so that each is asked once for a host.
    #[serde(skip)]
    asked: Mutex<HashMap<String, Answered>>,
}

/// What a helper answered for a host, once it has.
type Answered = Arc<OnceCell<Option<Arc<DockerConfig>>>>;

impl Helpers {
    /// Those of a `config.json`; nothing if it names none, or is no configuration: who reads it says so.
    pub(crate) fn of(config: &[u8]) -> Option<Self> {
        let helpers: Self = serde_json::from_slice(config).ok()?;
        (helpers.store.is_some() || !helpers.by_host.is_empty()).then_some(helpers)
    }

    /// The helper for a host, and how the host is called there.
    fn helper<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let name = if host == "docker.io" { HUB } else { host };
        let own = [host, name].into_iter().find_map(|name| Some((self.by_host.get(name)?.as_str(), name)));
        own.or_else(|| Some((self.store.as_deref()?, name)))
    }
}

impl CredentialHelper for Helpers {
    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Arc<DockerConfig>>> {
        async move {
            let (helper, name) = self.helper(host)?;
            // One that is slow for a host keeps nobody waiting who asks for another one.
            let answered = {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(asked.entry(host.to_owned()).or_default())
            };
            let ask = async {
                let answer = tokio::time::timeout(LIMIT, ask(helper, name, self.path.as_deref())).await;
                let answer = answer.unwrap_or_else(|_| {
                    let (host, seconds) = (shown(host), LIMIT.as_secs());
                    eprintln!(
                        "warning: docker-credential-{helper} has not answered for {host} within {seconds} s; going on without it"
                    );
                    None
                });
                answer.and_then(|answer| config(host, &answer))
            };
            answered.get_or_init(|| ask).await.clone()
        }
        .boxed()
    }
}

/// An answer, as the configuration that would say the same.
fn config(host: &str, answer: &Value) -> Option<Arc<DockerConfig>> {
    let text = |member: &str| answer[member].as_str().filter(|text| !text.is_empty());
    let (user, secret) = (text("Username")?, text("Secret")?);
    // A helper that knows no password but a token says so by this user name.
    let entry = match user {
        "<token>" => json!({"identitytoken": secret}),
        user => json!({"username": user, "password": secret}),
    };
    DockerConfig::parse(json!({"auths": {host: entry}}).to_string().as_bytes()).ok().map(Arc::new)
}

/// Runs `docker-credential-HELPER get`, with the host on its standard input. What it does not give is missing: whoever needs it is then
/// refused by the server, with the cause.
async fn ask(helper: &str, host: &str, path: Option<&OsStr>) -> Option<Value> {
    // The name becomes part of a program's name: nothing that could lead to another one.
    let plain = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !plain || helper.is_empty() {
        return None;
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn().ok()?;
    let (mut input, output) = (child.stdin.take()?, child.stdout.take()?);
    // One that reads nothing may have ended already, with an answer.
    let _ = input.write_all(host.as_bytes()).await;
    drop(input);
    let mut answer = Vec::new();
    output.take(MAX_ANSWER).read_to_end(&mut answer).await.ok()?;
    child.wait().await.ok()?.success().then(|| serde_json::from_slice(&answer).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_one_helper() {
        let text = br#"{"auths": {}, "credsStore": "all", "credHelpers": {"h.io": "own", "https://index.docker.io/v1/": "hub"}}"#;
        let helpers = Helpers::of(text).unwrap();
        assert_eq!(helpers.helper("h.io"), Some(("own", "h.io")));
        assert_eq!(helpers.helper("h.io:5000"), Some(("all", "h.io:5000")));
        assert_eq!(helpers.helper("docker.io"), Some(("hub", HUB)));
        for none in ["{}", "{", r#"{"auths": {}}"#, r#"{"credsStore": 1}"#] {
            assert!(Helpers::of(none.as_bytes()).is_none(), "{none}");
        }
        let single = Helpers::of(br#"{"credHelpers": {"h.io": "own"}}"#).unwrap();
        assert_eq!(single.helper("other.io"), None);
    }

    /// One that never answers is given up.
    #[tokio::test(start_paused = true)]
    async fn a_helper_has_so_much_time() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-slow");
        std::fs::write(&program, "#!/bin/sh\nexec /bin/sleep 1000\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let helpers = Helpers {
            path: Some(folder.path().as_os_str().to_owned()),
            ..Helpers::of(br#"{"credsStore": "slow"}"#).unwrap()
        };
        for _ in 0..2 {
            assert!(helpers.credentials("h.io").await.is_none());
        }
    }

    #[tokio::test]
    async fn a_helper_is_a_plain_name() {
        for name in ["", "../x", "a b", "/bin/sh"] {
            assert_eq!(ask(name, "h.io", None).await, None);
        }
    }
}
