//! A store in a cluster: one `TrustRecord` a record, in Countersign's own namespace, shared by all replicas.
//!
//! The records are followed, so that to look one up asks nobody; only something new is written, and only if nobody wrote since.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_remote::{
    Clock, Content, RecordKey, Saved, StateError, StateStore, Stored, UNKNOWN_MARK,
    shares::{self, MAX_RECORD_BYTES, NoRoom},
};
use futures::future::BoxFuture;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::api::GROUP;
use crate::cluster::{self, MAX_BLIND, News};

/// The records of a cluster.
pub(crate) struct Records {
    api: Api<DynamicObject>,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    sight: Sight,
    records: HashMap<String, DynamicObject>,
    /// A number for each state of a record, see [`StateStore::mark`].
    marks: HashMap<String, u64>,
    changes: u64,
    /// Those that were there and are said to be gone. A list may be older than what was written since, so the API server is
    /// asked before anybody believes it: to forget is to trust whatever comes next.
    gone: HashSet<String>,
}

#[derive(PartialEq, Eq)]
enum Sight {
    /// Not listed yet, for this reason.
    Never(String),
    /// Followed.
    Clear,
    /// Not followed any more since then, for this reason.
    Blind(Instant, String),
}

impl Sight {
    /// Why nothing may be believed that is known, if so.
    fn blind(&self) -> Option<String> {
        match self {
            Self::Never(cause) => Some(cause.clone()),
            Self::Clear => None,
            Self::Blind(since, cause) => (since.elapsed() > MAX_BLIND)
                .then(|| format!("trustrecords cannot be followed for {} s: {cause}", since.elapsed().as_secs())),
        }
    }
}

impl Default for Sight {
    fn default() -> Self {
        Self::Never("they are not listed yet".to_owned())
    }
}

/// How much a record counts for.
fn size(record: &DynamicObject) -> usize {
    let length = |member: &str| record.data["spec"][member].as_str().map_or(0, str::len);
    shares::counted(length("data"), length("more"))
}

/// Whether a state of a record may be a later one than another. One that was deleted may still be told of when the record is made anew:
/// of two records the one that was written later counts, by the revision that etcd gives (no API server gives another kind).
fn may_follow(record: &ObjectMeta, held: &ObjectMeta) -> bool {
    if record.uid == held.uid {
        return held.generation <= record.generation;
    }
    let revision = |metadata: &ObjectMeta| metadata.resource_version.as_ref()?.parse::<u64>().ok();
    revision(record).zip(revision(held)).is_none_or(|(record, held)| record > held)
}

/// The namespace for whose share a record counts.
fn namespace(record: &DynamicObject) -> &str {
    record.data["spec"]["namespace"].as_str().unwrap_or_default()
}

impl Known {
    /// Takes note of a record, unless a newer state of the same one is known already.
    fn take(&mut self, record: DynamicObject) {
        let name = record.metadata.name.clone().unwrap_or_default();
        let held = self.records.get(&name).map(|held| &held.metadata);
        if held.is_none_or(|held| may_follow(&record.metadata, held)) {
            let state = |metadata: &ObjectMeta| (metadata.uid.clone(), metadata.generation);
            if held.map(state) != Some(state(&record.metadata)) {
                self.changes += 1;
                self.marks.insert(name.clone(), self.changes);
            }
            self.records.insert(name.clone(), record);
        }
        self.gone.remove(&name);
    }

    /// Whether a record may be written, for all that is remembered already.
    fn has_room(&self, name: &str, record: &DynamicObject) -> Result<(), NoRoom> {
        let encoded = serde_json::to_vec(record).map_or(usize::MAX, |text| text.len());
        if encoded > MAX_RECORD_BYTES {
            return Err(NoRoom::TooLarge { kib: encoded >> 10 });
        }
        let others = self.records.iter().filter(|(other, _)| *other != name);
        let others = others.map(|(_, record)| (namespace(record), size(record)));
        shares::has_room(others, namespace(record), self.records.get(name).map(size), size(record))
    }

    fn lose(&mut self, name: String) {
        if self.drop_record(&name) {
            self.gone.insert(name);
        }
    }

