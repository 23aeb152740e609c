//! Names of policy entries, with wildcards.
//!
//! Host and path of an entry are matched apart, so that a `*` in the one never swallows part of the other. `*` stands for
//! any run of characters, in the path also across `/`. Hosts are compared in their canonical form: lower case, no default port.

use std::fmt;

use countersign_image::reference::{Digest, ImageReference, canonical_host, check_host, check_path, is_tag};
use thiserror::Error;

/// The longest name of an entry, in bytes.
const MAX_PATTERN: usize = 1024;

/// Why a name of an entry matches nothing that can exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing there.
    #[error("the name is empty; write a repository such as docker.io/library/nginx, or * for every image")]
    Empty,
    /// Longer than any reference.
    #[error("the name is longer than {MAX_PATTERN} characters")]
    TooLong,
    /// With a scheme.
    #[error("{0:?} begins with a scheme; write the registry's host alone, such as registry.example.com/team/*")]
    Scheme(String),
    /// `*` with a tag: Docker's normalisation would make it a repository of Docker Hub.
    #[error(
        "{0:?} does not say whether it is about every registry or about Docker Hub; write */*:TAG or docker.io/*:TAG"
    )]
    Everything(String),
    /// The host is not one.
    #[error("{0:?} has a registry host that no image can have")]
    Host(String),
    /// The default port behind a wildcard: without the port the wildcard would stand for others too.
    #[error(
        "{0:?} names the default port behind a wildcard, and hosts are compared without it; write the host out, such as registry.example.com/*"
    )]
    DefaultPort(String),
    /// Upper-case letters in the path.
    #[error("{0:?} has upper-case letters in its repository, which no image has")]
    UpperCase(String),
    /// The path is not one.
    #[error("{0:?} has a repository name that no image can have")]
    Path(String),
    /// The tag is not one.
    #[error("{0:?} has a tag that no image can have")]
    Tag(String),
    /// The digest is not one.
    #[error("{0:?} has a digest that no image can have; wildcards are not allowed in digests")]
    Digest(String),
}

/// The name of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    written: String,
    /// `None` only for the bare `*`, which matches every host and path.
    repository: Option<(Glob, Glob)>,
    tag: Option<Glob>,
    digest: Option<Digest>,
}

/// What can be told of a text that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'a> {
    /// It is this.
    Exactly(&'a str),
    /// It begins with the one and ends with the other, which may overlap in it.
    Between(&'a str, &'a str),
}

/// How exactly an entry names an image: the greater of two wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    /// Host and path have no wildcard. That beats any wildcard there, however long the rest of it is.
    one_repository: bool,
    /// Characters that are not `*`, in the normalised name. Of two entries for one repository that makes the one with a tag
    /// win: an entry without tag stands for every tag, as if it ended in `:*`.
    literal: usize,
    /// No wildcard in the tag either.
    exact: bool,
}

