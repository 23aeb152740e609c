//! The gate without a server: which images are judged, and what the mode makes of it.
//!
//! Images of `h.io/open` are allowed without a check, the trust server of those of `h.io/signed` cannot be reached, and all others are
//! on no list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_remote::{Connections, DockerConfig, Options, Sharing};
use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::admission_review::{GroupVersionKind, UserInfo};
use crate::children::{Asked, Owners};
use crate::cli::clients;
use crate::config::ClusterPolicySecrets;
use crate::source::files::{FileSource, Loaded};

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";
const NODES: &[&str] = &["system:nodes"];

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(24 * 3600);

const POLICIES: &str = "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1
kind: ClusterImagePolicy
metadata: {name: p}
spec:
  repositories:
  - name: h.io/open/*
  - name: h.io/signed/*
    policy: {trust: {enabled: true, trustServer: \"https://127.0.0.1:1\"}}
";

/// The owner of every child: a `ReplicaSet` with `h.io/evil/a:1` in `containers/web`.
struct OneOwner;

impl Owners for OneOwner {
    fn get<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Option<Value>, String>> {
        let found = (asked.resource == "replicasets")
            .then(|| json!({"metadata": {"uid": "u1"}, "spec": {"template": {"spec": spec("h.io/evil/a:1")}}}));
        Box::pin(async move { Ok(found) })
    }
}

fn gate(mode: Mode, verify_children: bool) -> Gate {
    let documents = crate::documents::parse("p.yaml", POLICIES).unwrap();
    let clock = crate::telemetry::wall_clock();
    let options = Options {
        refresh: LONG,
        stale: Duration::ZERO,
        flight: LONG,
        clock: Arc::clone(&clock),
        sharing: Sharing::Everybody,
        state: None,
        on_trouble: Arc::new(|_| ()),
    };
    let authenticator = countersign_remote::Authenticator::new(DockerConfig::default());
    let clients =
        clients::clients(&Connections::default(), authenticator, options, clients::Registries::default()).unwrap();
    Gate {
        engine: Engine {
            source: FileSource::fixed(Loaded::of(&documents).unwrap()),
            notary: clients.notary,
            registry: clients.registry,
            cosign: clients.cosign,
            defaults: clients::defaults("countersign", ClusterPolicySecrets::OwnNamespace, BTreeMap::new()),
            clock,
            deadline: LONG,
        },
        kinds: Kinds::known(),
        children: Some(Children::new(Arc::new(OneOwner))),
        trusted_controllers: vec![CONTROLLER.to_owned()],
        verify_children,
        mode,
        namespaces: None,
        break_glass: BreakGlass::new(vec!["root".to_owned()], vec!["sre".to_owned()]).unwrap(),
        messages: "docs/messages.md".to_owned(),
    }
}

fn spec(image: &str) -> Value {
    json!({"containers": [{"name": "web", "image": image}]})
}

fn pod(image: &str) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec(image)})
}

/// A pod that says it is the `ReplicaSet`'s.
fn child(image: &str) -> Value {
    let mut pod = pod(image);
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u1", "controller": true}]);
    pod
}

/// With a second container beside the first.
fn with_sidecar(mut pod: Value, image: &str) -> Value {
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "sidecar", "image": image}));
    pod
}

fn mirror(image: &str) -> Value {
    let mut pod = pod(image);
    pod["metadata"]["annotations"] = json!({MIRROR: "x"});
    pod["spec"]["nodeName"] = json!("node-1");
    pod
}

struct Case {
    operation: &'static str,
    kind: (&'static str, &'static str),
    object: Value,
    old: Value,
    user: &'static str,
    groups: &'static [&'static str],
}

impl Default for Case {
    fn default() -> Self {
        Self {
            operation: "CREATE",
            kind: ("", "Pod"),
            object: Value::Null,
            old: Value::Null,
            user: "alice",
            groups: &[],
        }
    }
}

/// What the gate answers: the outcome, and whether the request is admitted.
async fn ask(gate: &Gate, call: impl Into<Call>, case: &Case) -> (String, Answer) {
    let call = call.into();
    let raw = |value: &Value| (!value.is_null()).then(|| value.to_string());
    let (object, old) = (raw(&case.object), raw(&case.old));
    let request = Request {
        uid: "1".to_owned(),
        kind: GroupVersionKind {
            group: case.kind.0.to_owned(),
            version: "v1".to_owned(),
            kind: case.kind.1.to_owned(),
        },
        namespace: Some("n".to_owned()),
        operation: case.operation.to_owned(),
        user_info: UserInfo {
            username: case.user.to_owned(),
            groups: case.groups.iter().map(|group| (*group).to_owned()).collect(),
        },
        object: object.as_deref(),
        old_object: old.as_deref(),
        ..Request::default()
    };
    let decision = gate.decide(call, &request, gate.read(&request)).await;
    let answer = gate.answer(call.webhook, &decision);
    assert_eq!(decision.admits(), answer.denied.is_none());
    let admitted = match (answer.denied.is_some(), decision.answered()) {
        (true, _) => "refused",
        (false, Answered::Mode(Mode::Enforce)) => "admitted",
        (false, answered) => answered.label(),
    };
    (format!("{} {admitted}", decision.outcome().label()), answer)
}

fn pinned(image: &str) -> String {
    format!("{image}@{D}")
}

#[tokio::test]
async fn who_is_judged_for_what() {
    let gate = gate(Mode::Enforce, false);
    let create = |object| Case { object, ..Case::default() };
    let update = |old, object| Case { operation: "UPDATE", object, old, ..Case::default() };
    let by = |user, object| Case { object, user, ..Case::default() };
    let revision = |image: &str| Case {
        kind: ("apps", "ControllerRevision"),
        object: json!({"metadata": {"namespace": "n"}, "data": {"spec": {"template": {"spec": spec(image)}}}}),
        ..Case::default()
    };
    let deployment = |image: &str| Case {
        kind: ("apps", "Deployment"),
        object: json!({"spec": {"template": {"spec": spec(image)}}}),
        ..Case::default()
    };
    let node = |user, groups, object| Case { object, user, groups, ..Case::default() };
    let cases = [
        ("an open image", create(pod("h.io/open/a:1")), "unchecked admitted"),
        ("one on no list", create(pod("h.io/evil/a:1")), "denied refused"),
        ("one that cannot be decided", create(pod("h.io/signed/a:1")), "undecided refused"),
        ("both", create(with_sidecar(pod("h.io/signed/a:1"), "h.io/evil/b")), "denied refused"),
        ("no object", create(Value::Null), "denied refused"),
        ("an unreadable object", create(json!({"spec": {"containers": 1}})), "denied refused"),
        ("no images", create(json!({"spec": {}})), "unchecked admitted"),
        ("a template", deployment("h.io/evil/a:1"), "denied refused"),
        ("a template of white space", deployment(" "), "unchecked admitted"),
        ("a pod of white space", create(pod(" ")), "denied refused"),
        ("a revision", revision("h.io/evil/a:1"), "denied refused"),
        ("a delete", Case { operation: "DELETE", ..create(Value::Null) }, "unchecked admitted"),
        ("another operation", Case { operation: "PATCH", ..create(pod("h.io/open/a:1")) }, "denied refused"),
        // An update is excused by the old object, image by image.
        ("unchanged", update(pod("h.io/evil/a:1"), pod("h.io/evil/a:1")), "unchecked admitted"),
        ("changed", update(pod("h.io/evil/a:1"), pod("h.io/evil/a:2")), "denied refused"),
        ("added", update(pod("h.io/evil/a:1"), with_sidecar(pod("h.io/evil/a:1"), "h.io/evil/b")), "denied refused"),
        ("unreadable before", update(json!({"spec": {"containers": 1}}), pod("h.io/evil/a:1")), "denied refused"),
        ("nothing before", update(Value::Null, pod("h.io/evil/a:1")), "denied refused"),
        (
            "created with an old object",
            Case { old: pod("h.io/evil/a:1"), ..create(pod("h.io/evil/a:1")) },
            "denied refused",
        ),
        // A child is excused by its owner, if a controller asks.
        ("a child", by(CONTROLLER, child("h.io/evil/a:1")), "unchecked admitted"),
        ("a user's child", create(child("h.io/evil/a:1")), "denied refused"),
        ("no child", by(CONTROLLER, pod("h.io/evil/a:1")), "denied refused"),
        ("a changed child", by(CONTROLLER, child("h.io/evil/a:2")), "denied refused"),
        ("an injected sidecar", by(CONTROLLER, with_sidecar(child("h.io/evil/a:1"), "h.io/evil/b")), "denied refused"),
        ("an open sidecar", by(CONTROLLER, with_sidecar(child("h.io/evil/a:1"), "h.io/open/b")), "unchecked admitted"),
        // A mirror pod runs already, whatever is answered.
        ("a mirror pod", node("system:node:node-1", NODES, mirror("h.io/evil/a:1")), "denied static-pod"),
        ("of another node", node("system:node:node-2", NODES, mirror("h.io/evil/a:1")), "denied refused"),
        ("of no node", node("system:node:node-1", &[], mirror("h.io/evil/a:1")), "denied refused"),
        ("of a user", node("alice", NODES, mirror("h.io/evil/a:1")), "denied refused"),
        ("a node's other pod", node("system:node:node-1", NODES, pod("h.io/evil/a:1")), "denied refused"),
    ];
    for (name, case, expected) in &cases {
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            assert_eq!(ask(&gate, webhook, case).await.0, *expected, "{webhook:?}: {name}");
        }
    }
}

#[tokio::test]
async fn children_are_judged_where_that_is_configured() {
    let case = Case { object: child("h.io/evil/a:1"), user: CONTROLLER, ..Case::default() };
    assert_eq!(ask(&gate(Mode::Enforce, true), Webhook::Mutate, &case).await.0, "denied refused");
    let alone = Gate { children: None, ..gate(Mode::Enforce, false) };
    assert_eq!(ask(&alone, Webhook::Mutate, &case).await.0, "denied refused");
}

#[tokio::test]
async fn what_the_mode_makes_of_a_denial() {
    for (mode, expected) in
        [(Mode::Enforce, ("denied refused", 0)), (Mode::Warn, ("denied warn", 1)), (Mode::Audit, ("denied audit", 0))]
    {
        let case = Case { object: pod(&format!("h.io/evil/{}:1", "a".repeat(200))), ..Case::default() };
        for (webhook, annotation) in [(Webhook::Mutate, "verdict"), (Webhook::Validate, "validate-verdict")] {
            let (outcome, answer) = ask(&gate(mode, false), webhook, &case).await;
            assert_eq!((outcome.as_str(), answer.warnings.len()), expected, "{mode:?}");
            assert_eq!(answer.audit[0], (annotation, "denied".to_owned()));
            assert!(answer.patch.is_none());
            for line in answer.warnings {
                assert!(line.starts_with("would be denied: Deny \"h.io/evil/") && line.chars().count() == MAX_WARNING);
            }
        }
    }
}

/// An API server cuts every warning of an answer that has too many of them, so the last one is a count.
#[test]
fn warnings_have_room() {
    use countersign_policy::Warning;
    let differ = Warning::Differ {
        number: 2,
        counts: format!("sha256:{}", "a".repeat(64)),
        other: format!("sha256:{}", "b".repeat(64)),
    };
    let said = told(&format!("h.io/{}:v1", "é".repeat(300)), &differ);
    assert!(said.chars().count() <= MAX_WARNING && said.contains("…") && said.contains(":v1\": "), "{said}");
    assert!(said.ends_with(&format!("sha256:{}", "b".repeat(64))), "{said}");
    assert!(told("h.io/a:v1", &differ).starts_with("\"h.io/a:v1\": alternatives"));
    let long = Warning::Undecided { number: 1, cause: "x".repeat(1000) };
    let said = told(&format!("h.io/{}:v1", "a".repeat(300)), &long);
    assert!(said.chars().count() == MAX_WARNING && said.contains(":v1\": alternative 1 could not"), "{said}");

    let lines = |count: usize| vec!["x".repeat(100); count];
    assert_eq!(few(lines(40)), lines(40));
    let many = few(lines(1000));
    assert!(many.iter().map(String::len).sum::<usize>() <= MAX_WARNINGS);
    assert_eq!((many.len(), many.last().map(String::as_str)), (41, Some("and 960 more")));
}

/// Applying the same file again takes the digest away; where nobody can decide, it is put back.
#[tokio::test]
async fn a_digest_is_put_back_where_nothing_can_be_decided() {
    let update =
        |old: &str, new: &str| Case { operation: "UPDATE", object: pod(new), old: pod(old), ..Case::default() };
    let same = update(&pinned("h.io/signed/a:1"), "h.io/signed/a:1");
    let enforcing = gate(Mode::Enforce, false);
    let (outcome, answer) = ask(&enforcing, Webhook::Mutate, &same).await;
    assert_eq!(outcome, "verified admitted");
    let patch: Value = serde_json::from_slice(&answer.patch.unwrap()).unwrap();
    let expected = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": pinned("h.io/signed/a:1")}]);
    assert_eq!(patch, expected);
    // The validating webhook sees it put back; if it does not, nothing was.
    assert_eq!(ask(&enforcing, Webhook::Validate, &same).await.0, "undecided refused");
    // A server that changes nothing puts nothing back, and says what it would do.
    for mode in [Mode::Warn, Mode::Audit] {
        let (outcome, answer) = ask(&gate(mode, false), Webhook::Mutate, &same).await;
        assert!(outcome == format!("undecided {}", mode.label()) && answer.patch.is_none(), "{outcome}");
    }
    for (old, new, expected) in [
        (pinned("h.io/signed/a:1"), "h.io/signed/a:2", "undecided refused"),
        (pinned("h.io/signed/b:1"), "h.io/signed/a:1", "undecided refused"),
        (pinned("h.io/evil/a:1"), "h.io/evil/a:1", "denied refused"),
    ] {
        assert_eq!(ask(&enforcing, Webhook::Mutate, &update(&old, new)).await.0, expected, "{old} {new}");
    }
}

#[tokio::test]
async fn a_denial_says_that_the_owner_has_no_such_image() {
    let case =
        Case { object: with_sidecar(child("h.io/evil/a:1"), "h.io/evil/b"), user: CONTROLLER, ..Case::default() };
    let message = ask(&gate(Mode::Enforce, false), Webhook::Validate, &case).await.1.denied.unwrap();
    assert!(message.contains("containers/sidecar is not in the template of ReplicaSet web"), "{message}");
    assert!(!message.contains("containers/web"), "{message}");
}

#[tokio::test]
async fn one_review_asks_for_64_repositories_at_most() {
    let with = |count: usize| {
        let container = |index| json!({"name": format!("c{index}"), "image": format!("h.io/signed/{index}:1")});
        let containers: Vec<_> = (0..count).map(container).collect();
        Case { object: json!({"spec": {"containers": containers}}), ..Case::default() }
    };
    let gate = gate(Mode::Enforce, false);
    assert_eq!(ask(&gate, Webhook::Mutate, &with(64)).await.0, "undecided refused");
    let (outcome, answer) = ask(&gate, Webhook::Mutate, &with(66)).await;
    assert_eq!(outcome, "denied refused");
    assert_eq!(answer.denied.unwrap().matches("more than 64 signed repositories").count(), 2);
}

/// Somebody who may, and gives a reason that is new, has an object admitted as it is, by both webhooks; nobody else has.
#[tokio::test]
async fn who_breaks_the_glass() {
    let annotated = |reason: &str| {
        let mut pod = with_sidecar(pod("h.io/evil/a:1"), "h.io/signed/a:1");
        pod["metadata"]["annotations"] = json!({break_glass::ANNOTATION: reason});
        pod
    };
    let gate = gate(Mode::Enforce, false);
    for (user, groups, object, old, expected) in [
        ("root", &[][..], annotated("p: INC-1"), Value::Null, "denied break-glass"),
        ("alice", &["sre"][..], annotated("p: INC-1"), Value::Null, "denied break-glass"),
        ("alice", &[][..], annotated("p: INC-1"), Value::Null, "denied refused"),
        ("root", &[][..], annotated(""), Value::Null, "denied refused"),
        ("root", &[][..], annotated("p: INC-1"), pod("h.io/evil/b:1"), "denied break-glass"),
        // Somebody may have left it behind for the next person who changes the object.
        ("root", &[][..], annotated("p: INC-1"), annotated("p: INC-1"), "unchecked admitted"),
    ] {
        let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
        let case = Case { operation, object, old, user, groups, ..Case::default() };
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            let (outcome, answer) = ask(&gate, webhook, &case).await;
            assert_eq!(outcome, expected, "{user}");
            assert!(answer.patch.is_none());
            let broken = outcome.ends_with("break-glass");
            assert_eq!(
                answer.audit.iter().any(|(name, value)| name.ends_with("break-glass") && value == "p: INC-1"),
                broken
            );
            assert_eq!(answer.warnings.iter().any(|line| line.starts_with("admitted by break glass: Deny")), broken);
            if outcome.ends_with("refused") {
                assert!(answer.warnings.iter().any(|line| line.contains("does not count")), "{:?}", answer.warnings);
            }
        }
    }
    let (mut object, mut old) = (annotated("p: INC-1"), annotated("p: INC-1"));
    object["spec"]["containers"][0]["image"] = json!("h.io/evil/c:1");
    for old in [old.take(), json!(["no pod"])] {
        let operation = "UPDATE";
        let case = Case { operation, object: object.clone(), old, user: "root", ..Case::default() };
        assert_eq!(ask(&gate, Webhook::Mutate, &case).await.0, "denied refused");
    }
    // Where nothing is denied, it changes nothing.
    let mut open = pod("h.io/open/a:1");
    open["metadata"]["annotations"] = json!({break_glass::ANNOTATION: "p: INC-1"});
    let case = Case { object: open, user: "root", ..Case::default() };
    assert_eq!(ask(&gate, Webhook::Mutate, &case).await.0, "unchecked admitted");
    // A controller copies what somebody else wrote.
    let case = Case { object: annotated("p: INC-1"), user: CONTROLLER, groups: &["sre"], ..Case::default() };
    assert_eq!(ask(&gate, Webhook::Mutate, &case).await.0, "denied refused");
}

/// A denial says which entry asked, and where to read on.
#[tokio::test]
async fn a_denial_says_where_to_read_on() {
    let gate = gate(Mode::Enforce, false);
    let case = Case { object: with_sidecar(pod("h.io/evil/a:1"), "h.io/signed/a:1"), ..Case::default() };
    let denied = ask(&gate, Webhook::Mutate, &case).await.1.denied.unwrap();
    let lines: Vec<_> = denied.lines().collect();
    assert!(lines[0].ends_with("namespace (see docs/messages.md#no-match)"), "{denied}");
    assert!(lines[1].ends_with(" [ClusterImagePolicy p, entry 2] (see docs/messages.md#unreachable)"), "{denied}");
}

/// What cannot be told to fall under an entry may fall under one that is enforced, whatever the server's own mode is.
#[tokio::test]
async fn an_enforced_entry_counts_for_what_cannot_be_read() {
    let enforced = POLICIES.replace("policy: {trust", "policy: {mode: enforce, trust");
    let documents = crate::documents::parse("p.yaml", &enforced).unwrap();
    let mut strict = gate(Mode::Audit, false);
    strict.engine.source = FileSource::fixed(Loaded::of(&documents).unwrap());
    let mut many = pod("h.io/signed/a:1");
    many["spec"]["imagePullSecrets"] = (0..9000).map(|index| json!({"name": format!("s{index}")})).collect();
    let crowd: Vec<_> = (0..1100).map(|index| json!({"name": format!("i{index}"), "image": "x"})).collect();
    let mut crowded = pod("h.io/signed/a:1");
    crowded["spec"]["initContainers"] = json!(crowd);
    for object in [many, crowded] {
        let case = Case { object, ..Case::default() };
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            assert_eq!(ask(&strict, webhook, &case).await.0, "denied refused");
            assert_eq!(ask(&gate(Mode::Audit, false), webhook, &case).await.0, "denied audit");
        }
    }
    // What falls under no such entry is admitted as before.
    let open = Case { object: pod("h.io/evil/a:1"), ..Case::default() };
    assert_eq!(ask(&strict, Webhook::Mutate, &open).await.0, "denied audit");
    let closed = Case { object: pod("h.io/signed/a:1"), ..Case::default() };
    assert_eq!(ask(&strict, Webhook::Mutate, &closed).await.0, "undecided refused");
}

/// Where the API server admits what is not answered, that there is no room is an answer: a denial where somebody enforces.
#[tokio::test]
async fn no_room_is_a_decision() {
    let enforced = POLICIES.replace("policy: {trust", "policy: {mode: enforce, trust");
    let documents = crate::documents::parse("p.yaml", &enforced).unwrap();
    let mut strict = gate(Mode::Audit, false);
    strict.engine.source = FileSource::fixed(Loaded::of(&documents).unwrap());
    let (audit, warn) = (gate(Mode::Audit, false), gate(Mode::Warn, false));
    for (gate, enforced, expected) in [
        (&strict, false, "enforce"),
        (&audit, false, "audit"),
        (&warn, false, "warn"),
        // The API server says that the namespace enforces.
        (&audit, true, "enforce"),
    ] {
        let call = Call { webhook: Webhook::Validate, enforced };
        let request = Request { namespace: Some("n".into()), ..Request::default() };
        let decision = gate.unread(call, &request, DenialCause::Busy, "there is no room".into()).await;
        let answer = gate.answer(Webhook::Validate, &decision);
        assert_eq!((decision.outcome().label(), decision.answered().label()), ("undecided", expected));
        assert_eq!(answer.denied.is_some(), expected == "enforce");
        let told = answer.denied.into_iter().chain(answer.warnings).collect::<Vec<_>>().join("\n");
        assert_eq!(told.contains("there is no room"), expected != "audit", "{told}");
        assert_eq!(answer.audit[0].0, "validate-verdict");
    }
}