    fn drop_record(&mut self, name: &str) -> bool {
        let was_there = self.records.remove(name).is_some();
        if was_there {
            self.changes += 1;
            self.marks.insert(name.to_owned(), self.changes);
        }
        was_there
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

/// The API of the records in a namespace.
#[must_use]
pub(crate) fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

fn resource() -> ApiResource {
    cluster::resource(GROUP, "v1beta1", "TrustRecord", "trustrecords")
}

/// What a record keeps.
#[must_use]
pub(crate) fn read(record: &DynamicObject) -> Stored {
    let text = |member: &str| record.data["spec"][member].as_str().filter(|text| !text.is_empty());
    let content = Content {
        text: text("data").unwrap_or_default().into(),
        more: text("more").map(Into::into),
        namespace: text("namespace").map(str::to_owned),
        summary: Vec::new(),
    };
    Stored { content, uid: record.metadata.uid.clone(), revision: revision(record) }
}

fn revision(record: &DynamicObject) -> String {
    record.metadata.resource_version.clone().unwrap_or_default()
}

/// A record that keeps this; in place of another one, where one is given.
///
/// # Errors
/// What is no text.
pub(crate) fn write(
    before: Option<&DynamicObject>,
    key: &RecordKey,
    content: Content,
    now: jiff::Timestamp,
) -> Result<DynamicObject, std::string::FromUtf8Error> {
    let mut spec = json!({
        "server": key.server, "gun": key.gun, "pinnedIn": key.pinned_in, "namespace": content.namespace,
        "data": String::from_utf8(content.text)?, "more": content.more.map(String::from_utf8).transpose()?,
        "verified": cluster::time(now),
    });
    for (name, value) in content.summary {
        spec[name] = value;
    }
    let mut record = DynamicObject::new(&key.name(), &resource());
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
    pub(crate) fn follow(client: Client, namespace: &str, clock: &Clock) -> Arc<Self> {
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
                if known.sight != Sight::Clear {
                    info!(count = records.len(), "what is remembered of repositories is followed");
                }
                let listed: HashSet<String> = records.iter().map(name).collect();
                let missing: Vec<String> =
                    known.records.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                for name in missing {
                    known.lose(name);
                }
                for record in records {
                    known.take(record);
                }
                known.sight = Sight::Clear;
            }
            News::Applied(record) => known.take(record),
            News::Deleted(record) => known.lose(name(&record)),
            News::Trouble(code, cause) => match &known.sight {
                // What is known stays good enough for a while: it only ever grows, and what others see meanwhile is found when it is written.
                Sight::Clear => {
                    let seconds = MAX_BLIND.as_secs();
                    warn!(?code, %cause, "trustrecords cannot be followed; those that are known still count for {seconds} s");
                    known.sight = Sight::Blind(Instant::now(), cause);
                }
                Sight::Blind(since, _) => known.sight = Sight::Blind(*since, cause),
                Sight::Never(before) => {
                    if *before != cause {
                        error!(%cause, "trustrecords cannot be listed, so that nothing can be verified; apply countersign manifests again, for the definition and the right to read them");
                    }
                    known.sight = Sight::Never(cause);
                }
            },
        }
    }

    fn unreadable(&self, key: &RecordKey, cause: &str) -> StateError {
        StateError::unreadable(&key.gun, self.place(key), cause)
    }

    async fn store(&self, key: &RecordKey, content: Content, over: Option<&str>) -> Result<Saved, StateError> {
        let failed = |cause: String| StateError::unwritable(&key.gun, self.place(key), cause);
        let name = key.name();
        let before = self.known().records.get(&name).cloned();
        let before = match (before, over) {
            (Some(before), Some(over)) if revision(&before) == over => Some(before),
            // What is known to be there is not known to whoever wants to write.
            (Some(_), _) | (None, Some(_)) => return Ok(Saved::Changed),
            (None, None) => None,
        };
        let record = write(before.as_ref(), key, content, (self.clock)()).map_err(|error| failed(error.to_string()))?;
        let room = self.known().has_room(&name, &record);
        room.map_err(|why| StateError::no_room(&key.gun, self.place(key), why))?;
        let params = PostParams::default();
        let written = match &before {
            Some(_) => cluster::in_time(self.api.replace(&name, &params, &record)).await,
            None => cluster::in_time(self.api.create(&params, &record)).await,
        };
        match written {
            Ok(record) => {
                let uid = record.metadata.uid.clone();
                // Known at once, before the watch tells it: the next look must not find it gone.
                self.known().take(record);
                Ok(Saved::Done(uid))
            }
            // Somebody was faster, or took it away. (Where there is no such resource, to create answers 404 too.)
            Err((Some(code), _)) if code == 409 || (code == 404 && before.is_some()) => {
                self.look(&name).await.map_err(|cause| self.unreadable(key, &cause))?;
                Ok(Saved::Changed)
            }
            Err((_, cause)) => Err(failed(cause)),
        }
    }

