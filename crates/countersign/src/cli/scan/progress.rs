//! How far a scan is, on a terminal.

use std::io::{IsTerminal as _, Write as _};

use countersign_image::shown;

/// One line on standard error that is written over and over; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
}

impl Progress {
    /// On standard error, if it is a terminal.
    pub(super) fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }

    /// Says it in place of what was said before.
    pub(super) fn say(&self, text: &str) {
        if self.is_shown {
            // Nobody has to see it.
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K{}", shown(text));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
        }
    }
}
