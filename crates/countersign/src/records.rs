//! What is remembered of repositories, kept in a cluster: one `TrustRecord` each, in Countersign's own namespace, shared by
//! all replicas.
//!
//! The records are followed, so that to look one up asks nobody; only something new is written, and only if nobody wrote since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_notary::RoleName;
use countersign_remote::Clock;
use countersign_remote::state::{self, Remembered, StateError, StateStore};
use futures::future::BoxFuture;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde_json::{Value, json};
use tracing::{error, info};

use crate::api::GROUP;
use crate::cluster::{self, News};

/// How often a write is tried again that somebody else was faster with.
const MAX_TRIES: usize = 8;

/// The records of a cluster.
pub struct Records {
    api: Api<DynamicObject>,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    sight: Sight,
    records: HashMap<String, DynamicObject>,
}

#[derive(Default, PartialEq, Eq)]
enum Sight {
    /// Not listed yet, for this reason if one is known.
    #[default]
    Never,
    /// Followed, or known from before.
    Clear,
    /// The cluster has none, or keeps them from us: nothing is remembered across restarts then.
    Absent,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// The API of the records in a namespace.
#[must_use]
pub fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

fn resource() -> ApiResource {
    cluster::resource(GROUP, "v1beta1", "TrustRecord", "trustrecords")
}

/// Server, repository, and what a record remembers of it.
///
/// # Errors
/// A record that cannot be read.
pub fn read(record: &DynamicObject) -> Result<(String, String, Remembered), String> {
    let text = |member: &str| record.data["spec"][member].as_str().unwrap_or_default().to_owned();
    let (server, gun) = (text("server"), text("gun"));
    let remembered = state::decode(&server, &gun, text("data").as_bytes())?;
    Ok((server, gun, remembered))
}

/// A record of what is remembered; in place of another one, where one is given.
///
/// # Errors
/// What cannot be written down.
pub fn write(
    before: Option<&DynamicObject>,
    server: &str,
    gun: &str,
    seen: &Remembered,
    now: jiff::Timestamp,
) -> Result<DynamicObject, String> {
    let data = String::from_utf8(state::encode(server, gun, seen)?).map_err(|error| error.to_string())?;
    let root = seen.memory.lineage.last();
    let spec = json!({
        "server": server, "gun": gun, "data": data, "verified": cluster::time(now), "accepted": seen.accepted,
        "rootVersion": root.map(|root| root.version),
        "rootKeys": root.map(|root| root.keys.iter().map(|key| key.id.to_string()).collect::<Vec<_>>()).unwrap_or_default(),
        "timestampVersion": seen.memory.seen.get(&RoleName::timestamp()).map(|seen| seen.version),
    });
    let mut record = DynamicObject::new(&state::name(server, gun), &resource());
    if let Some(before) = before {
        record.metadata = before.metadata.clone();
    }
    record.data = json!({"spec": without_null(spec)});
    Ok(record)
}

fn without_null(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
    value
}

impl Records {
    /// Begins to follow the records of a namespace.
    #[must_use]
    pub fn follow(client: Client, namespace: &str, clock: &Clock) -> Arc<Self> {
        let api = api(client, namespace);
        let records = Arc::new(Self { api: api.clone(), clock: Arc::clone(clock), known: Mutex::default() });
        let told = Arc::clone(&records);
        tokio::spawn(cluster::follow(api, None, move |news| told.news(news)));
        records
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self, news: News<DynamicObject>) {
        let name = |record: &DynamicObject| record.metadata.name.clone().unwrap_or_default();
        let mut known = self.known();
        match news {
            News::All(records) => {
                info!(count = records.len(), "what is remembered of repositories is followed");
                known.records = records.into_iter().map(|record| (name(&record), record)).collect();
                known.sight = Sight::Clear;
            }
            News::Applied(record) => {
                known.records.insert(name(&record), record);
            }
            News::Deleted(record) => {
                known.records.remove(&name(&record));
            }
            News::Trouble(Some(403 | 404), cause) => {
                if known.sight != Sight::Absent {
                    error!(%cause, "trustrecords cannot be followed: what is seen of repositories is forgotten at a restart; apply countersign manifests again");
                }
                *known = Known { sight: Sight::Absent, records: HashMap::new() };
            }
            // What is known stays good enough: it only ever grows.
            News::Trouble(..) => {}
        }
    }

    fn error(&self, action: &'static str, gun: &str, cause: String) -> StateError {
        StateError::new(action, gun, self.api.resource_url(), cause)
    }

    async fn store(&self, server: &str, gun: &str, seen: &Remembered) -> Result<(), StateError> {
        let failed = |cause: String| self.error("write", gun, cause);
        let name = state::name(server, gun);
        let mut before = {
            let known = self.known();
            if known.sight == Sight::Absent {
                return Err(failed("the API server does not know trustrecords".to_owned()));
            }
            known.records.get(&name).cloned()
        };
        for _ in 0..MAX_TRIES {
            let there = before.as_ref().map(read).transpose().map_err(failed)?.map(|(_, _, there)| there);
            let Some(merged) = state::merged(there, seen) else {
                return Ok(());
            };
            let record = write(before.as_ref(), server, gun, &merged, (self.clock)()).map_err(failed)?;
            let params = PostParams::default();
            let written = match &before {
                Some(_) => cluster::in_time(self.api.replace(&name, &params, &record)).await,
                None => cluster::in_time(self.api.create(&params, &record)).await,
            };
            match written {
                Ok(record) => {
                    // Known at once, before the watch tells it: the next look must not find it gone.
                    self.known().records.insert(name, record);
                    return Ok(());
                }
                Err((Some(404 | 409), _)) => {
                    let read = cluster::in_time(self.api.get_opt(&name)).await;
                    before = read.map_err(|(_, cause)| failed(cause))?;
                }
                Err((_, cause)) => return Err(failed(cause)),
            }
        }
        Err(failed("it is written by others all the time".to_owned()))
    }
}

impl StateStore for Records {
    fn is_ready(&self) -> bool {
        self.known().sight != Sight::Never
    }

    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<Remembered>, StateError>> {
        let known = self.known();
        let loaded = match known.sight {
            Sight::Never => Err(self.error("read", gun, "the records are not listed yet".to_owned())),
            Sight::Absent => Ok(None),
            Sight::Clear => match known.records.get(&state::name(server, gun)).map(read).transpose() {
                Err(cause) => Err(self.error("read", gun, cause)),
                // A name is a hash: a record of another repository under it is somebody's doing.
                Ok(Some((found_server, found_gun, _)))
                    if (found_server.as_str(), found_gun.as_str()) != (server, gun) =>
                {
                    Err(self.error("read", gun, "the record is about another repository".to_owned()))
                }
                Ok(found) => Ok(found.map(|(_, _, remembered)| remembered)),
            },
        };
        Box::pin(async move { loaded })
    }

    fn save<'a>(
        &'a self,
        server: &'a str,
        gun: &'a str,
        seen: &'a Remembered,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        Box::pin(self.store(server, gun, seen))
    }
}
