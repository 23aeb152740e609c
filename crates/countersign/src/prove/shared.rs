//! What a review reads once of each policy entry, however many images the entry is about.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_policy::Refusal;
use tokio::sync::OnceCell;

/// What came of reading an entry: keys take a processor, and a review may have a thousand images of one entry.
#[derive(Debug)]
pub(crate) struct ByEntry<T>(Mutex<HashMap<usize, Cell<T>>>);

type Cell<T> = Arc<OnceCell<Result<Arc<T>, Refusal>>>;

impl<T> Default for ByEntry<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByEntry<T> {
    /// What `read` gives for an entry, or gave before. The entry is told by where its policy is in memory, which stays there as long as
    /// the review lasts.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) async fn of<P>(
        &self,
        policy: &Arc<P>,
        read: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<Arc<T>, Refusal> {
        let cell = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(Arc::as_ptr(policy).addr()).or_default())
        };
        cell.get_or_init(|| async { read.await.map(Arc::new) }).await.clone()
    }
}
