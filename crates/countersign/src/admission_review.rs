//! `AdmissionReview`, as API servers of Kubernetes 1.11 to today send it and expect it back.
//!
//! Types of our own: they borrow the objects unparsed, and one answer serves both versions.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::shown;
use countersign_json::skim::{Kind, Skim, Unexpected};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many bytes a name in a review may have. Those of objects have 253 at most; users' names come from certificates and tokens.
const MAX_TEXT: usize = 4096;

/// How many of a user's groups are kept, of those that Kubernetes itself gives and of others.
const MAX_GROUPS: (usize, usize) = (64, 512);

/// How long the name of a group of the other kind may be to be kept.
const MAX_GROUP: usize = 256;

/// Why a body is no review that can be answered. It is answered with HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// Not JSON of the right shape.
    #[error("the body is not an AdmissionReview: {0}")]
    Malformed(String),
    /// Another kind, or a version that we do not speak.
    #[error("{kind} {api_version} is not supported; AdmissionReview of admission.k8s.io/v1 or v1beta1 is")]
    Unsupported {
        /// `apiVersion`, shortened.
        api_version: String,
        /// `kind`, shortened.
        kind: String,
    },
    /// No `request`, or one without `uid`.
    #[error("the AdmissionReview has no {0}")]
    Missing(&'static str),
    /// A name that no API server would send.
    #[error("{0} of the AdmissionReview has more than {MAX_TEXT} bytes")]
    TooLong(&'static str),
}

/// What is to be admitted, and who asks.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// To be repeated in the answer.
    pub uid: String,
    /// The kind of the object.
    pub kind: GroupVersionKind,
    /// The resource that is asked for.
    pub resource: GroupVersionResource,
    /// `ephemeralcontainers`, `status`, `scale`, or empty.
    pub sub_resource: Option<String>,
    /// Empty where the API server makes the name.
    pub name: Option<String>,
    /// Empty for objects of the cluster.
    pub namespace: Option<String>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Who asks, as the API server authenticated them.
    pub user_info: UserInfo,
    /// The text of the object as it would be.
    pub object: Option<&'a str>,
    /// The text of the object as it is, of an UPDATE or DELETE.
    pub old_object: Option<&'a str>,
    /// Whether nothing is to be kept.
    pub dry_run: Option<bool>,
}

/// Group, version and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `Pod`.
    pub kind: String,
}

/// Group, version and resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GroupVersionResource {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `pods`.
    pub resource: String,
}

/// Who asks. Extra is left unread: nothing is decided by what an impersonator may set.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// The authenticated user's name.
    pub username: String,
    /// Their groups, as far as they are kept. Those that Kubernetes itself gives (`system:…`) only narrow what a name says; others
    /// may break the glass, if the configuration names them.
    #[serde(deserialize_with = "groups")]
    pub groups: Vec<String>,
}

/// Keeps the first groups of each kind; a user may be in any number. The API server leaves out lists that are empty, or writes null.
fn groups<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Groups;
    impl<'de> Visitor<'de> for Groups {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of groups")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut groups = Vec::new();
            let (mut of_kubernetes, mut others) = (0, 0);
            while let Some(group) = items.next_element::<Cow<'de, str>>()? {
                let (count, most, length) = if group.starts_with("system:") {
                    (&mut of_kubernetes, MAX_GROUPS.0, MAX_TEXT)
                } else {
                    (&mut others, MAX_GROUPS.1, MAX_GROUP)
                };
                if *count < most && group.len() <= length {
                    *count += 1;
                    groups.push(group.into_owned());
                }
            }
            Ok(groups)
        }
    }
    deserializer.deserialize_any(Groups)
}

/// A review as it is written. Objects are passed over, and read by whoever knows what counts in them.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    request: Option<Request<'a>>,
}

/// Calls for each member of an object, which must stand once if it is taken: `take` says whether it is.
fn each<'a>(
    json: &mut Skim<'a>,
    mut take: impl FnMut(&str, &mut Skim<'a>) -> Result<bool, String>,
) -> Result<(), String> {
    let told = |problem: Unexpected| problem.to_string();
    json.enter(Kind::Object).map_err(told)?;
    let mut taken: Vec<Cow<'a, str>> = Vec::new();
    let mut first = true;
    while let Some(name) = json.member(first).map_err(told)? {
        first = false;
        if taken.contains(&name) {
            return Err(format!("the member {} stands twice", shown(&name)));
        }
        if take(&name, json)? {
            taken.push(name);
        } else {
            json.value().map_err(told)?;
        }
    }
    Ok(())
}

