//! Docker's credential helpers: programs that keep passwords out of `config.json`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

/// How many hosts of a store are asked for.
const MAX_HOSTS: usize = 100;

/// The configuration with the credentials that its helpers give. What a helper does not give is left as it is: whoever
/// needs it is then refused by the server, with the cause.
pub(crate) fn complete(text: &[u8]) -> Vec<u8> {
    let Ok(Value::Object(mut config)) = serde_json::from_slice::<Value>(text) else {
        return text.to_vec();
    };
    let mut found = Map::new();
    if let Some(store) = config.get("credsStore").and_then(Value::as_str) {
        let listed = ask(store, "list", "").and_then(|answer| answer.as_object().cloned()).unwrap_or_default();
        for host in listed.keys().take(MAX_HOSTS) {
            found.extend(entry(store, host));
        }
    }
    for (host, helper) in config.get("credHelpers").and_then(Value::as_object).into_iter().flatten().take(MAX_HOSTS) {
        if let Some(helper) = helper.as_str() {
            found.extend(entry(helper, host));
        }
    }
    if !found.is_empty() {
        let auths = config.entry("auths").or_insert_with(|| json!({}));
        if let Some(auths) = auths.as_object_mut() {
            auths.extend(found);
        }
    }
    serde_json::to_vec(&config).unwrap_or_else(|_| text.to_vec())
}

fn entry(helper: &str, host: &str) -> Option<(String, Value)> {
    let answer = ask(helper, "get", host)?;
    let text = |member: &str| answer[member].as_str().filter(|text| !text.is_empty());
    let (user, secret) = (text("Username")?, text("Secret")?);
    // A helper that knows no password but a token says so by this user name.
    let entry = match user {
        "<token>" => json!({"identitytoken": secret}),
        user => json!({"username": user, "password": secret}),
    };
    Some((host.to_owned(), entry))
}

/// Runs `docker-credential-HELPER VERB`, with `input` on its standard input.
fn ask(helper: &str, verb: &str, input: &str) -> Option<Value> {
    // The name becomes part of a program's name: nothing that could lead to another one.
    let plain = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !plain || helper.is_empty() {
        return None;
    }
    let mut command = Command::new(format!("docker-credential-{helper}"));
    let mut child =
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
}
