//! Which repository of which registry.

use countersign_image::ImageReference;
use countersign_image::reference::{DOCKER_HUB, ReferenceError};
use url::Url;

use crate::http::host_port;

/// Docker Hub's registry has another name than its images say.
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";

/// A repository at a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    host: String,
    path: String,
}

impl Repository {
    /// That of an image.
    #[must_use]
    pub fn of(image: &ImageReference) -> Self {
        Self { host: image.host().to_owned(), path: image.path().to_owned() }
    }

    /// Reads a repository's name as images have it: `registry.example.com/team/app`.
    ///
    /// # Errors
    /// A name that no image can have, or one with a tag or a digest.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        let image = ImageReference::parse(name)?;
        if image.written_repository() == name { Ok(Self::of(&image)) } else { Err(ReferenceError::Path) }
    }

    /// The registry's host as images name it, with its port if one was written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path on the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and path, as credentials and tokens know it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The host that is asked.
    pub(super) fn registry(&self) -> &str {
        if self.host == DOCKER_HUB { DOCKER_HUB_REGISTRY } else { &self.host }
    }

    /// `<scheme>://<registry>/v2/<path>/<tail>`
    pub(super) fn url(&self, scheme: &str, tail: &str) -> Option<Url> {
        Url::parse(&format!("{scheme}://{}/v2/{}/{tail}", self.registry(), self.path)).ok()
    }

    /// `HOST:PORT` of the registry as images name it.
    #[must_use]
    pub fn host_port(&self) -> String {
        Url::parse(&format!("https://{}", self.host)).map_or_else(|_| self.host.clone(), |url| host_port(&url))
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_they_are() {
        for (name, url) in [
            ("nginx", "https://registry-1.docker.io/v2/library/nginx/manifests/v1"),
            ("index.docker.io/team/app", "https://registry-1.docker.io/v2/team/app/manifests/v1"),
            ("reg.example.com:5000/team/app", "https://reg.example.com:5000/v2/team/app/manifests/v1"),
            ("[::1]:5000/app", "https://[::1]:5000/v2/app/manifests/v1"),
        ] {
            let repository = Repository::parse(name).unwrap();
            assert_eq!(repository.url("https", "manifests/v1").unwrap().as_str(), url);
            assert_eq!(repository, Repository::of(&ImageReference::parse(&format!("{name}:v1")).unwrap()));
        }
        for name in ["", "reg.example.com/app:v1", "reg.example.com/App", "reg.example.com/../app", "a/b?c", "a/b#c"] {
            assert!(Repository::parse(name).is_err(), "{name}");
        }
    }
}