    /// Asks the API server for a record, and takes note of what it says.
    async fn look(&self, name: &str) -> Result<Option<DynamicObject>, String> {
        let uid = |known: &Known| known.records.get(name).and_then(|record| record.metadata.uid.clone());
        let before = uid(&self.known());
        // An API server that is just starting answers 404 for what it does not serve yet: only one that names the record says
        // that there is none.
        let found = cluster::in_time(async {
            match self.api.get(name).await {
                Err(kube::Error::Api(status))
                    if status.code == 404 && status.details.as_ref().is_some_and(|details| details.name == name) =>
                {
                    Ok(None)
                }
                other => other.map(Some),
            }
        });
        let found = found.await.map_err(|(_, cause)| cause)?;
        let mut known = self.known();
        match &found {
            Some(record) => known.take(record.clone()),
            // Unless somebody here has written it since.
            None if uid(&known) == before => {
                known.drop_record(name);
                known.gone.remove(name);
            }
            None => {}
        }
        // The watch may have told of something newer meanwhile.
        Ok(known.records.get(name).cloned())
    }

    async fn recall(&self, key: &RecordKey) -> Result<Option<Stored>, StateError> {
        let name = key.name();
        let record = {
            let known = self.known();
            if let Some(cause) = known.sight.blind() {
                return Err(self.unreadable(key, &cause));
            }
            let record = known.records.get(&name).cloned();
            if record.is_none() && !known.gone.contains(&name) {
                return Ok(None);
            }
            record
        };
        let record = match record {
            Some(record) => Some(record),
            None => self.look(&name).await.map_err(|cause| self.unreadable(key, &cause))?,
        };
        Ok(record.as_ref().map(read))
    }
}

impl StateStore for Records {
    fn is_ready(&self) -> bool {
        !matches!(self.known().sight, Sight::Never(_))
    }

    fn count(&self) -> Option<usize> {
        Some(self.known().records.len())
    }

    fn mark(&self, name: &str) -> Option<u64> {
        let known = self.known();
        if known.sight.blind().is_some() {
            return Some(UNKNOWN_MARK);
        }
        Some(known.marks.get(name).copied().unwrap_or_default())
    }

