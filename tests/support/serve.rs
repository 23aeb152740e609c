//! A trust server that shows whatever files it is given, over TLS: for repositories that no real server would keep.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use forge::Files;

use crate::Problem;
use crate::https::{self, Response};
use crate::process::Ca;

type Mounts = Arc<Mutex<BTreeMap<String, Files>>>;

/// A server of files. Each mount is a trust server of its own, told apart by the first part of the path, and shows its
/// files for whatever repository it is asked. It ends with the test process.
#[derive(Debug)]
pub struct FileServer {
    url: String,
    mounts: Mounts,
}

impl FileServer {
    /// Starts it, without files.
    ///
    /// # Errors
    /// Certificates that cannot be read, or no free port.
    pub fn start(ca: &Ca) -> Result<Self, Problem> {
        let mounts = Mounts::default();
        let shown = Arc::clone(&mounts);
        let address = https::serve(ca, move |request| Ok(answer(&request.path, &shown)))?;
        Ok(Self { url: format!("https://{address}"), mounts })
    }

    /// Shows these files, in place of those that the mount had, and gives the trust server's URL.
    pub fn mount(&self, name: &str, files: Files) -> String {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), files);
        format!("{}/{name}", self.url)
    }
}

/// Answers as `notary-server` would.
fn answer(path: &str, mounts: &Mounts) -> Response {
    match find(path, mounts) {
        Some(body) => ("200 OK", body),
        None => (
            "404 Not Found",
            br#"{"errors":[{"code":"METADATA_NOT_FOUND","message":"You have requested metadata that does not exist.","detail":{}}]}"#.to_vec(),
        ),
    }
}

/// The body for `/MOUNT/v2/` or `/MOUNT/v2/GUN/_trust/tuf/FILE`.
fn find(path: &str, mounts: &Mounts) -> Option<Vec<u8>> {
    let (mount, rest) = path.strip_prefix('/')?.split_once("/v2/")?;
    let mounts = mounts.lock().unwrap_or_else(PoisonError::into_inner);
    let files = mounts.get(mount)?;
    if rest.is_empty() {
        return Some(b"{}".to_vec());
    }
    let (_gun, file) = rest.split_once("/_trust/tuf/")?;
    files.get(file).map(<[u8]>::to_vec)
}