/// The next value, which is small.
fn small<T: DeserializeOwned>(json: &mut Skim<'_>) -> Result<T, String> {
    let text = json.value().map_err(|problem| problem.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The text of the next value, unless it is null.
fn object<'a>(json: &mut Skim<'a>) -> Result<Option<&'a str>, String> {
    let text = json.value().map_err(|problem| problem.to_string())?;
    Ok(Some(text).filter(|text| *text != "null"))
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        let (mut json, mut envelope) = (Skim::new(text), Self::default());
        envelope.members(&mut json, Objects::Passed)?;
        json.end().map_err(|problem| problem.to_string())?;
        Ok(envelope)
    }

    /// What is said before the objects.
    fn read_head(head: &'a [u8]) -> Self {
        let whole = std::str::from_utf8(head);
        let text = whole.unwrap_or_else(|cut| std::str::from_utf8(&head[..cut.valid_up_to()]).unwrap_or_default());
        let mut envelope = Self::default();
        // It ends at an object, or where the head ends.
        let _ = envelope.members(&mut Skim::new(text), Objects::End);
        envelope
    }

    fn members(&mut self, json: &mut Skim<'a>, objects: Objects) -> Result<(), String> {
        each(json, |name, json| {
            match name {
                "apiVersion" => self.api_version = small(json)?,
                "kind" => self.kind = small(json)?,
                "request" if json.kind() == Ok(Kind::Null) => small(json)?,
                "request" => self.request.insert(Request::default()).members(json, objects)?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }
}

/// What becomes of the objects of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objects {
    /// They are passed over, and their texts are kept.
    Passed,
    /// Nothing is read from the first of them on.
    End,
}

impl<'a> Request<'a> {
    fn members(&mut self, json: &mut Skim<'a>, objects: Objects) -> Result<(), String> {
        each(json, |name, json| {
            match name {
                "uid" => self.uid = small(json)?,
                "kind" => self.kind = small(json)?,
                "resource" => self.resource = small(json)?,
                "subResource" => self.sub_resource = small(json)?,
                "name" => self.name = small(json)?,
                "namespace" => self.namespace = small(json)?,
                "operation" => self.operation = small(json)?,
                "userInfo" => self.user_info = small(json)?,
                "object" | "oldObject" if objects == Objects::End => return Err("the head ends".to_owned()),
                "object" => self.object = object(json)?,
                "oldObject" => self.old_object = object(json)?,
                "dryRun" => self.dry_run = small(json)?,
                _ => return Ok(false),
            }
            Ok(true)
        })
    }
}

impl Request<'_> {
    /// The request without its objects, which may be large.
    #[must_use]
    pub fn without_objects(self) -> Request<'static> {
        Request {
            uid: self.uid,
            kind: self.kind,
            resource: self.resource,
            sub_resource: self.sub_resource,
            name: self.name,
            namespace: self.namespace,
            operation: self.operation,
            user_info: self.user_info,
            object: None,
            old_object: None,
            dry_run: self.dry_run,
        }
    }
}

/// A review that can be answered.
#[derive(Debug)]
pub struct Review<'a> {
    api_version: &'static str,
    /// What it asks.
    pub request: Request<'a>,
}

