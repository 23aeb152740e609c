//! Break glass: an annotation with a reason, by which people whom the configuration names admit an object in spite of a denial.

use countersign_image::shown;
use serde_json::Value;

use crate::admission_review::Request;
use crate::config::ConfigError;

/// The annotation of an object; its value is the reason.
pub(crate) const ANNOTATION: &str = "securityenforcement.admission.cloud.ibm.com/break-glass";

/// Groups that have members whom nobody chose for this: everybody, every node, and every service account of some namespace. What they
/// make may hold what somebody else wrote: a controller copies annotations of a template.
const TOO_WIDE: [&str; 4] =
    ["system:authenticated", "system:unauthenticated", "system:nodes", "system:serviceaccounts"];

/// Users whose requests hold what somebody else wrote.
const NOT_PEOPLE: [&str; 3] = ["system:node:", "system:serviceaccount:kube-system:", "system:kube-controller-manager"];

/// Who may break the glass; nobody, unless the configuration says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BreakGlass {
    users: Vec<String>,
    groups: Vec<String>,
}

/// What a request says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing.
    None,
    /// The object is to be admitted, for this reason, by somebody who may say so.
    Granted(String),
    /// The annotation is there and does not count, for this reason.
    Refused(String),
}

impl BreakGlass {
    /// Takes the names of users and groups.
    ///
    /// # Errors
    /// Users and groups that are not people who chose to ask.
    pub(crate) fn new(users: Vec<String>, groups: Vec<String>) -> Result<Self, ConfigError> {
        let wide = |group: &&String| {
            TOO_WIDE.iter().any(|wide| group.as_str() == *wide || group.starts_with(&format!("{wide}:")))
        };
        if let Some(group) = groups.iter().find(wide) {
            return Err(ConfigError::Invalid(format!(
                "break-glass-group: {group:?} has members whom nobody chose for this; name a group of people"
            )));
        }
        if let Some(user) = users.iter().find(|user| !is_somebody(user)) {
            return Err(ConfigError::Invalid(format!(
                "break-glass-user: {user:?} makes objects from what others wrote, so whoever may write a pod template could break the glass; name people"
            )));
        }
        Ok(Self { users, groups })
    }

    /// What a request says. `before` is the annotation's value in the old object of an UPDATE: a reason counts for the request that
    /// brings it, so that nobody can leave one behind for the next person who changes the object.
    #[must_use]
    pub(crate) fn wish(
        &self,
        request: &Request<'_>,
        object: &Value,
        before: Option<&str>,
        controllers: &[String],
    ) -> Wish {
        let Some(reason) = reason(object) else { return Wish::None };
        let user = &request.user_info.username;
        let may = self.users.contains(user) || self.groups.iter().any(|group| request.user_info.groups.contains(group));
        let refused = |why: String| Wish::Refused(format!("the annotation {ANNOTATION} does not count: {why}"));
        if !may || !is_somebody(user) || controllers.contains(user) {
            return refused(format!("user \"{}\" may not break the glass here", shown(user)));
        }
        if reason.trim().is_empty() {
            return refused("it gives no reason".to_owned());
        }
        let Some(name) = name(object) else {
            return refused(
                "the API server is yet to name the object, so the reason cannot begin with that; give it a name"
                    .to_owned(),
            );
        };
        if !reason.trim_start().starts_with(&format!("{name}:")) {
            return refused(format!("it does not begin with the object's own name, as in \"{}: reason\"", shown(name)));
        }
        if before == Some(reason) {
            return refused("it stood there before; a reason counts once, so give a new one".to_owned());
        }
        Wish::Granted(reason.to_owned())
    }
}

/// The name of an object. What is made of an object by somebody else (a copy to debug, a job of a cron job) takes its annotations along, and
/// has another name. The beginning of a name does not do: the validating webhook sees all of it, and copies may have the same beginning.
fn name(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty())
}

/// The annotation's value, if the object has it.
#[must_use]
pub(crate) fn reason(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str()
}

fn is_somebody(user: &str) -> bool {
    !user.is_empty() && user != "system:anonymous" && !NOT_PEOPLE.iter().any(|prefix| user.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission_review::UserInfo;

    fn who(users: &[&str], groups: &[&str]) -> Result<BreakGlass, ConfigError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        BreakGlass::new(owned(users), owned(groups))
    }

    #[test]
    fn only_people_may_be_named() {
        assert!(who(&["alice", "system:serviceaccount:ops:admin"], &["sre", "system:masters"]).is_ok());
        for user in ["system:node:a", "system:serviceaccount:kube-system:job-controller", "system:anonymous", ""] {
            assert!(who(&[user], &[]).is_err(), "{user}");
        }
        for group in ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:ops", "system:nodes"] {
            assert!(who(&[], &[group]).is_err(), "{group}");
        }
    }

    #[test]
    fn who_says_it_and_when() {
        let glass = who(&["alice", "bot"], &["sre"]).unwrap();
        let wish = |user: &str, group: &str, reason: &str, before: Option<&str>| {
            let user_info = UserInfo { username: user.into(), groups: vec![group.into()] };
            let object = json!({"metadata": {"name": "web", "annotations": {ANNOTATION: reason}}});
            glass.wish(&Request { user_info, ..Request::default() }, &object, before, &["bot".to_owned()])
        };
        let granted = |reason: &str| Wish::Granted(reason.to_owned());
        assert_eq!(wish("alice", "x", "web: INC-1", None), granted("web: INC-1"));
        assert_eq!(wish("bob", "sre", "web: INC-1", Some("web: INC-0")), granted("web: INC-1"));
        for (user, group, reason, before, why) in [
            ("bob", "x", "web: INC-1", None, "may not break the glass"),
            ("bot", "x", "web: INC-1", None, "may not break the glass"),
            ("system:serviceaccount:kube-system:job-controller", "sre", "web: INC-1", None, "may not break the glass"),
            ("alice", "x", " ", None, "gives no reason"),
            // It stood on something else, of which this is a copy.
            ("alice", "x", "other: INC-1", None, "the object's own name"),
            ("alice", "x", "INC-1", None, "the object's own name"),
            ("alice", "x", "web: INC-1", Some("web: INC-1"), "stood there before"),
        ] {
            let Wish::Refused(told) = wish(user, group, reason, before) else { panic!("{user} {group} {reason:?}") };
            assert!(told.contains(why), "{told}");
        }
        // The mutating webhook would grant what the validating one, which sees another name, does not.
        let user_info = UserInfo { username: "alice".into(), groups: Vec::new() };
        let unnamed = json!({"metadata": {"generateName": "web-", "annotations": {ANNOTATION: "web-: INC-1"}}});
        let wish = glass.wish(&Request { user_info, ..Request::default() }, &unnamed, None, &[]);
        assert!(matches!(&wish, Wish::Refused(told) if told.contains("give it a name")), "{wish:?}");
        assert_eq!(glass.wish(&Request::default(), &json!({"metadata": {}}), None, &[]), Wish::None);
        let nobody = BreakGlass::default();
        let object = json!({"metadata": {"annotations": {ANNOTATION: "x"}}});
        assert!(matches!(nobody.wish(&Request::default(), &object, None, &[]), Wish::Refused(_)));
    }
}
