//! Which artifacts refer to a manifest: signatures, attestations and the like (the OCI distribution specification 1.1).

use std::collections::BTreeMap;

use countersign_image::{Descriptor, Digest, Sha256, reference::ReferenceError};
use countersign_json::{Object, Value};
use url::Url;

use super::manifest::Which;
use super::{Call, MAX_MANIFEST_BYTES, RegistryClient, RegistryError, Repository, document};
use crate::http::{HttpError, RedirectProblem, Redirects};
use crate::login::Login;

/// The type of a list of referrers.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How many pages of one list are fetched. Registries give a hundred and more on one.
const MAX_PAGES: usize = 10;

/// How many referrers one manifest may have. Each release of it has a handful.
const MAX_DESCRIPTORS: usize = 1000;

/// How many annotations a descriptor may have, and how many bytes they may be all together. Signatures of known formats have less
/// than a tenth of that.
const MAX_ANNOTATIONS: (usize, usize) = (64, 16 << 10);

/// How many bytes the annotations of one list may be all together. A thousand signatures of known formats have a quarter of that.
const MAX_LISTED_ANNOTATIONS: usize = 1 << 20;

/// The longest media type: type and subtype have 127 characters at most (RFC 6838, 4.2).
const MAX_TYPE: usize = 255;

/// What refers to a manifest, as far as a registry said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Referrers {
    /// Those that were named, no digest twice. Artifacts whose digest is no sha256 are left out.
    pub descriptors: Vec<Descriptor>,
    /// What the registry did not say, or gave in place of a list: there may be more.
    pub trouble: Vec<RegistryError>,
}

impl RegistryClient {
    /// What refers to a manifest of a repository: what the registry lists, and what stands under the tag that clients keep at
    /// registries without such lists, in this order. Registries may not have taken over what was tagged before they had lists, so
    /// both are asked, at once; and what one of them gave counts whatever became of the other.
    pub async fn referrers(&self, repository: &Repository, subject: Sha256, login: &Login) -> Referrers {
        let (mut all, tagged) = futures::join!(
            self.listed(repository, subject, MAX_MANIFEST_BYTES, login),
            self.tagged(repository, subject, MAX_MANIFEST_BYTES, login)
        );
        for descriptor in tagged.descriptors {
            if !all.descriptors.iter().any(|known| known.digest == descriptor.digest) {
                all.descriptors.push(descriptor);
            }
        }
        all.trouble.extend(tagged.trouble);
        all
    }

    /// What stands under the tag of the clients, if it has no more bytes than that.
    pub(crate) async fn tagged(
        &self,
        repository: &Repository,
        subject: Sha256,
        limit: u64,
        login: &Login,
    ) -> Referrers {
        let mut found = Referrers::default();
        let tag = subject.to_string().replace(':', "-");
        match self.manifest_of(repository, Which::Tag(&tag), INDEX, limit, login).await {
            Ok(None) => {}
            Ok(Some(tagged)) => {
                if let Err(what) = found.add(&tagged.bytes) {
                    found.trouble.push(repository.nonsense(format!("with {what}, for {repository}:{tag}")));
                }
            }
            Err(error) => found.trouble.push(error),
        }
        found
    }

    /// What the registry lists, if it has such lists, on pages of no more bytes than that.
    pub(crate) async fn listed(
        &self,
        repository: &Repository,
        subject: Sha256,
        limit: u64,
        login: &Login,
    ) -> Referrers {
        let mut found = Referrers::default();
        if let Err(error) = self.read_list(repository, subject, limit, login, &mut found).await {
            found.trouble.push(error);
        }
        found
    }

    async fn read_list(
        &self,
        repository: &Repository,
        subject: Sha256,
        limit: u64,
        login: &Login,
        found: &mut Referrers,
    ) -> Result<(), RegistryError> {
        let of = format!(" for the referrers of {repository}@{subject}");
        let nonsense = |what: String| repository.nonsense(format!("{what}{of}"));
        let call = Call::get(INDEX, limit, Redirects::SameOrigin);
        let mut url = self.url(repository, &format!("referrers/{subject}"))?;
        for page in 0..MAX_PAGES {
            let response = match self.request(&call, &url, repository, login).await {
                // Who has no such lists may lead people to a page of theirs (ghcr.io does).
                Err(RegistryError::Http(HttpError::Redirected { problem: RedirectProblem::NotAskedFor, .. }))
                    if page == 0 =>
                {
                    return Ok(());
                }
                other => other?,
            };
            let is_list = document::essence(response.content_type.as_deref()) == INDEX;
            match (response.status, page) {
                (200, _) if is_list => {}
                // What a registry says that does not know the question.
                (200 | 400 | 404 | 406, 0) => return Ok(()),
                (200, _) => return Err(nonsense("with something that is no list".to_owned())),
                // It says that the page is not there which it named itself.
                (404, _) => return Err(nonsense("404".to_owned())),
                (status, _) => return Err(repository.status(status, of)),
            }
            if response.body.len() as u64 > limit {
                return Err(repository.too_long(limit, of));
            }
            // Who may push must not hide what is on other pages behind one.
            if let Err(what) = found.add(&response.body) {
                found.trouble.push(nonsense(format!("with {what},")));
            }
            url = match next_link(&response.links) {
                None => return Ok(()),
                Some(link) => follow(&url, link).map_err(nonsense)?,
            };
        }
        Err(nonsense(format!("with more than {MAX_PAGES} pages")))
    }
}