impl<'a> Review<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// Anything that is no review of a version that we speak.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReviewError> {
        Self::of(Envelope::read(body).map_err(ReviewError::Malformed)?)
    }

    /// Reads what a body says before its objects: API servers say first who asks, and for what. For bodies that are too large to be read.
    ///
    /// # Errors
    /// As [`Self::parse`], of so much of it.
    pub fn parse_head(head: &'a [u8]) -> Result<Self, ReviewError> {
        Self::of(Envelope::read_head(head))
    }

    fn of(envelope: Envelope<'a>) -> Result<Self, ReviewError> {
        let api_version = match (envelope.api_version.as_str(), envelope.kind.as_str()) {
            ("admission.k8s.io/v1", "AdmissionReview") => "admission.k8s.io/v1",
            ("admission.k8s.io/v1beta1", "AdmissionReview") => "admission.k8s.io/v1beta1",
            (api_version, kind) => {
                let short = |text: &str| text.chars().take(80).collect();
                return Err(ReviewError::Unsupported { api_version: short(api_version), kind: short(kind) });
            }
        };
        let request = envelope.request.ok_or(ReviewError::Missing("request"))?;
        if request.uid.is_empty() {
            return Err(ReviewError::Missing("request.uid"));
        }
        let texts = [
            ("request.uid", &request.uid),
            ("request.operation", &request.operation),
            ("request.kind.group", &request.kind.group),
            ("request.kind.version", &request.kind.version),
            ("request.kind.kind", &request.kind.kind),
            ("request.resource.group", &request.resource.group),
            ("request.resource.version", &request.resource.version),
            ("request.resource.resource", &request.resource.resource),
            ("request.userInfo.username", &request.user_info.username),
        ];
        let optional = [
            ("request.subResource", &request.sub_resource),
            ("request.name", &request.name),
            ("request.namespace", &request.namespace),
        ];
        let optional = optional.iter().filter_map(|(name, text)| Some((*name, text.as_ref()?)));
        if let Some((name, _)) = texts.into_iter().chain(optional).find(|(_, text)| text.len() > MAX_TEXT) {
            return Err(ReviewError::TooLong(name));
        }
        Ok(Self { api_version, request })
    }

    /// The review without its objects, which may be large.
    #[must_use]
    pub fn without_objects(self) -> Review<'static> {
        Review { api_version: self.api_version, request: self.request.without_objects() }
    }

    /// The answer, in the version of the question.
    #[must_use]
    pub fn answer(&self, answer: &Answer) -> Vec<u8> {
        let patch = answer.patch.as_ref().map(|patch| STANDARD.encode(patch));
        let response = Response {
            uid: &self.request.uid,
            allowed: answer.denied.is_none(),
            status: answer.denied.as_ref().map(|message| Status {
                outcome: "Failure",
                message,
                reason: "Forbidden",
                code: 403,
            }),
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
            warnings: &answer.warnings,
            audit_annotations: answer.audit.iter().map(|(name, value)| (*name, value.as_str())).collect(),
        };
        let body = Body { api_version: self.api_version, kind: "AdmissionReview", response };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// What we have to say to a request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message of a denial; `None` allows.
    pub denied: Option<String>,
    /// A JSON patch, not empty.
    pub patch: Option<Vec<u8>>,
    /// Shown to the user by `kubectl`.
    pub warnings: Vec<String>,
    /// For the audit log of the API server.
    pub audit: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'a str,
    kind: &'a str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    audit_annotations: std::collections::BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "status")]
    outcome: &'a str,
    message: &'a str,
    reason: &'a str,
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u1",
        "kind":{"group":"","version":"v1","kind":"Pod"},"operation":"CREATE","object":{"a":1},"oldObject":null,"dryRun":false}}"#;

    #[test]
    fn answers_repeat_uid_and_version() {
        let review = Review::parse(BODY.as_bytes()).unwrap();
        assert_eq!(review.request.object, Some(r#"{"a":1}"#));
        let allowed: serde_json::Value = serde_json::from_slice(&review.answer(&Answer::default())).unwrap();
        let expected = serde_json::json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
            "response": {"uid": "u1", "allowed": true}});
        assert_eq!(allowed, expected);
        let answer = Answer { denied: Some("no".into()), ..Answer::default() };
        let denied: serde_json::Value = serde_json::from_slice(&review.answer(&answer)).unwrap();
        assert_eq!(
            denied["response"]["status"],
            serde_json::json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403})
        );
    }

    /// What comes before the objects is read of a body that is cut off anywhere behind that.
    #[test]
    fn a_head_tells_who_asks() {
        let whole = BODY.replace(r#""object""#, r#""namespace":"n","userInfo":{"username":"u"},"object""#);
        let from = whole.find(r#","object""#).unwrap();
        for end in from..whole.len() {
            let review = Review::parse_head(&whole.as_bytes()[..end]).unwrap();
            let request = &review.request;
            assert_eq!((request.namespace.as_deref(), request.kind.kind.as_str()), (Some("n"), "Pod"), "{end}");
            assert_eq!((request.user_info.username.as_str(), request.object), ("u", None));
        }
        let cut = Review::parse_head(
            "{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{\"uid\":\"é".as_bytes(),
        );
        assert_eq!(cut.unwrap_err(), ReviewError::Missing("request.uid"));
    }

    #[test]
    fn of_groups_some_of_each_kind_are_kept() {
        let read =
            |groups: &str| serde_json::from_str::<UserInfo>(&format!(r#"{{"groups":{groups}}}"#)).unwrap().groups;
        assert_eq!(read("null"), [""; 0]);
        assert_eq!(read(r#"["a", "system:nodes", "system\u003anodes"]"#), ["a", "system:nodes", "system:nodes"]);
        let many: Vec<_> = (0..1000).map(|_| "x").chain((0..100).map(|_| "system:x")).collect();
        assert_eq!(read(&serde_json::to_string(&many).unwrap()).len(), MAX_GROUPS.0 + MAX_GROUPS.1);
        assert_eq!(read(&format!(r#"["{}"]"#, "x".repeat(MAX_GROUP + 1))), [""; 0]);
        assert!(serde_json::from_str::<UserInfo>(r#"{"groups":"system:nodes"}"#).is_err());
    }

    #[test]
    fn a_patch_brings_its_type() {
        let review = Review::parse(BODY.as_bytes()).unwrap();
        let answer = Answer { patch: Some(b"[]".to_vec()), ..Answer::default() };
        let answer: serde_json::Value = serde_json::from_slice(&review.answer(&answer)).unwrap();
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        assert_eq!(answer["response"]["patch"], "W10=");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        let cases = [
            ("", "not an AdmissionReview"),
            ("[]", "not an AdmissionReview"),
            ("{}", "is not supported"),
            (r#"{"apiVersion":"admission.k8s.io/v2","kind":"AdmissionReview"}"#, "v2 is not supported"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "no request.uid"),
            (r#"{"request":null,"request":{"uid":"u"}}"#, "the member request stands twice"),
            (r#"{"request":{"uid":"u","object":null,"object":{}}}"#, "the member object stands twice"),
            (r#"{"request":{"uid":"u","object":{},"\u006fbject":{}}}"#, "the member object stands twice"),
        ];
        let long = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","name":"{}"}}}}"#,
            "a".repeat(MAX_TEXT + 1)
        );
        assert_eq!(Review::parse(long.as_bytes()).unwrap_err(), ReviewError::TooLong("request.name"));
        for (body, expected) in cases {
            let error = Review::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
