//! Lists what a cluster has, page by page.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use countersign_image::Sha256;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::object::{Kind, listed};
use super::report::Unread;
use crate::cluster;
use crate::config::FurtherKind;

/// How long the API server may take for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many pages are asked for: more than there are objects in any cluster, so that an API server that never ends its list does not keep
/// us.
const MAX_PAGES: usize = 1_000_000;

/// How often a page is asked for that the API server was too busy for.
const TRIES: u32 = 5;

/// The shortest and the longest pause before it is asked for again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A kind that the cluster has.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The kind.
    pub(super) kind: Kind,
    resource: ApiResource,
}

impl Listed {
    /// A kind by the plural name of its resource.
    pub(super) fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let resource = cluster::resource(group, version, kind, plural);
        Self { kind: Kind { group: group.to_owned(), version: version.to_owned(), name: kind.to_owned() }, resource }
    }

    /// `deployments.apps`, as access rules and kubectl name it.
    pub(super) fn title(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// The kinds of a cluster that hold pod specs, owners before what they make.
///
/// What a cluster does not have of the kinds of Kubernetes and `OpenShift` has no objects there. A kind of the settings that it does
/// not have is one that was meant, and is told.
pub(super) async fn kinds(client: &Client, further: &[FurtherKind]) -> (Vec<Listed>, Vec<Unread>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let groups = match cluster::in_time(client.list_api_groups()).await {
        Ok(groups) => groups.groups,
        Err((_, cause)) => {
            let what = "the kinds of the cluster".to_owned();
            return (found, vec![Unread { what, namespace: None, cause }]);
        }
    };
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::from([(String::new(), vec!["v1".to_owned()])]);
    for group in groups {
        let preferred = group.preferred_version.map(|version| version.version);
        let mut all: Vec<_> = group.versions.into_iter().map(|version| version.version).collect();
        all.sort_by_key(|version| Some(version) != preferred.as_ref());
        versions.insert(group.name, all);
    }
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (group, kind) in listed() {
        wanted.entry(group).or_default().insert(kind);
    }
    for further in further {
        wanted.entry(&further.group).or_default().insert(&further.kind);
    }
    for (group, mut wanted) in wanted {
        let mut trouble = None;
        for version in versions.get(group).map(Vec::as_slice).unwrap_or_default() {
            if wanted.is_empty() {
                break;
            }
            match resources(client, group, version).await {
                Err(cause) => trouble = Some(cause),
                Ok(list) => {
                    for resource in list.resources {
                        let is_listed = resource.verbs.iter().any(|verb| verb == "list");
                        if is_listed && !resource.name.contains('/') && wanted.remove(resource.kind.as_str()) {
                            found.push(Listed::new(group, version, &resource.kind, &resource.name));
                        }
                    }
                }
            }
        }
        for kind in wanted {
            let is_meant =
                further.iter().any(|further| (further.group.as_str(), further.kind.as_str()) == (group, kind));
            let cause = match &trouble {
                Some(cause) => cause.clone(),
                None if is_meant => "the cluster has no such kind, or does not list it".to_owned(),
                None => continue,
            };
            let what = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            unread.push(Unread { what, namespace: None, cause });
        }
    }
    found.sort_by_key(|listed| listed.kind.rank());
    (found, unread)
}

async fn resources(client: &Client, group: &str, version: &str) -> Result<APIResourceList, String> {
    let listed = if group.is_empty() {
        cluster::in_time(client.list_core_api_resources(version)).await
    } else {
        cluster::in_time(client.list_api_group_resources(&format!("{group}/{version}"))).await
    };
    listed.map_err(|(_, cause)| cause)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// What tells an object from others of its kind.
#[derive(Deserialize)]
struct Identified {
    metadata: Identity,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
}

/// A list under way.
pub(super) struct List {
    api: Api<DynamicObject>,
    page: u32,
    /// Where the next page begins; nothing at the beginning.
    token: Option<String>,
    is_done: bool,
    /// How many pages came.
    pages: usize,
    /// The objects that came, so that none comes twice where the list begins anew.
    seen: HashSet<Sha256>,
    /// How many had come when the API server last forgot where the list was.
    seen_when_forgotten: Option<usize>,
}

/// Why there is no page.
enum Trouble {
    /// The API server has forgotten where the list was, and may say where it can go on.
    Forgotten(Option<String>),
    /// It is too busy, and says for how many seconds it wants to be left alone.
    Busy(u32, String),
    /// Anything else.
    Other(String),
}

impl List {
    /// Lists the objects of a kind, in one namespace or in all.
    pub(super) fn begin(client: &Client, listed: &Listed, namespace: Option<&str>, page: u32) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &listed.resource),
            None => Api::all_with(client.clone(), &listed.resource),
        };
        Self { api, page, token: None, is_done: false, pages: 0, seen: HashSet::new(), seen_when_forgotten: None }
    }

    /// The next objects; `None` at the end.
    ///
    /// # Errors
    /// The rest cannot be listed; there is no next page then.
    pub(super) async fn next(&mut self, client: &Client) -> Result<Option<Vec<Box<RawValue>>>, String> {
        while !self.is_done {
            self.pages += 1;
            if self.pages > MAX_PAGES {
                return self.fail("the API server's list does not end");
            }
            let page = match self.ask(client).await {
                Ok(page) => page,
                Err(Trouble::Forgotten(next)) if self.token.is_some() && self.brought_something() => {
                    self.token = next;
                    continue;
                }
                Err(Trouble::Forgotten(_)) => {
                    return self.fail("the API server forgot where the list was, again and again");
                }
                Err(Trouble::Busy(_, cause) | Trouble::Other(cause)) => return self.fail(&cause),
            };
            self.token = page.metadata.next.filter(|token| !token.is_empty());
            self.is_done = self.token.is_none();
            let mut items = page.items.unwrap_or_default();
            items.retain(|item| identity(item.get()).is_none_or(|identity| self.seen.insert(identity)));
            return Ok(Some(items));
        }
        Ok(None)
    }

    fn fail<T>(&mut self, cause: &str) -> Result<T, String> {
        self.is_done = true;
        Err(cause.to_owned())
    }

    /// Whether anything came since the API server last forgot where the list was.
    fn brought_something(&mut self) -> bool {
        let seen = self.seen.len();
        self.seen_when_forgotten.replace(seen) != Some(seen)
    }

    /// Asks for a page, and again after a pause while the API server is too busy.
    async fn ask(&self, client: &Client) -> Result<Page, Trouble> {
        let mut pause = PAUSES.0;
        for _ in 1..TRIES {
            match self.ask_once(client).await {
                Err(Trouble::Busy(seconds, _)) => {
                    tokio::time::sleep(Duration::from_secs(seconds.into()).clamp(pause, PAUSES.1)).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                asked => return asked,
            }
        }
        self.ask_once(client).await
    }

    async fn ask_once(&self, client: &Client) -> Result<Page, Trouble> {
        let mut params = ListParams::default().limit(self.page);
        if let Some(token) = &self.token {
            params = params.continue_token(token);
        }
        let request = kube::core::Request::new(self.api.resource_url()).list(&params);
        let request = request.map_err(|error| Trouble::Other(error.to_string()))?;
        let text = match tokio::time::timeout(PAGE_TIMEOUT, client.request_text(request)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return Err(trouble(&error)),
            Err(_) => {
                let cause = format!("the API server did not answer within {} s", PAGE_TIMEOUT.as_secs());
                return Err(Trouble::Busy(0, cause));
            }
        };
        serde_json::from_str(&text).map_err(|error| Trouble::Other(format!("the API server's list: {error}")))
    }
}

fn trouble(error: &kube::Error) -> Trouble {
    let cause = cluster::cause(error);
    let kube::Error::Api(status) = error else {
        return Trouble::Other(cause);
    };
    match status.code {
        410 => Trouble::Forgotten(
            status.metadata.as_ref().and_then(|metadata| metadata.continue_.clone()).filter(|token| !token.is_empty()),
        ),
        429 | 503 | 504 => {
            Trouble::Busy(status.details.as_ref().map_or(0, |details| details.retry_after_seconds), cause)
        }
        _ => Trouble::Other(cause),
    }
}

/// What tells an object from others of its kind; nothing for one that cannot be read, which is told wherever it comes.
fn identity(json: &str) -> Option<Sha256> {
    let Identity { namespace, name, uid } = serde_json::from_str::<Identified>(json).ok()?.metadata;
    Some(Sha256::of(serde_json::json!([namespace, name, uid]).to_string().as_bytes()))
}