impl Pattern {
    /// Reads the name of an entry, and normalises it as Docker would an image: `nginx` is `docker.io/library/nginx`, `team/app*` is
    /// `docker.io/team/app*`.
    ///
    /// # Errors
    /// A name that no image can ever match.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        if text.contains("://") {
            return Err(PatternError::Scheme(text.to_owned()));
        }
        let written = text.to_owned();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|_| PatternError::Digest(text.to_owned()))?))
            }
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
            None => (rest, None),
        };
        let tag = tag.map(|tag| parse_tag(text, tag)).transpose()?;
        let everything = name.bytes().all(|byte| byte == b'*');
        if everything && (tag.is_some() || digest.is_some()) {
            return Err(PatternError::Everything(text.to_owned()));
        }
        let repository = if everything { None } else { Some(parse_repository(text, name)?) };
        Ok(Self { written, repository, tag, digest })
    }

    /// The name as it was written.
    #[must_use]
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Whether the entry is about some tags only. `name:*` is about all of them.
    #[must_use]
    pub fn is_about_tags(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| !tag.is_anything())
    }

    /// Whether an image falls under the entry.
    ///
    /// An entry without tag and digest stands for all of its repository. One with a tag is matched against the image's tag;
    /// an image with a digest and no tag matches `name:*` alone. One with a digest stands for that digest only.
    #[must_use]
    pub fn matches(&self, image: &ImageReference) -> bool {
        let repository = self
            .repository
            .as_ref()
            .is_none_or(|(host, path)| host.matches(image.matched_host()) && path.matches(image.matched_path()));
        let tag = match (&self.tag, image.tag()) {
            (None, _) => true,
            (Some(pattern), Some(tag)) => pattern.matches(tag),
            (Some(pattern), None) => pattern.is_anything(),
        };
        repository && tag && self.digest.as_ref().is_none_or(|digest| image.digest() == Some(digest))
    }

    /// How exactly the entry names what it matches.
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        let parts = self.repository.iter().flat_map(|(host, path)| [host, path]).chain(&self.tag);
        let one_repository = self.is_one_repository();
        let exact = one_repository && parts.clone().all(|glob| !glob.has_wildcard());
        // The slash between host and path, and the signs before tag and digest, are characters of the name too.
        let signs = usize::from(self.repository.is_some()) + usize::from(self.tag.is_some());
        let digest = self.digest.as_ref().map_or(0, |digest| digest.algorithm().len() + digest.hex().len() + 2);
        Specificity { one_repository, literal: parts.map(Glob::literal).sum::<usize>() + signs + digest, exact }
    }

    /// Whether the host ends in a `*` behind something else: `example.com*` matches `example.com.evil.io`.
    #[must_use]
    pub fn host_may_run_on(&self) -> bool {
        self.repository
            .as_ref()
            .is_some_and(|(host, _)| host.0.len() > 1 && host.0.ends_with('*') && !host.0.ends_with(":*"))
    }

    /// Whether the entry names exactly one repository.
    fn is_one_repository(&self) -> bool {
        self.repository.as_ref().is_some_and(|(host, path)| !host.has_wildcard() && !path.has_wildcard())
    }

    /// What can be told of host and path of all that the entry matches; nothing, if it matches every image.
    #[must_use]
    pub(crate) fn shape(&self) -> Option<(Shape<'_>, Shape<'_>)> {
        self.repository.as_ref().map(|(host, path)| (host.shape(), path.shape()))
    }

    /// The name in its normalised form: two entries with equal ones are the same.
    #[must_use]
    pub fn normalised(&self) -> String {
        let mut name = match &self.repository {
            // Without the port this would be read as a part of a path at Docker Hub.
            Some((host, path)) if !is_host(&host.0) => format!("{host}:443/{path}"),
            Some((host, path)) => format!("{host}/{path}"),
            None => "*".to_owned(),
        };
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }

    /// The registry's host, if it has no wildcard.
    #[must_use]
    pub fn exact_host(&self) -> Option<&str> {
        self.repository.as_ref().filter(|(host, _)| !host.has_wildcard()).map(|(host, _)| host.0.as_str())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

fn parse_tag(text: &str, tag: &str) -> Result<Glob, PatternError> {
    if !tag.is_empty() && is_tag(&filled(tag, "x")) {
        Ok(Glob::new(tag))
    } else {
        Err(PatternError::Tag(text.to_owned()))
    }
}

/// Whether the first part of a name is a host and not a part of a path.
fn is_host(part: &str) -> bool {
    part == "localhost"
        || part == "*"
        || part.bytes().any(|byte| matches!(byte, b'.' | b':') || byte.is_ascii_uppercase())
}

/// Host and path of a name. With wildcards in place of characters the first part is a host under the same rule as in an
/// image, or if it is `*` alone or ends in one behind a dot or colon: then nothing but a host can be meant.
fn parse_repository(text: &str, name: &str) -> Result<(Glob, Glob), PatternError> {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host), path),
        _ => (None, name),
    };
    let has_host = host.is_some();
    let host = host.unwrap_or("docker.io");
    // `*` may stand for letters or digits, or for nothing; one of these must make a host of it.
    if !["x", "1", ""].iter().any(|filling| check_host(&filled(host, filling)).is_ok()) {
        return Err(PatternError::Host(text.to_owned()));
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(PatternError::UpperCase(text.to_owned()));
    }
    if !["x", "", "x/x"].iter().any(|filling| check_path(&filled(path, filling)).is_ok()) {
        return Err(PatternError::Path(text.to_owned()));
    }
    let canonical = canonical_host(host);
    // Only a port is ever taken from the end.
    if canonical.ends_with('*') && !host.ends_with('*') {
        return Err(PatternError::DefaultPort(text.to_owned()));
    }
    let host = canonical.as_str();
    // What Docker does for an image: a path of one part at Docker Hub is below `library/`. With the host written out, a
    // `*` is matched against canonical names as it stands, so that `docker.io/n*` is about `docker.io/nginxinc/app` too.
    let one_part = host == "docker.io" && !path.contains('/') && !(has_host && path.contains('*'));
    let path = if one_part { format!("library/{path}") } else { path.to_owned() };
    Ok((Glob::new(host), Glob::new(&path)))
}

fn filled(text: &str, filling: &str) -> String {
    text.replace('*', filling)
}

