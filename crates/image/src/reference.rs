//! Image references: Docker's grammar and Docker's normalisation.
//!
//! The grammar is that of the `distribution/reference` package, which the kubelet and containerd use: a policy that read
//! a reference in any other way would check another repository than the one that is pulled. In one point this is
//! stricter: a name whose first component looks like a host but is no legal one (`a_b.c/x`) is refused, where Docker makes
//! it a repository without a host.
//!
//! The canonical name is not folded to lower case, as Docker's is not: it is the repository's name on a trust server. Policies
//! compare another form ([`ImageReference::matched_host`]), in which the spellings of one host are one.

use thiserror::Error;

use crate::digest::Sha256;

/// The longest host and path together (`NameTotalLengthMax` of `distribution/reference`).
const MAX_NAME_BYTES: usize = 255;
/// The longest tag (same source).
const MAX_TAG_BYTES: usize = 128;
/// The longest reference that can be legal: `index.` may stand before the longest name, then `:` and the longest tag, then
/// `@sha512:` and its 128 digits. Anything longer is refused unread.
const MAX_REFERENCE_BYTES: usize = 6 + MAX_NAME_BYTES + 1 + MAX_TAG_BYTES + 8 + 128;

/// The registry of names that have no host.
pub const DOCKER_HUB: &str = "docker.io";
/// What Docker Hub was called once; Docker reads it as [`DOCKER_HUB`].
const LEGACY_DOCKER_HUB: &str = "index.docker.io";
/// Where Docker Hub keeps names of one component.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("the image reference is empty")]
    Empty,
    /// Longer than any legal reference, or a host and path longer than 255 bytes.
    #[error("the image reference is too long")]
    TooLong,
    /// The first component looks like a host, but is none.
    #[error("the registry host is not a legal host name with an optional port")]
    Host,
    /// Capital letters in the path.
    #[error("the repository name has upper-case letters")]
    UpperCase,
    /// The path breaks the grammar.
    #[error("the repository name has characters or separators that are not allowed")]
    Path,
    /// 64 hex digits without anything else: Docker keeps that for image ids.
    #[error("a name of 64 hex digits is an image id, not a repository")]
    ImageId,
    /// The tag breaks the grammar.
    #[error("the tag is not 1 to 128 letters, digits, `_`, `.` and `-`, starting with a letter, a digit or `_`")]
    Tag,
    /// The digest breaks the grammar or has the wrong length for its algorithm.
    #[error("the digest is not an algorithm, a colon and the right number of lower-case hex digits")]
    Digest,
    /// A digest whose algorithm nothing that pulls images knows.
    #[error("the digest is made with an algorithm other than sha256, sha384 and sha512")]
    Algorithm,
}

/// A digest as it stands in a reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: &'static str,
    hex: String,
}