    fn place(&self, key: &RecordKey) -> String {
        format!("{}/{}", self.api.resource_url(), key.name())
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(self.recall(key))
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        Box::pin(self.store(key, content, over))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cluster::scripted;

    const SERVER: &str = "https://notary.example.com:4443";
    const GUN: &str = "registry.example.com/app";

    fn key() -> RecordKey {
        RecordKey::new(SERVER, GUN)
    }

    fn content(text: &str) -> Content {
        Content { text: text.into(), ..Content::default() }
    }

    fn record(root: &str, uid: &str, generation: i64) -> DynamicObject {
        let mut record = write(None, &key(), content(root), jiff::Timestamp::UNIX_EPOCH).unwrap();
        (record.metadata.uid, record.metadata.generation) = (Some(uid.to_owned()), Some(generation));
        record
    }

    /// Records over an API server that answers every request so, and how often it was asked.
    fn records(answer: impl Fn() -> (u16, Value) + Send + Sync + 'static) -> (Records, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let client = scripted(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Some(answer())
        });
        let clock: Clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        (Records { api: api(client, "countersign"), clock, known: Mutex::default() }, asked)
    }

    /// What is there, in whichever record.
    async fn load(records: &Records) -> Result<Option<Content>, StateError> {
        let found = records.load(&key()).await?;
        assert!(found.as_ref().is_none_or(|stored| stored.uid.is_some()));
        Ok(found.map(|stored| stored.content))
    }

    fn failure(code: u16) -> (u16, Value) {
        let reason = if code == 404 { "NotFound" } else { "InternalError" };
        let details = json!({"name": key().name(), "kind": "trustrecords"});
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no", "details": details,
        });
        (code, status)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_listed_once_is_not_forgotten_for_trouble() {
        let (records, asked) = records(|| failure(500));
        assert!(load(&records).await.is_err() && !records.is_ready());
        records.news(News::Trouble(Some(403), "you may not".to_owned()));
        let refused = load(&records).await.unwrap_err();
        assert!(refused.to_string().contains("you may not") && !records.is_ready(), "{refused}");
        records.news(News::All(vec![record("r", "1", 1)]));
        for code in [Some(403), Some(404), Some(500), None] {
            records.news(News::Trouble(code, "gone".to_owned()));
            assert_eq!(load(&records).await, Ok(Some(content("r"))), "{code:?}");
        }
        // Others may have seen more by then.
        let name = key().name();
        let followed = records.mark(&name);
        tokio::time::advance(MAX_BLIND + std::time::Duration::from_secs(1)).await;
        let refused = load(&records).await.unwrap_err().to_string();
        assert!(refused.contains("trustrecords cannot be followed for 121 s: gone") && records.is_ready(), "{refused}");
        assert_ne!(records.mark(&name), followed, "what is in memory is looked at again");
        records.news(News::All(vec![record("r", "1", 1)]));
        assert_eq!(load(&records).await, Ok(Some(content("r"))));
        assert_eq!(records.mark(&name), followed);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        // A cluster that does not have the resource, or not yet.
        let (records, _) = self::records(|| failure(500));
        records.news(News::Trouble(Some(404), "no such resource".to_owned()));
        assert!(load(&records).await.is_err() && !records.is_ready());
    }

    #[tokio::test]
    async fn what_is_said_to_be_gone_is_asked_for() {
        let stays = || (200, serde_json::to_value(record("r", "1", 1)).unwrap());
        for gone in [false, true] {
            // A list that is older than the record, or word of one that was there before it.
            let news: [fn() -> News<DynamicObject>; 2] =
                [|| News::All(Vec::new()), || News::Deleted(record("r", "0", 1))];
            for news in news {
                let (records, asked) = records(move || if gone { failure(404) } else { stays() });
                records.news(News::All(vec![record("r", "1", 1)]));
                records.news(news());
                let expected = (!gone).then(|| content("r"));
                assert_eq!(load(&records).await, Ok(expected.clone()));
                assert_eq!(load(&records).await, Ok(expected));
                assert_eq!(asked.load(Ordering::SeqCst), 1, "asked once");
            }
        }
        let (records, _) = records(|| failure(500));
        records.news(News::All(vec![record("r", "1", 1)]));
        records.news(News::All(Vec::new()));
        assert!(load(&records).await.is_err(), "that nobody knows is no reason to forget");
        records.news(News::Applied(record("r", "1", 1)));
        assert_eq!(load(&records).await, Ok(Some(content("r"))));
    }

    #[tokio::test]
    async fn an_older_state_takes_nothing_back() {
        let (records, _) = records(|| failure(500));
        records.news(News::All(vec![record("new", "1", 2)]));
        for news in [News::All(vec![record("old", "1", 1)]), News::Applied(record("old", "1", 1))] {
            records.news(news);
            assert_eq!(load(&records).await, Ok(Some(content("new"))));
        }
        records.news(News::Applied(record("made anew", "2", 1)));
        assert_eq!(load(&records).await, Ok(Some(content("made anew"))));
    }

    #[tokio::test]
    async fn what_is_taken_away_while_it_is_written_is_not_brought_back() {
        let (records, asked) = records(|| failure(404));
        records.news(News::All(vec![record("r", "1", 1)]));
        assert_eq!(records.save(&key(), content("more"), Some("")).await, Ok(Saved::Changed));
        assert_eq!(load(&records).await, Ok(None), "the API server says that it is gone");
        let asked_before = asked.load(Ordering::SeqCst);
        assert_eq!(records.save(&key(), content("more"), Some("")).await, Ok(Saved::Changed));
        assert_eq!(asked.load(Ordering::SeqCst), asked_before);
    }

    /// Of two who write at once one is told so, and finds what the other one wrote.
    #[tokio::test]
    async fn what_others_wrote_is_not_written_over() {
        let at = |text: &str, revision: &str| {
            let mut record = record(text, "1", 1);
            record.metadata.resource_version = Some(revision.to_owned());
            record
        };
        let theirs = serde_json::to_value(at("theirs", "7")).unwrap();
        let conflicts = AtomicUsize::new(0);
        let (records, asked) = records(move || match conflicts.fetch_add(1, Ordering::SeqCst) {
            0 => failure(409),
            _ => (200, theirs.clone()),
        });
        records.news(News::All(vec![at("r", "5")]));
        for unknown in [None, Some("4")] {
            assert_eq!(records.save(&key(), content("ours"), unknown).await, Ok(Saved::Changed), "{unknown:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0, "what is known to be there needs no question");
        assert_eq!(records.save(&key(), content("ours"), Some("5")).await, Ok(Saved::Changed));
        assert_eq!(load(&records).await, Ok(Some(content("theirs"))));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn each_change_has_a_mark_of_its_own() {
        let (records, _) = records(|| failure(404));
        let mark = || records.mark(&key().name());
        let mut marks = Vec::new();
        let news: [fn() -> News<DynamicObject>; 6] = [
            || News::All(Vec::new()),
            || News::Applied(record("r", "1", 1)),
            || News::Applied(record("s", "1", 2)),
            || News::Applied(record("s", "2", 2)),
            || News::Deleted(record("s", "2", 2)),
            || News::Applied(record("s", "3", 1)),
        ];
        for news in news {
            records.news(news());
            assert_ne!(mark(), marks.last().copied().flatten());
            marks.push(mark());
        }
        for same in [News::All(vec![record("s", "3", 1)]), News::Applied(record("s", "3", 1))] {
            records.news(same);
            assert_eq!(mark(), marks[5]);
        }
        records.news(News::Applied(record("older", "3", 0)));
        assert_eq!(mark(), marks[5]);
        assert_eq!(marks.iter().collect::<HashSet<_>>().len(), marks.len());
    }

    fn accepted(root: &str, uid: &str, generation: i64) -> DynamicObject {
        let mut record = write(None, &key(), content(root), jiff::Timestamp::UNIX_EPOCH).unwrap();
        (record.metadata.uid, record.metadata.generation) = (Some(uid.to_owned()), Some(generation));
        record
    }

    /// The API server has answered, and before its answer is here the watch tells of something newer.
    #[tokio::test]
    async fn an_answer_that_is_older_than_the_watch_is_not_believed() {
        for (gone, uid) in [(false, "1"), (true, "2")] {
            let shared: Arc<Mutex<Option<Arc<Records>>>> = Arc::default();
            let inner = Arc::clone(&shared);
            let (made, _) = records(move || {
                let records = inner.lock().unwrap().clone().unwrap();
                records.news(News::Applied(accepted("newer", uid, 2)));
                if gone { failure(404) } else { (200, serde_json::to_value(record("old", "1", 1)).unwrap()) }
            });
            let records = Arc::new(made);
            *shared.lock().unwrap() = Some(Arc::clone(&records));
            records.news(News::All(vec![record("old", "1", 1)]));
            records.news(News::All(Vec::new()));
            let found = load(&records).await.unwrap().unwrap();
            assert_eq!(found, content("newer"), "{gone}");
        }
    }

    #[tokio::test]
    async fn late_word_of_a_deleted_record_does_not_replace_the_one_made_anew() {
        let (records, asked) = records(|| failure(500));
        let written = |root: &str, uid: &str, generation: i64, revision: &str| {
            let mut record = record(root, uid, generation);
            record.metadata.resource_version = Some(revision.to_owned());
            record
        };
        records.news(News::All(vec![written("old", "1", 1, "98")]));
        // This process found it deleted, and wrote another one.
        records.known().take(written("new", "2", 1, "200"));
        let late = || written("old and more", "1", 2, "99");
        for news in [News::Applied(late()), News::All(vec![late()])] {
            records.news(news);
            assert_eq!(load(&records).await, Ok(Some(content("new"))));
        }
        // Where a list was older, the next one is not taken for late.
        for news in [News::All(vec![written("more", "2", 2, "201")]), News::Applied(written("newer", "3", 1, "1000"))] {
            records.news(news);
        }
        assert_eq!(load(&records).await, Ok(Some(content("newer"))));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        // One that never knew the deleted record.
        let (records, _) = self::records(|| failure(500));
        for record in [written("new", "2", 1, "200"), late(), written("more", "2", 2, "201")] {
            records.news(News::All(vec![record]));
        }
        assert_eq!(load(&records).await, Ok(Some(content("more"))));
    }

    /// What another replica wrote in place of a record that was deleted is no older state of the same one.
    #[tokio::test]
    async fn what_was_made_anew_is_another_record() {
        let (records, asked) = records(|| failure(500));
        records.news(News::All(vec![record("made anew", "2", 1)]));
        assert_eq!(records.load(&key()).await.unwrap().unwrap().uid.as_deref(), Some("2"));
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    /// An API server that is just starting does not serve the resource yet.
    #[tokio::test]
    async fn a_resource_that_is_away_is_no_deletion() {
        for status in [json!({"details": {}}), json!({"details": {"name": "other"}}), json!({})] {
            let (records, _) = records(move || {
                let mut answer = failure(404);
                answer.1["details"] = status["details"].clone();
                answer
            });
            records.news(News::All(vec![record("r", "1", 1)]));
            let refused = records.save(&key(), content("more"), Some("")).await.unwrap_err();
            assert!(matches!(refused, StateError::Unreadable { .. }), "{refused}");
            assert_eq!(load(&records).await, Ok(Some(content("r"))));
            records.news(News::All(Vec::new()));
            assert!(load(&records).await.is_err());
        }
    }

    #[test]
    fn there_is_room_for_so_much() {
        const SIZE: usize = 1 << 19;
        let mut known = Known::default();
        let large = |index: usize, namespace: &str, size: usize| {
            let mut large = record("r", "1", 1);
            large.metadata.name = Some(format!("n{index}"));
            large.data["spec"]["data"] = Value::from("x".repeat(size));
            large.data["spec"]["namespace"] = Value::from(namespace);
            large
        };
        for index in 0..64 {
            assert_eq!(known.has_room(&format!("n{index}"), &large(index, "a", SIZE)), Ok(()));
            known.take(large(index, "a", SIZE));
        }
        assert!(matches!(known.has_room("n64", &large(64, "a", SIZE)), Err(NoRoom::Share { repositories: 64, .. })));
        assert_eq!(known.has_room("n64", &large(64, "b", SIZE)), Ok(()));
        assert_eq!(known.has_room("n0", &large(0, "a", SIZE)), Ok(()), "no more than before");
        assert!(matches!(known.has_room("n0", &large(0, "a", 1 << 20)), Err(NoRoom::TooLarge { .. })));
    }

    #[test]
    fn a_record_is_for_whom_it_was_written_last() {
        let of = |namespace: &str| Content { namespace: Some(namespace.to_owned()), ..content("r") };
        let first = write(None, &key(), of("first"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let second = write(Some(&first), &key(), of("second"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!([&first, &second].map(namespace), ["first", "second"]);
        assert_eq!(read(&second).content, of("second"));
    }

    #[test]
    fn a_record_says_what_it_keeps() {
        let key = RecordKey { pinned_in: Some("team".to_owned()), ..key() };
        let summary = vec![("rootVersion", json!(3)), ("rootKeys", json!(["aa"]))];
        let kept = Content { more: Some(b"{}".to_vec()), summary, ..content("text") };
        let record = write(None, &key, kept.clone(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let expected = json!({"spec": {
            "server": SERVER, "gun": GUN, "pinnedIn": "team", "data": "text", "more": "{}",
            "verified": "1970-01-01T00:00:00Z", "rootVersion": 3, "rootKeys": ["aa"],
        }});
        assert_eq!(record.data, expected);
        assert_eq!(record.metadata.name, Some(key.name()));
        assert_ne!(key.name(), self::key().name());
        assert_eq!(read(&record).content, Content { summary: Vec::new(), ..kept });
        assert_eq!(size(&record), "text".len());
        let binary = Content { text: vec![0xff], ..Content::default() };
        assert!(write(None, &key, binary, jiff::Timestamp::UNIX_EPOCH).is_err());
    }
}
