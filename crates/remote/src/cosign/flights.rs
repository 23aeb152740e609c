//! One flight for all who ask the same at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

/// A question under way.
#[derive(Clone)]
pub(super) struct Flight<O: Clone> {
    id: u64,
    pub(super) began: Instant,
    pub(super) outcome: Shared<BoxFuture<'static, O>>,
    /// Held by everybody who waits for it, and by the list of flights.
    _wanted: Arc<()>,
}

/// Whether anybody still waits for a flight.
#[derive(Clone)]
pub(super) struct Wanted(Weak<()>);

impl Wanted {
    /// Not when the list of flights alone has it.
    pub(super) fn by_anybody(&self) -> bool {
        self.0.strong_count() > 1
    }
}

/// How somebody comes by an answer.
pub(super) enum Boarding<O: Clone> {
    /// There is one already.
    Known(O),
    /// Another's flight brings it.
    Joined(Flight<O>),
    /// A flight of their own does.
    Started(Flight<O>),
}

/// The flights, one for each question.
pub(super) struct Flights<K, O: Clone>(Mutex<Under<K, O>>);

struct Under<K, O: Clone> {
    way: HashMap<K, Flight<O>>,
    number: u64,
}

impl<K, O: Clone> Default for Flights<K, O> {
    fn default() -> Self {
        Self(Mutex::new(Under { way: HashMap::new(), number: 0 }))
    }
}

impl<K, O> Flights<K, O>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    O: Clone + Send + Sync + 'static,
{
    fn under(&self) -> MutexGuard<'_, Under<K, O>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight for a question, or else looks whether it is answered by now, or else starts one. Who lands has noted
    /// the answer before others can miss the flight. `broken` is what it comes to if it breaks off.
    ///
    /// A flight runs on its own, so that a review which gives up takes nobody else's answer with it.
    pub(super) fn board(
        self: &Arc<Self>,
        key: &K,
        known: impl FnOnce() -> Option<O>,
        start: impl FnOnce(Wanted) -> BoxFuture<'static, O>,
        broken: O,
    ) -> Boarding<O> {
        let mut under = self.under();
        if let Some(flight) = under.way.get(key) {
            return Boarding::Joined(flight.clone());
        }
        if let Some(known) = known() {
            return Boarding::Known(known);
        }
        under.number += 1;
        let id = under.number;
        let wanted = Arc::new(());
        // Whoever starts it waits for it from the beginning, however soon it looks around.
        let _ours = Arc::clone(&wanted);
        let work = start(Wanted(Arc::downgrade(&wanted)));
        let landing = Landing { flights: Arc::clone(self), key: key.clone(), id };
        let task = tokio::spawn(async move {
            // Ends it whatever happens, a panic included.
            let _landing = landing;
            work.await
        });
        let outcome = async move { task.await.unwrap_or(broken) }.boxed().shared();
        let flight = Flight { id, began: Instant::now(), outcome, _wanted: wanted };
        under.way.insert(key.clone(), flight.clone());
        Boarding::Started(flight)
    }
}

/// The end of a flight, whichever it is: others begin a new one from now on.
struct Landing<K, O>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    O: Clone + Send + Sync + 'static,
{
    flights: Arc<Flights<K, O>>,
    key: K,
    id: u64,
}

impl<K, O> Drop for Landing<K, O>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    O: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut under = self.flights.under();
        if under.way.get(&self.key).is_some_and(|flight| flight.id == self.id) {
            under.way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    type Tests = Arc<Flights<u8, &'static str>>;

    fn flight(boarding: Boarding<&'static str>) -> (Flight<&'static str>, bool) {
        match boarding {
            Boarding::Known(known) => panic!("{known}"),
            Boarding::Joined(flight) => (flight, false),
            Boarding::Started(flight) => (flight, true),
        }
    }

    /// A flight that says whether anybody waited for it once it was let go.
    fn start(flights: &Tests, gate: oneshot::Receiver<()>) -> Flight<&'static str> {
        let work = |wanted: Wanted| {
            async move {
                let _ = gate.await;
                if wanted.by_anybody() { "wanted" } else { "abandoned" }
            }
            .boxed()
        };
        flight(flights.board(&1, || None, work, "broken")).0
    }

    #[tokio::test]
    async fn one_for_all_who_ask() {
        let (flights, (go, gate)) = (Tests::default(), oneshot::channel());
        let first = start(&flights, gate);
        let never = |_: Wanted| -> BoxFuture<'static, &'static str> { panic!("a second flight") };
        let (second, started) = flight(flights.board(&1, || Some("known"), never, "broken"));
        assert!(!started);
        drop(first);
        go.send(()).unwrap();
        assert_eq!(second.outcome.clone().await, "wanted");
        // It has landed, and left what it found.
        assert!(matches!(flights.board(&1, || Some("known"), never, "broken"), Boarding::Known("known")));
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_learns_of_it() {
        let (flights, (go, gate)) = (Tests::default(), oneshot::channel());
        let outcome = start(&flights, gate).outcome;
        go.send(()).unwrap();
        assert_eq!(outcome.await, "abandoned");
    }

    #[tokio::test]
    async fn one_that_breaks_off_is_over() {
        let flights = Tests::default();
        let breaks = |_: Wanted| async { panic!("as the test wants it") }.boxed();
        let (broken, _) = flight(flights.board(&1, || None, breaks, "broken"));
        assert_eq!(broken.outcome.clone().await, "broken");
        let (again, started) = flight(flights.board(&1, || None, |_| async { "again" }.boxed(), "broken"));
        assert!(started);
        assert_eq!(again.outcome.clone().await, "again");
    }
}