impl Digest {
    /// Reads `algorithm:hex`. Only sha256, sha384 and sha512 are known, with exactly as many lower-case digits as they have.
    ///
    /// # Errors
    /// [`ReferenceError::Algorithm`] or [`ReferenceError::Digest`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Digest)?;
        if !is_algorithm(algorithm) || hex.len() < 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ReferenceError::Digest);
        }
        let (algorithm, length) = match algorithm {
            "sha256" => ("sha256", 64),
            "sha384" => ("sha384", 96),
            "sha512" => ("sha512", 128),
            _ => return Err(ReferenceError::Algorithm),
        };
        if hex.len() != length || hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceError::Digest);
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// `sha256`, `sha384` or `sha512`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        self.algorithm
    }

    /// The digits, in lower case.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The sha256, and nothing for any other algorithm.
    #[must_use]
    pub fn sha256(&self) -> Option<Sha256> {
        if self.algorithm == "sha256" { Sha256::from_hex(&self.hex) } else { None }
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

/// An image reference, normalised as Docker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    written: String,
    /// How much of `written` stands before the tag and the digest.
    written_name: usize,
    host: String,
    path: String,
    matched_host: String,
    matched_path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Reads what the `image` field of a container says.
    ///
    /// # Errors
    /// What is wrong with it. A text of any length is refused quickly.
    pub fn parse(written: &str) -> Result<Self, ReferenceError> {
        if written.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if written.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLong);
        }
        if written.len() == 64 && written.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId);
        }
        // Runtimes take such a name for the id of an image that the node has, or the beginning of one.
        let algorithm = written.split_once(':').map_or("", |(algorithm, _)| algorithm);
        if matches!(algorithm, "sha256" | "sha384" | "sha512") && !written.contains('/') {
            return Err(ReferenceError::ImageId);
        }
        let (rest, digest) = match written.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (written, None),
        };
        // A colon after the last slash starts a tag; one before it can only belong to the host's port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((component, tag)) => (&rest[..last + component.len()], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag);
        }
        let (host, path) = normalise(name);
        check_host(&host)?;
        check_path(&path)?;
        if host.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        let matched_host = canonical_host(&host);
        let matched_path = official_path(&matched_host, &path);
        Ok(Self {
            written: written.to_owned(),
            written_name: name.len(),
            host,
            path,
            matched_host,
            matched_path,
            tag,
            digest,
        })
    }

    /// The registry's host, with its port if one was written. Case as written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's path on the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The registry's host as policies compare it: in lower case, without the default port, and with one name for Docker Hub.
    #[must_use]
    pub fn matched_host(&self) -> &str {
        &self.matched_host
    }

    /// The repository's path as policies compare it.
    #[must_use]
    pub fn matched_path(&self) -> &str {
        &self.matched_path
    }

    /// The tag: as written, or `latest` where there is neither a tag nor a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path: the canonical name without tag or digest, which is also the repository's name on a trust server (GUN).
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The whole canonical name.
    #[must_use]
    pub fn canonical(&self) -> String {
        let tag = self.tag.as_ref().map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map_or_else(String::new, |digest| format!("@{digest}"));
        format!("{}/{}{tag}{digest}", self.host, self.path)
    }

    /// The reference as the workload has it.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// The reference as the workload has it, without tag and digest: what a pin starts with.
    #[must_use]
    pub fn written_repository(&self) -> &str {
        &self.written[..self.written_name]
    }
}

/// Splits a name without tag and digest into host and path, as Docker's `splitDockerDomain` does.
fn normalise(name: &str) -> (String, String) {
    let (host, path) = match name.split_once('/') {
        Some((LEGACY_DOCKER_HUB, path)) => (DOCKER_HUB, path),
        Some((first, path)) if is_host_like(first) => (first, path),
        _ => (DOCKER_HUB, name),
    };
    (host.to_owned(), official_path(host, path))
}

/// A path of one part at Docker Hub is below `library/`.
fn official_path(host: &str, path: &str) -> String {
    let official = if host == DOCKER_HUB && !path.contains('/') { OFFICIAL } else { "" };
    format!("{official}{path}")
}

/// The port of a registry that names none.
const DEFAULT_PORT: &str = ":443";

/// The one form of a host: names of hosts know no case (RFC 4343), a registry without a port is at 443, and zeros before a port
/// say nothing.
#[must_use]
pub fn canonical_host(host: &str) -> String {
    let mut host = host.to_ascii_lowercase();
    if let Some((name, port)) = host.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        host = format!("{name}:{}", port.trim_start_matches('0'));
    }
    match host.strip_suffix(DEFAULT_PORT).unwrap_or(&host) {
        LEGACY_DOCKER_HUB => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// Whether Docker takes the first of several components for a host.
fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first
}

