//! A trust server that is a set of files.

use std::sync::Arc;

use countersign_notary::{Answer, Error, Memory, Repository, RootPins, Update};
use forge::Files;
use jiff::Timestamp;

/// Runs an update against files as a server would hold them; gives the names of those that it asked for too.
pub(crate) fn run(
    gun: &str,
    files: &Files,
    held: Option<Arc<Repository>>,
    memory: Option<&Memory>,
    pins: &RootPins,
    now: Timestamp,
) -> (Result<Repository, Error>, Vec<String>) {
    let mut asked = Vec::new();
    let update = match Update::start(gun, held, memory, pins.clone(), now) {
        Ok(update) => update,
        Err(error) => return (Err(error), asked),
    };
    let found = update.run(|request| {
        asked.push(request.file.clone());
        files.get(&request.file).map_or(Answer::Missing, |bytes| Answer::Found(bytes.to_vec()))
    });
    (found, asked)
}
