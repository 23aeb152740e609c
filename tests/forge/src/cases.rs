//! Every case: sound repositories that must be read, and broken ones, each with one defect.

mod answers;
mod delegations;
mod documents;
mod hashes;
mod keys;
mod memory;
mod roots;
mod signatures;
mod sound;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::case::{Case, Draft, Expect};

/// All cases, for a moment. Broken ones are the same at any moment but for the times in them.
#[must_use]
pub fn all(now: Timestamp) -> Vec<Case> {
    let mut cases = Cases { now, list: Vec::new() };
    documents::add(&mut cases);
    hashes::add(&mut cases);
    keys::add(&mut cases);
    signatures::add(&mut cases);
    memory::add(&mut cases);
    roots::add(&mut cases);
    delegations::add(&mut cases);
    answers::add(&mut cases);
    sound::add(&mut cases);
    cases.list
}

struct Cases {
    now: Timestamp,
    list: Vec<Case>,
}

impl Cases {
    /// A broken repository: the usual draft with one thing done to it. `expect` is read by [`Expect::parse`].
    fn broken(&mut self, expect: &'static str, defect: &str, why: &str, edit: impl FnOnce(&mut Draft)) {
        let expect = Expect::parse(expect);
        let mut draft = Draft::new(self.now);
        edit(&mut draft);
        self.add(draft.finish(format!("broken/{}--{defect}", expect.label()), Some(expect), why));
    }

    /// A sound variation of the usual draft.
    fn sound(&mut self, name: &str, why: &str, edit: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::new(self.now);
        edit(&mut draft);
        self.add(draft.finish(format!("sound/{name}"), None, why));
    }

    fn add(&mut self, case: Case) {
        assert!(self.list.iter().all(|other| other.name != case.name), "{} is there twice", case.name);
        self.list.push(case);
    }
}

/// Sets the member at a JSON pointer; its parent must be there.
fn set(pointer: &'static str, value: Value) -> impl Fn(&mut Value) + Send + Sync + 'static {
    move |signed| {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        let parent = signed.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
        let name = name.replace("~1", "/");
        match parent {
            Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value.clone(),
            other => other[name] = value.clone(),
        }
    }
}

/// Takes the member at a JSON pointer away.
fn unset(pointer: &'static str) -> impl Fn(&mut Value) + Send + Sync + 'static {
    move |signed| {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        let parent = signed.pointer_mut(parent).and_then(Value::as_object_mut);
        let gone = parent.and_then(|parent| parent.remove(&name.replace("~1", "/")));
        assert!(gone.is_some(), "{pointer} is not there");
    }
}

/// Changes the bytes of the first signature.
fn first_signature(change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> impl Fn(&mut Vec<Value>, &[u8]) {
    move |signatures, _| {
        let sig = signatures[0]["sig"].as_str().expect("a signature has bytes");
        let bytes = STANDARD.decode(sig).expect("base64 of our own making");
        signatures[0]["sig"] = STANDARD.encode(change(bytes)).into();
    }
}