/// Checks a registry's host, with a port if it has one.
///
/// # Errors
/// [`ReferenceError::Host`]
pub fn check_host(host: &str) -> Result<(), ReferenceError> {
    let port_at = match host.strip_prefix('[') {
        Some(_) => host.find(']').map(|end| end + 1).ok_or(ReferenceError::Host)?,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(port_at);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port_legal = port.is_empty() || port.strip_prefix(':').is_some_and(digits);
    let name_legal = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => name.split('.').all(is_host_component),
    };
    if port_legal && name_legal { Ok(()) } else { Err(ReferenceError::Host) }
}

fn is_host_component(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Checks a repository's path.
///
/// # Errors
/// [`ReferenceError::UpperCase`] or [`ReferenceError::Path`]
pub fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase);
    }
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(ReferenceError::Path) }
}

/// Runs of lower-case letters and digits, with one separator between two of them: `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    word(first)
        && word(last)
        && bytes.split(|&byte| word(byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
        })
}

/// Whether a text is a legal tag.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG_BYTES
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Parts that start with a letter and go on with letters and digits, with one of `+._-` between them.
fn is_algorithm(text: &str) -> bool {
    text.split(['+', '.', '_', '-']).all(|part| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const D: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// `D` in `input` and `expected` stands for 64 hex digits.
    fn check(input: &str, expected: &str) {
        let input = input.replace("{D}", D);
        let reference = ImageReference::parse(&input).unwrap_or_else(|error| panic!("{input:?}: {error}"));
        assert_eq!(reference.canonical(), expected.replace("{D}", D), "{input:?}");
        assert_eq!(reference.as_written(), input);
        assert!(reference.canonical().starts_with(&reference.repository()));
        assert!(input.starts_with(reference.written_repository()));
        let again = ImageReference::parse(&reference.canonical()).unwrap();
        assert_eq!(again.canonical(), reference.canonical(), "normalising twice changes nothing");
    }

    fn refused(input: &str, expected: &ReferenceError) {
        let input = input.replace("{D}", D);
        assert_eq!(ImageReference::parse(&input).as_ref(), Err(expected), "{input:?}");
    }

    #[test]
    fn docker_hub_names_are_completed() {
        check("nginx", "docker.io/library/nginx:latest");
        check("nginx:1.25", "docker.io/library/nginx:1.25");
        check("nginx@sha256:{D}", "docker.io/library/nginx@sha256:{D}");
        check("nginx:1.25@sha256:{D}", "docker.io/library/nginx:1.25@sha256:{D}");
        check("library/nginx", "docker.io/library/nginx:latest");
        check("docker.io/nginx", "docker.io/library/nginx:latest");
        check("docker.io/library/nginx", "docker.io/library/nginx:latest");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("index.docker.io/team/app:1", "docker.io/team/app:1");
        check("team/app", "docker.io/team/app:latest");
        check("a/b/c/d", "docker.io/a/b/c/d:latest");
        check("localhost", "docker.io/library/localhost:latest");
        check("localhost:5000", "docker.io/library/localhost:5000");
        check("example.com", "docker.io/library/example.com:latest");
        check("example.com:5000", "docker.io/library/example.com:5000");
        check("{D}:v1", "docker.io/library/{D}:v1");
        check("team/{D}", "docker.io/team/{D}:latest");
        check("a", "docker.io/library/a:latest");
        check("0/0", "docker.io/0/0:latest");
    }

    #[test]
    fn hosts() {
        check("registry.example.com/x", "registry.example.com/x:latest");
        check("registry.example.com:5000/team/x:v1", "registry.example.com:5000/team/x:v1");
        check("localhost/x", "localhost/x:latest");
        check("localhost:5000/x", "localhost:5000/x:latest");
        check("host:5000/x", "host:5000/x:latest");
        check("mycluster.icp:8500/kube-system/app:0.1", "mycluster.icp:8500/kube-system/app:0.1");
        check("127.0.0.1:5600/a/b", "127.0.0.1:5600/a/b:latest");
        check("[::1]:5000/x", "[::1]:5000/x:latest");
        check("[::1]/x", "[::1]/x:latest");
        check("[2001:DB8::1]:5000/x:v@sha256:{D}", "[2001:DB8::1]:5000/x:v@sha256:{D}");
        check("UPPER/x:1", "UPPER/x:1");
        check("Foo/bar", "Foo/bar:latest");
        check("xn--n3h.com/myimage", "xn--n3h.com/myimage:latest");
        check("a-b--c.d/x", "a-b--c.d/x:latest");
        check("1.2/x", "1.2/x:latest");
        check("nginx:1/x", "nginx:1/x:latest");
    }

    #[test]
    fn look_alikes_stay_apart_from_what_they_look_like() {
        check("Docker.io/library/nginx", "Docker.io/library/nginx:latest");
        check("DOCKER.IO/nginx", "DOCKER.IO/nginx:latest");
        check("Index.docker.io/nginx", "Index.docker.io/nginx:latest");
        check("docker.io.evil.com/library/nginx", "docker.io.evil.com/library/nginx:latest");
        check("evil.com/docker.io/library/nginx", "evil.com/docker.io/library/nginx:latest");
        check("docker.io:443/library/nginx", "docker.io:443/library/nginx:latest");
        check("docker.io/docker.io/x", "docker.io/docker.io/x:latest");
    }

    #[test]
    fn paths_tags_and_digests() {
        check("a.b/x_y", "a.b/x_y:latest");
        check("a.b/x__y", "a.b/x__y:latest");
        check("a.b/x-----y.z", "a.b/x-----y.z:latest");
        check("a.b/x/y/z/0", "a.b/x/y/z/0:latest");
        check("x:_", "docker.io/library/x:_");
        check("x:V1.2-rc_3", "docker.io/library/x:V1.2-rc_3");
        check("x:0", "docker.io/library/x:0");
        check(&format!("x:{}", "t".repeat(128)), &format!("docker.io/library/x:{}", "t".repeat(128)));
        check(&format!("x@sha512:{D}{D}"), &format!("docker.io/library/x@sha512:{D}{D}"));
        check(&format!("x@sha384:{}", "a".repeat(96)), &format!("docker.io/library/x@sha384:{}", "a".repeat(96)));
        let long = "p".repeat(255 - "a.b/".len());
        check(&format!("a.b/{long}"), &format!("a.b/{long}:latest"));
    }

    #[test]
    fn refusals() {
        use ReferenceError as E;
        refused("", &E::Empty);
        refused("{D}", &E::ImageId);
        refused("{D}@sha256:{D}x", &E::Digest);
        for text in ["UPPER", "Nginx:1", "team/App", "docker.io/library/Nginx", "a.b/xY/z"] {
            refused(text, &E::UpperCase);
        }
        for text in [
            " nginx",
            "nginx ",
            "ng inx",
            "nginx\n",
            "\tnginx",
            "nginx\0",
            "ng%2finx",
            "a.b/x%2fy",
            "/nginx",
            "a.b//x",
            "a.b/x/",
            "a.b/",
            "nginx/",
            "_x",
            "x_",
            "-x",
            "x-",
            ".x",
            "x.",
            "x..y",
            "x___y",
            "x._y",
            "x-_y",
            "a/x.-y",
            "nginx\u{445}",
            "ng\u{456}nx",
            "\u{ff4e}ginx",
            "ngin\u{200b}x",
            "x/*",
            "*",
            "x#y",
            "x?y=z",
            "x\\y",
            "a.b",
            "a.b/x\u{0301}",
        ] {
            if text != "a.b" {
                refused(text, &E::Path);
            }
        }
        for text in [
            "docker.io./x",
            "docker.io.:443/x",
            ".docker.io/x",
            "a..b/x",
            "a_b.c/x",
            "a__b.c/x",
            "-a.b/x",
            "a-.b/x",
            "a.b-/x",
            "host:/x",
            "host:port/x",
            "host:50a/x",
            "host:5000:5000/x",
            "user@host.com",
            "http://a.b/x",
            "https://a.b/x",
            "docker://nginx",
            "[::1/x",
            "[]:5000/x",
            "[::1]x:5/x",
            "[::1%25eth0]:5/x",
            "[::1]5000/x",
            "::1:5000/x",
            "d\u{f6}cker.io/x",
            "do\u{0441}ker.io/x",
            "docker.io\u{2215}x.y/z",
            "nginx:tag/x",
            " docker.io/x",
            "a.b :5000/x",
            "D\u{130}cker/x",
            "a.b%2fx/y",
        ] {
            let error = ImageReference::parse(text).unwrap_err();
            assert!(matches!(error, E::Host | E::Digest), "{text:?}: {error:?}");
        }
        for text in ["x:", "x:-a", "x:.a", "x:a:b", "x:a b", "x:\u{e4}", "x:a*", "x:\u{661}", "x:@sha256:{D}", "a.b:"] {
            refused(text, &E::Tag);
        }
        refused(&format!("x:{}", "t".repeat(129)), &E::Tag);
        for text in [
            "x@",
            "x@sha256",
            "x@sha256:",
            "x@sha256:abc",
            "x@sha256:{D}0",
            "x@sha256:{D}@sha256:{D}",
            "x@:{D}",
            "x@sha256:{D}:tag",
            "x@sha256:{D} ",
            "user@host/x",
            "user@host.com/x:1",
            "x@sha512:{D}",
            "x@sha-:{D}",
            "x@-sha256:{D}",
            "x@1sha:{D}",
            "x@sha256:{D}/y",
        ] {
            refused(text, &E::Digest);
        }
        refused(&format!("x@sha256:{}", D.to_uppercase()), &E::Digest);
        for text in ["x@md5:{D}", "x@SHA256:{D}", "x@sha256+b64:{D}", "x@blake3:{D}"] {
            refused(text, &E::Algorithm);
        }
        refused("@sha256:{D}", &E::Path);
        refused(":tag", &E::Path);
        refused(&format!("a.b/{}", "p".repeat(256 - "a.b/".len())), &E::TooLong);
        refused(&"x".repeat(10_000), &E::TooLong);
        refused(&"a/".repeat(5 << 20), &E::TooLong);
    }

    #[test]
    fn the_name_as_written_is_kept_for_the_pin() {
        for (input, expected) in [
            ("nginx", "nginx"),
            ("nginx:1", "nginx"),
            ("index.docker.io/nginx:1", "index.docker.io/nginx"),
            ("a.b:5000/x:1@sha256:{D}", "a.b:5000/x"),
            ("a.b:5000/x@sha256:{D}", "a.b:5000/x"),
            ("[::1]:5000/x", "[::1]:5000/x"),
        ] {
            let reference = ImageReference::parse(&input.replace("{D}", D)).unwrap();
            assert_eq!(reference.written_repository(), expected);
        }
    }

    #[test]
    fn the_longest_legal_reference_is_not_too_long() {
        let name = "p".repeat(MAX_NAME_BYTES - "docker.io/t/".len());
        let text = format!("index.docker.io/t/{name}:{}@sha512:{D}{D}", "t".repeat(MAX_TAG_BYTES));
        assert_eq!(text.len(), MAX_REFERENCE_BYTES);
        assert!(ImageReference::parse(&text).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = ImageReference::parse(&text);
        }

        #[test]
        fn what_is_accepted_is_ascii_and_stays_itself(text in "[a-zA-Z0-9.:/@_\\[\\]-]{1,40}") {
            if let Ok(reference) = ImageReference::parse(&text) {
                prop_assert!(reference.canonical().is_ascii());
                let again = ImageReference::parse(&reference.canonical()).unwrap();
                prop_assert_eq!(again.host(), reference.host());
                prop_assert_eq!(again.path(), reference.path());
                prop_assert_eq!(again.tag(), reference.tag());
                prop_assert_eq!(again.digest(), reference.digest());
            }
        }
    }
}