/// A text in which `*` stands for any run of characters. Runs of `*` are one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(String);

impl Glob {
    fn new(text: &str) -> Self {
        let mut glob = String::with_capacity(text.len());
        for character in text.chars() {
            if character != '*' || !glob.ends_with('*') {
                glob.push(character);
            }
        }
        Self(glob)
    }

    fn has_wildcard(&self) -> bool {
        self.0.contains('*')
    }

    fn is_anything(&self) -> bool {
        self.0 == "*"
    }

    fn shape(&self) -> Shape<'_> {
        match (self.0.split_once('*'), self.0.rsplit_once('*')) {
            (Some((before, _)), Some((_, behind))) => Shape::Between(before, behind),
            _ => Shape::Exactly(&self.0),
        }
    }

    fn literal(&self) -> usize {
        self.0.chars().filter(|character| *character != '*').count()
    }

    /// Linear in practice and never worse than the product of both lengths: each literal run between wildcards is taken at
    /// its first place, which never has to be given up again.
    fn matches(&self, text: &str) -> bool {
        let Some((prefix, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut text) = text.strip_prefix(prefix).and_then(|text| text.strip_suffix(suffix)) else {
            return false;
        };
        for run in middle.split('*') {
            match text.find(run) {
                Some(at) => text = &text[at + run.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of two entries names an image more exactly; the greater wins.
    fn more_specific(one: &Pattern, other: &Pattern) -> std::cmp::Ordering {
        one.specificity().cmp(&other.specificity())
    }

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let parsed = Pattern::parse(pattern).unwrap();
        for (images, expected) in [(matching, true), (others, false)] {
            for image in images {
                let reference = ImageReference::parse(image).unwrap();
                assert_eq!(parsed.matches(&reference), expected, "{pattern} on {image}");
            }
        }
    }

    #[test]
    fn what_matches() {
        let by_digest = format!("nginx@{D}");
        let tag_and_digest = format!("nginx:1@{D}");
        check("**", &["nginx", "h:5000/a/b:1"], &[]);
        check("*", &["nginx", "evil.io/x", "h:5000/a/b:1", &by_digest], &[]);
        check(
            "nginx",
            &["nginx", "docker.io/library/nginx:1", &by_digest, &tag_and_digest],
            &["team/nginx", "nginx2", "quay.io/library/nginx"],
        );
        check("docker.io/nginx", &["nginx"], &["docker.io/team/nginx"]);
        check("nginx:*", &["nginx", "nginx:1", &by_digest, &tag_and_digest], &["redis"]);
        check("nginx:1", &["nginx:1", &tag_and_digest], &["nginx", "nginx:11", &by_digest]);
        check("nginx:v1.*", &["nginx:v1.2"], &["nginx:v1", "nginx:v2.1", &by_digest]);
        check(&by_digest, &[&by_digest, &tag_and_digest], &["nginx"]);
        check(
            "team/app*",
            &["team/app", "team/app2", "team/app/sub", "docker.io/team/app"],
            &["app", "quay.io/team/app"],
        );
        check("nginx*", &["nginx", "nginx2"], &["team/nginx", "nginx/x"]);
        check("docker.io/n*", &["nginxinc/app", "docker.io/n/x"], &["nginx", "team/n"]);
        check(
            "docker.io/*",
            &["nginx", "team/app:1", "docker.io/a/b/c"],
            &["quay.io/x", "evil.io/docker.io/x", "docker.io:5000/nginx", "docker.io.evil.com/x"],
        );
        check(
            "registry.example.com:5000/payments/*",
            &["registry.example.com:5000/payments/a", "registry.example.com:5000/payments/a/b:1"],
            &[
                "registry.example.com/payments/a",
                "registry.example.com:5000/other",
                "evil.io/registry.example.com/payments/a",
            ],
        );
        check(
            "*.example.com/x",
            &["a.example.com/x", "a.b.example.com/x"],
            &["evil.io/a.example.com/x", "example.com/x", "a.example.com:5000/x"],
        );
        check("*.example.com:*/x", &["a.example.com:5000/x"], &["a.example.com/x"]);
        check("*:5000/x", &["h:5000/x", "h.io:5000/x"], &["h:5001/x", "evil.io/h.io/x"]);
        check("*/x", &["h.io/x", "h:1/x"], &["h.io/y/x", "h.io/x/y"]);
        check("*/team/*", &["h.io/team/x", "docker.io/team/x"], &["h.io/x/team/y"]);
        check("mycluster.icp:8500/*", &["mycluster.icp:8500/kube-system/app:1"], &["mycluster.icp/x"]);
        check("localhost/*", &["localhost/x"], &["localhost:5000/x", "x/localhost"]);
        check("h.io/a*b*c", &["h.io/abc", "h.io/a/b/c", "h.io/abbcc"], &["h.io/acb", "h.io/ab"]);
        check("h.io/ab*ba", &["h.io/abba", "h.io/abxba"], &["h.io/aba"]);
        check("[::1]:5000/*", &["[::1]:5000/x"], &["[::2]:5000/x"]);
        check("UPPER/*", &["UPPER/x"], &["upper/x"]);
        check("gcr.io/**/x", &["gcr.io/a/x"], &["gcr.io/x2"]);
        for nginx in ["nginx", "docker.io/nginx", "Docker.IO/nginx", "index.docker.io:443/nginx"] {
            let spellings = [
                "nginx",
                "Docker.io/nginx",
                "docker.io:443/nginx",
                "INDEX.docker.io/library/nginx",
                "docker.io/library/nginx",
            ];
            check(nginx, &spellings, &["docker.io:444/nginx", "team/nginx", "Docker.io/team/nginx"]);
        }
        check("H.io:443/x", &["h.io/x", "H.IO/x", "h.io:443/x", "h.io:0443/x"], &["h.io:4430/x", "h.io:5000/x"]);
        check("*.h.io:443/x", &["a.h.io/x", "a.H.io:443/x"], &["a.h.io:5000/x", "h.io/x"]);
    }

    #[test]
    fn what_can_never_match_is_refused() {
        let cases = [
            ("", "empty"),
            ("https://h.io/x", "scheme"),
            ("h.io/Team/*", "upper-case"),
            ("h.io/", "repository name"),
            ("h.io//x", "repository name"),
            ("h..io/x", "host"),
            ("h.io/x:", "tag"),
            ("h.io/x:a b", "tag"),
            ("h.io/x@sha256:*", "digest"),
            ("*:443/x", "default port"),
            ("h*:443/x", "default port"),
            ("[::1]*:443/x", "default port"),
            ("*:v1", "every registry"),
            ("**:v1", "every registry"),
            ("h.io/ x", "repository name"),
            ("h.io /x", "host"),
            ("h.io/\u{430}", "repository name"),
        ];
        for (text, expected) in cases {
            let error = Pattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(Pattern::parse(&"a".repeat(2000)), Err(PatternError::TooLong));
    }

    /// A host in its canonical form may look like a part of a path; the normalised name says that it is none.
    #[test]
    fn a_normalised_name_is_read_as_the_same_entry() {
        for text in
            ["UPPER/x", "h:443/x", "H.io:443/x:v1", "localhost/x", "*.h.io:443/x", "*/x", "nginx", "[::1]:443/x", "**"]
        {
            let pattern = Pattern::parse(text).unwrap();
            let again = Pattern::parse(&pattern.normalised()).unwrap();
            assert_eq!((&again.repository, &again.tag), (&pattern.repository, &pattern.tag), "{text}");
        }
    }

    #[test]
    fn hosts_that_run_on() {
        for (text, expected) in
            [("h.io*/x", true), ("*/x", false), ("*.h.io/x", false), ("h.io:*/x", false), ("x*", false)]
        {
            assert_eq!(Pattern::parse(text).unwrap().host_may_run_on(), expected, "{text}");
        }
    }

    #[test]
    fn the_more_exact_wins() {
        let ascending =
            ["*", "*/x", "docker.io/*", "docker.io/library/*", "nginx", "docker.io/library/nginx:1*", "nginx:1"];
        for pair in ascending.windows(2) {
            let parse = |text| Pattern::parse(text).unwrap();
            assert_eq!(more_specific(&parse(pair[0]), &parse(pair[1])), std::cmp::Ordering::Less, "{pair:?}");
        }
        // An entry without wildcard beats a longer one with.
        let parse = |text| Pattern::parse(text).unwrap();
        assert_eq!(more_specific(&parse("h.io/a"), &parse("h.io/a*:verylongtag*")), std::cmp::Ordering::Greater);
        // An entry for some tags of a repository beats the one for all of them.
        assert_eq!(more_specific(&parse("h.io/app:prod-*"), &parse("h.io/app")), std::cmp::Ordering::Greater);
        assert_eq!(more_specific(&parse("h.io/app:v1"), &parse("h.io/app:v1*")), std::cmp::Ordering::Greater);
    }

    #[test]
    fn many_wildcards_take_no_time() {
        let glob = Glob::new(&"a*".repeat(500));
        assert!(!glob.matches(&"b".repeat(100_000)));
        assert!(glob.matches(&"a".repeat(100_000)));
    }
}
