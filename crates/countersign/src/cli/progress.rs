//! How far long work is, on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use countersign_image::shown;

/// One line on standard error that is written over and over; nothing where that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
}

impl Progress {
    /// On standard error, if it is a terminal; not where nobody wants to see what is printed, as with `--quiet`.
    pub(crate) fn new() -> Self {
        let device = |path: &str| std::fs::metadata(path).ok().map(|file| file.rdev());
        let is_wanted = device("/dev/stdout") != device("/dev/null");
        Self { is_shown: std::io::stderr().is_terminal() && is_wanted }
    }

    /// Says it in place of what was said before.
    pub(crate) fn say(&self, text: &str) {
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
