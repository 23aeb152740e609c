//! The body of an answer, handed over piece by piece.
//!
//! A client may take its answer slowly, or not at all. What it has not taken yet counts as room for bodies, so that a thousand
//! answers that nobody reads take no more memory than a few.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::bodies::Room;
use super::seats::Seat;

/// How much is handed over at once: what is handed over is no longer counted.
const PIECE: usize = 16 << 10;

/// An answer.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    left: Bytes,
    sent: usize,
    room: Option<Arc<Room>>,
    /// Closed when the answer is gone.
    _done: Option<oneshot::Sender<()>>,
}

impl AnswerBody {
    /// An answer that is so small that it does not count.
    pub(crate) fn small(bytes: Vec<u8>) -> Self {
        Self { left: bytes.into(), sent: 0, room: None, _done: None }
    }

    /// An answer that has room. If it is behind when others want the room, its connection is closed.
    pub(crate) fn in_room(bytes: Vec<u8>, room: Room, seat: Option<Arc<Seat>>) -> Self {
        let (done, gone) = oneshot::channel();
        let room = Arc::new(room);
        let watched = Arc::clone(&room);
        tokio::spawn(async move {
            tokio::select! {
                () = watched.lost() => if let Some(seat) = seat {
                    seat.leave();
                },
                _ = gone => {}
            }
        });
        Self { left: bytes.into(), sent: 0, room: Some(room), _done: Some(done) }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.left.len().min(PIECE);
        let piece = self.left.split_to(size);
        self.sent += size;
        if let Some(room) = &self.room {
            room.arrived(self.sent, Instant::now());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
