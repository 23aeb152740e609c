//! The bytes of a body as they arrive.

use memmap2::MmapMut;

use super::bodies::SMALL;

/// The bytes of a body.
///
/// A large one is mapped from the system and goes back there as it is. From an allocator it may not: what smaller things are put
/// beside it keeps the whole from being given back, and each large body would leave the process a little larger.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// Up to [`SMALL`].
    Allocated(Vec<u8>),
    /// More than that: the mapping, and how much of it has arrived.
    Mapped(MmapMut, usize),
}

impl Bytes {
    /// None yet, with room for so many.
    ///
    /// # Errors
    /// The system has no memory.
    pub(crate) fn with_room(length: usize) -> std::io::Result<Self> {
        if length <= SMALL {
            return Ok(Self::Allocated(Vec::with_capacity(length)));
        }
        // Pages that nothing is written to take no memory.
        Ok(Self::Mapped(MmapMut::map_anon(length)?, 0))
    }

    /// Adds what has arrived; false if there is no room for it.
    pub(crate) fn add(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Allocated(bytes) => {
                let fits = bytes.len() + data.len() <= SMALL;
                if fits {
                    bytes.extend_from_slice(data);
                }
                fits
            }
            Self::Mapped(bytes, length) => {
                let Some(room) = bytes.get_mut(*length..*length + data.len()) else {
                    return false;
                };
                room.copy_from_slice(data);
                *length += data.len();
                true
            }
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            Self::Mapped(bytes, length) => &bytes[..*length],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_that_were_added() {
        for length in [0, 5, SMALL, SMALL + 1, 16 << 20] {
            let mut bytes = Bytes::with_room(length).unwrap();
            let mut expected = Vec::new();
            for part in [&b"abc"[..], &vec![7; SMALL - 3]] {
                if bytes.add(part) {
                    expected.extend_from_slice(part);
                }
            }
            assert_eq!(*bytes, expected, "{length}");
            assert_eq!(expected.len(), SMALL);
            assert_eq!(bytes.add(b"de"), length > SMALL + 1, "{length}");
        }
    }
}
