//! How much of the store of memories one namespace may fill.
//!
//! Nothing that is remembered is ever dropped to make room: to forget is to trust whatever comes next. So whoever comes later must
//! find room, however much others have asked for. A namespace may have as much as is left for all others: one alone gets half of
//! the store, two a third each, and something always stays free.

use thiserror::Error;

/// Of how many repositories something is remembered. There are some thousand in a large company.
pub const MAX_REMEMBERED: usize = 10_000;

/// How many bytes the texts of all that is remembered may have. Most have some three thousand.
pub const MAX_REMEMBERED_BYTES: usize = 64 << 20;

/// What a namespace may have in any case, in records and bytes: what it remembers must be able to go on.
const ASSURED: (usize, usize) = (32, 512 << 10);

/// How much more there may be in all for what is assured, in records and bytes.
const RESERVE: (usize, usize) = (2_000, 32 << 20);

/// How many bytes one record may have as it is written. etcd takes 1.5 MiB in one request by default, and the API server adds to a
/// record who manages its fields.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// How many bytes of what later releases add to a record do not count for a share, so that whoever has used up theirs can go on after an
/// upgrade. Most have some hundred.
const FREE_OF_MORE: usize = 4 << 10;

/// What a record counts for: its text, and what is added to it beyond what is free.
#[must_use]
pub fn counted(text: usize, more: usize) -> usize {
    text + more.saturating_sub(FREE_OF_MORE)
}

/// Why something is not remembered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoRoom {
    /// It would be too much in all.
    #[error(
        "it would be more than {MAX_REMEMBERED} repositories or {} MiB in all; see countersign trust list, and delete what is not needed",
        MAX_REMEMBERED_BYTES >> 20
    )]
    Full,
    /// It would be too much for one namespace.
    #[error(
        "namespace {namespace} has {repositories} repositories with {kib} KiB, and may not have more than is left for all others; see countersign trust list, and delete what is not needed"
    )]
    Share {
        /// The namespace.
        namespace: String,
        /// How many repositories it has.
        repositories: usize,
        /// How many KiB their texts have.
        kib: usize,
    },
    /// One record would be too large.
    #[error("it would be {kib} KiB, and a record may have {} KiB", MAX_RECORD_BYTES >> 10)]
    TooLarge {
        /// Its size in KiB.
        kib: usize,
    },
}

/// Whether a record may be written for a namespace. `others` are the namespaces and sizes in bytes of all other records; `before` is the
/// size of the one that it takes the place of, if there is one. What grows no larger may always be written.
///
/// # Errors
/// Why not.
pub fn has_room<'a>(
    others: impl Iterator<Item = (&'a str, usize)>,
    namespace: &str,
    before: Option<usize>,
    size: usize,
) -> Result<(), NoRoom> {
    if before.is_some_and(|before| size <= before) {
        return Ok(());
    }
    let ((mut own, mut all), mut own_bytes, mut all_bytes) = ((0, 0), 0, 0);
    for (of, size) in others {
        all += 1;
        all_bytes += size;
        if of == namespace {
            own += 1;
            own_bytes += size;
        }
    }
    let new = usize::from(before.is_none());
    let is_assured = own < ASSURED.0 && own_bytes + size <= ASSURED.1;
    if is_assured && all + new <= MAX_REMEMBERED + RESERVE.0 && all_bytes + size <= MAX_REMEMBERED_BYTES + RESERVE.1 {
        return Ok(());
    }
    if all >= MAX_REMEMBERED || all_bytes + size > MAX_REMEMBERED_BYTES {
        return Err(NoRoom::Full);
    }
    let too_many = before.is_none() && own >= MAX_REMEMBERED - all;
    if too_many || own_bytes + size > MAX_REMEMBERED_BYTES - all_bytes {
        return Err(NoRoom::Share { namespace: namespace.to_owned(), repositories: own, kib: own_bytes >> 10 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records of a size a namespace gets beside others'.
    fn fill(others: &mut Vec<(&'static str, usize)>, namespace: &'static str, size: usize) -> usize {
        let before = others.len();
        while has_room(others.iter().copied(), namespace, None, size).is_ok() {
            others.push((namespace, size));
        }
        others.len() - before
    }

    #[test]
    fn whoever_comes_later_finds_room() {
        // By bytes, so that there are few.
        const SIZE: usize = 256 << 10;
        let mut others = Vec::new();
        let all = MAX_REMEMBERED_BYTES / SIZE;
        let first = fill(&mut others, "greedy", SIZE);
        assert_eq!(first, all / 2);
        let second = fill(&mut others, "second", SIZE);
        assert_eq!(second, all / 4);
        for later in ["a", "b", "c", "d"] {
            assert!(has_room(others.iter().copied(), later, None, SIZE).is_ok());
            assert!(fill(&mut others, later, SIZE) > 0);
        }
        let refused = has_room(others.iter().copied(), "greedy", None, SIZE).unwrap_err();
        assert!(matches!(refused, NoRoom::Share { repositories, .. } if repositories == first), "{refused}");
        assert!(has_room(others.iter().copied(), "greedy", Some(SIZE), SIZE).is_ok());
        assert!(has_room(others.iter().copied(), "greedy", Some(SIZE), SIZE + 1).is_err());
    }

    /// What is added to a record takes memory and room in etcd like anything else.
    #[test]
    fn what_is_added_counts() {
        assert_eq!(counted(3000, FREE_OF_MORE), 3000);
        assert_eq!(counted(3000, 800 << 10), 3000 + (796 << 10));
        let mut others = Vec::new();
        let most = fill(&mut others, "greedy", counted(6 << 10, 837 << 10));
        assert!(most < 50, "{most}");
    }

    #[test]
    fn so_many_and_no_more() {
        let half = vec![("greedy", 1); MAX_REMEMBERED / 2];
        assert!(matches!(has_room(half.iter().copied(), "greedy", None, 1), Err(NoRoom::Share { .. })));
        assert!(has_room(half.iter().copied(), "other", None, 1).is_ok());
        assert!(has_room(half.iter().copied(), "greedy", Some(1), 2).is_ok(), "what is there may go on");
        let full = vec![("greedy", 1); MAX_REMEMBERED];
        assert_eq!(has_room(full.iter().copied(), "greedy", None, 1), Err(NoRoom::Full));
        assert_eq!(has_room(std::iter::empty(), "other", None, MAX_REMEMBERED_BYTES + 1), Err(NoRoom::Full));
    }

    /// However many others fill the store, what a namespace has can go on, and a few new ones find room.
    #[test]
    fn a_little_is_assured() {
        const SIZE: usize = 3 << 10;
        let mut others = vec![("honest", SIZE); 20];
        for greedy in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            fill(&mut others, greedy, 1 << 20);
        }
        assert!(others.iter().map(|(_, size)| size).sum::<usize>() > MAX_REMEMBERED_BYTES - (1 << 20));
        let but_one = || others.iter().copied().skip(1);
        assert_eq!(has_room(but_one(), "honest", Some(SIZE), SIZE + 1000), Ok(()));
        assert_eq!(has_room(others.iter().copied(), "honest", None, SIZE), Ok(()));
        assert_eq!(has_room(others.iter().copied(), "newcomer", None, SIZE), Ok(()));
        assert!(has_room(others.iter().copied(), "a", None, SIZE).is_err());
        let full = vec![("greedy", 1); MAX_REMEMBERED + RESERVE.0];
        assert_eq!(has_room(full.iter().copied(), "newcomer", None, 1), Err(NoRoom::Full));
    }
}