/// How many bytes its annotations have.
fn annotated(descriptor: &Descriptor) -> usize {
    descriptor.annotations.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl Referrers {
    /// Whether a list, or a page of it, is longer than was allowed.
    pub(crate) fn is_too_long(&self) -> bool {
        self.trouble.iter().any(|trouble| matches!(trouble, RegistryError::TooLong { .. }))
    }

    /// Adds what an index lists and is not there yet.
    ///
    /// # Errors
    /// What the first of those is that are no descriptors. The others are added: who may push must not hide them behind it.
    fn add(&mut self, index: &[u8]) -> Result<(), String> {
        let index = document::read(index, INDEX)?;
        let items = match index.get("manifests") {
            Some(Value::Array(items)) => items.as_slice(),
            // What some make of an empty list.
            Some(Value::Null) => &[],
            _ => return Err("an index without manifests".to_owned()),
        };
        let mut problem = Ok(());
        let mut bytes: usize = self.descriptors.iter().map(annotated).sum();
        for item in items {
            let descriptor = match descriptor(item) {
                Ok(None) => continue,
                Ok(Some(descriptor)) => descriptor,
                Err(what) => {
                    problem = problem.and(Err(what));
                    continue;
                }
            };
            if self.descriptors.iter().any(|known| known.digest == descriptor.digest) {
                continue;
            }
            if self.descriptors.len() >= MAX_DESCRIPTORS {
                return Err(format!("more than {MAX_DESCRIPTORS} descriptors"));
            }
            bytes += annotated(&descriptor);
            if bytes > MAX_LISTED_ANNOTATIONS {
                return Err(format!("more than {} MiB of annotations", MAX_LISTED_ANNOTATIONS >> 20));
            }
            self.descriptors.push(descriptor);
        }
        problem
    }
}

/// Reads a descriptor; `None` for one whose digest is no sha256.
fn descriptor(value: &Value<'_>) -> Result<Option<Descriptor>, String> {
    let Value::Object(object) = value else { return Err("a descriptor that is no object".to_owned()) };
    let media_type = type_of(object, "mediaType")?.ok_or("a descriptor without mediaType")?;
    let artifact_type = type_of(object, "artifactType")?;
    let Some(Value::Number(size)) = object.get("size") else { return Err("a descriptor without size".to_owned()) };
    let size = size.parse().map_err(|_| format!("a descriptor of the size {size}"))?;
    let Some(Value::String(digest)) = object.get("digest") else {
        return Err("a descriptor without digest".to_owned());
    };
    let annotations = annotations(object)?;
    match Digest::parse(digest) {
        Ok(digest) => {
            let known = digest.sha256();
            Ok(known.map(|digest| Descriptor { media_type, digest, size, artifact_type, annotations }))
        }
        Err(ReferenceError::Algorithm) => Ok(None),
        Err(error) => Err(format!("a descriptor with a bad digest: {error}")),
    }
}

/// A member that is a media type; `None` where it is missing or empty, as some write it.
fn type_of(object: &Object<'_>, member: &str) -> Result<Option<String>, String> {
    match object.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if is_media_type(text) => Ok(Some(text.to_string())),
        Some(other) => Err(format!("a descriptor whose {member} is {other}")),
    }
}

/// Whether a text is a type and a subtype (RFC 6838, 4.2), perhaps with parameters.
fn is_media_type(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
        && text.len() <= MAX_TYPE
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn annotations(object: &Object<'_>) -> Result<BTreeMap<String, String>, String> {
    let given = match object.get("annotations") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("a descriptor whose annotations are {other}")),
    };
    let (count, bytes) = MAX_ANNOTATIONS;
    if given.len() > count {
        return Err(format!("a descriptor of more than {count} annotations"));
    }
    let mut read = BTreeMap::new();
    let mut length = 0;
    for (name, value) in given.iter() {
        let Value::String(value) = value else {
            return Err(format!("a descriptor with an annotation that is {value}"));
        };
        length += name.len() + value.len();
        if length > bytes {
            return Err(format!("a descriptor of more than {} KiB of annotations", bytes >> 10));
        }
        read.insert(name.to_owned(), value.to_string());
    }
    Ok(read)
}

/// The address of the next page among `Link` headers: `<ADDRESS>; rel="next"` (RFC 8288), several of them with commas between.
fn next_link(headers: &[String]) -> Option<&str> {
    headers.iter().find_map(|header| {
        let links = header.split('<').skip(1).filter_map(|link| link.split_once('>'));
        links.into_iter().find(|(_, parameters)| is_next(parameters)).map(|(address, _)| address)
    })
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel") && relations.split(' ').any(|one| one.eq_ignore_ascii_case("next"))
    })
}

