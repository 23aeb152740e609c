//! What several bodies may bring together.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes may still come, of several bodies together.
#[derive(Debug)]
pub(crate) struct Pool(AtomicU64);

impl Pool {
    /// So many.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// How many are left.
    pub(crate) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes some of them; says whether there were enough.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_so_much_and_no_more() {
        let pool = Pool::new(10);
        assert!(pool.take(4) && !pool.take(7) && pool.take(6) && !pool.take(1));
        assert_eq!(pool.left(), 0);
    }
}