/// The next page. It is at the same origin: elsewhere another party would answer, and would be shown who we are.
fn follow(page: &Url, link: &str) -> Result<Url, String> {
    let next = page.join(link).map_err(|_| "with a next page at no address".to_owned())?;
    if next.origin() != page.origin() {
        let host = crate::http::host_port(&next);
        return Err(format!("with a next page on another host, {host}, which is not asked,"));
    }
    if !next.username().is_empty() || next.password().is_some() {
        return Err("with a next page that says who we are".to_owned());
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn read(text: &str) -> Result<Option<Descriptor>, String> {
        descriptor(&countersign_json::parse(&text.replace("{D}", D)).unwrap())
    }

    #[test]
    fn descriptors() {
        let full = read(r#"{"mediaType":"a/b","digest":"{D}","size":7,"artifactType":"c/d","annotations":{"k":"v"}}"#);
        let expected = Descriptor {
            media_type: "a/b".into(),
            digest: Sha256::of(b""),
            size: 7,
            artifact_type: Some("c/d".into()),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
        };
        assert_eq!(full, Ok(Some(expected)));
        let least = r#"{"mediaType":"a/b","digest":"{D}","size":0,"artifactType":"","annotations":null,"data":"x"}"#;
        assert!(read(least).unwrap().unwrap().artifact_type.is_none());
        let of_512 = format!(r#"{{"mediaType":"a/b","digest":"sha512:{}","size":0}}"#, "0".repeat(128));
        assert_eq!(read(&of_512), Ok(None));
    }

    #[test]
    fn descriptors_that_are_none() {
        let with = |annotations: String| {
            format!(r#"{{"mediaType":"a/b","digest":"{D}","size":1,"annotations":{annotations}}}"#)
        };
        let many: Vec<_> = (0..=MAX_ANNOTATIONS.0).map(|index| format!(r#""k{index}":"""#)).collect();
        for (text, refused) in [
            ("[]".to_owned(), "no object"),
            (r#"{"digest":"{D}","size":1}"#.into(), "without mediaType"),
            (r#"{"mediaType":"","digest":"{D}","size":1}"#.into(), "without mediaType"),
            (r#"{"mediaType":7,"digest":"{D}","size":1}"#.into(), "whose mediaType is 7"),
            (r#"{"mediaType":"ab","digest":"{D}","size":1}"#.into(), "whose mediaType is"),
            (r#"{"mediaType":"a/b\nc","digest":"{D}","size":1}"#.into(), "whose mediaType is"),
            (r#"{"mediaType":"a/b","artifactType":{},"digest":"{D}","size":1}"#.into(), "whose artifactType is"),
            (r#"{"mediaType":"a/b","digest":"{D}"}"#.into(), "without size"),
            (r#"{"mediaType":"a/b","digest":"{D}","size":-1}"#.into(), "of the size -1"),
            (r#"{"mediaType":"a/b","digest":"{D}","size":1.5}"#.into(), "of the size 1.5"),
            (r#"{"mediaType":"a/b","size":1}"#.into(), "without digest"),
            (r#"{"mediaType":"a/b","digest":"sha256:00","size":1}"#.into(), "a bad digest"),
            (r#"{"mediaType":"a/b","digest":"../{D}","size":1}"#.into(), "a bad digest"),
            (with("[]".into()), "whose annotations are a list"),
            (with(r#"{"k":1}"#.into()), "an annotation that is 1"),
            (with(format!("{{{}}}", many.join(","))), "more than 64 annotations"),
            (with(format!(r#"{{"k":"{}"}}"#, "x".repeat(MAX_ANNOTATIONS.1))), "more than 16 KiB"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.contains(refused), "{text}: {found}");
        }
        let long = format!(r#"{{"mediaType":"a/{}","digest":"{D}","size":1}}"#, "b".repeat(MAX_TYPE));
        assert!(read(&long).is_err());
    }

    #[test]
    fn links() {
        for (headers, next) in [
            (vec![], None),
            (vec![r#"</v2/a?n=1>; rel="next""#], Some("/v2/a?n=1")),
            (vec!["</a>; rel=next"], Some("/a")),
            (vec![r#"</a>; rel="prev", </b>; rel="next""#], Some("/b")),
            (vec![r#"</a>; rel="prev""#, r#"</b>; title="x"; Rel="last next""#], Some("/b")),
            (vec![r#"</a>; rel="prev""#, "</b>", "rel=next", "</c; rel=next"], None),
        ] {
            let headers: Vec<_> = headers.into_iter().map(str::to_owned).collect();
            assert_eq!(next_link(&headers), next, "{headers:?}");
        }
        let page = Url::parse("https://reg.example.com/v2/a/referrers/x").unwrap();
        assert_eq!(follow(&page, "?last=1").unwrap().as_str(), "https://reg.example.com/v2/a/referrers/x?last=1");
        for link in ["https://other.example.com/", "//other.example.com/", "http://reg.example.com/", "https://["] {
            assert!(follow(&page, link).is_err(), "{link}");
        }
        assert!(follow(&page, "https://u:p@reg.example.com/").is_err());
    }
}
