//! Registries, and small images for them: the real `docker-registry`, and one with the referrers API, which that one lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Ca, Part, free_port};
use crate::tokens::TokenServer;
use crate::{Problem, cosign, run};

/// What manifests and indexes are called.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json,\
    application/vnd.docker.distribution.manifest.v2+json,application/vnd.docker.distribution.manifest.list.v2+json";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`
    pub host: String,
    ca: PathBuf,
    folder: PathBuf,
    /// The token server's address, and who pushes.
    guard: Option<(String, String)>,
    _part: Part,
}

/// What a registry answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, as 200.
    pub status: u16,
    /// The content type.
    pub kind: String,
    /// The bytes.
    pub body: Vec<u8>,
}

/// Something that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest that the registry gives, in hex.
    pub digest: String,
    /// The manifest's length in bytes.
    pub size: usize,
    /// The manifest, as a file.
    pub manifest: PathBuf,
}

impl Registry {
    /// Starts it, with memory for storage.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        Self::start_as(None, ca, folder)
    }

    /// Starts it for whoever has a token of this server; `user` is who pushes, as `NAME:PASSWORD`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_as(guard: Option<(&TokenServer, &str)>, ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        let port = free_port()?;
        let host = format!("127.0.0.1:{port}");
        let mut config = json!({
            "version": 0.1, "log": {"level": "error"}, "storage": {"inmemory": {}},
            "http": {"addr": host, "tls": {"certificate": ca.certificate, "key": ca.key}},
        });
        if let Some((tokens, _)) = guard {
            config["auth"] = json!({"token": {
                "realm": tokens.realm, "service": "registry", "issuer": "countersign-test", "rootcertbundle": tokens.root,
            }});
        }
        let file = folder.join("registry.json");
        fs::write(&file, config.to_string())?;
        let mut part = Part::start("docker-registry", Command::new("docker-registry").arg("serve").arg(&file), folder)?;
        part.listening_on(port)?;
        let guard = guard.map(|(tokens, user)| (tokens.realm.clone(), user.to_owned()));
        Ok(Self { host, guard, ca: ca.ca.clone(), folder: folder.to_owned(), _part: part })
    }

    /// Starts one with the referrers API, of `scripts/cosign`; it has memory for storage, and asks nobody for a token.
    ///
    /// # Errors
    /// It cannot be built, or does not start.
    pub fn start_with_referrers(ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        let port = free_port()?;
        let host = format!("127.0.0.1:{port}");
        let mut command = Command::new(cosign::programs("3")?.join("referrers-registry"));
        command.args(["-address", &host, "-certificate"]).arg(&ca.certificate).arg("-key").arg(&ca.key);
        let mut part = Part::start("referrers-registry", &mut command, folder)?;
        part.listening_on(port)?;
        Ok(Self { host, guard: None, ca: ca.ca.clone(), folder: folder.to_owned(), _part: part })
    }

    /// Pushes an image that differs from every other one by its label.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push(&self, repository: &str, tag: &str, label: &str) -> Result<Pushed, Problem> {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"test": label}}}).to_string();
        let digest = self.push_blob(repository, config.as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest},
            "layers": [],
        });
        self.push_manifest(repository, tag, &manifest)
    }

    /// Pushes a manifest list of images that are there.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_list(&self, repository: &str, tag: &str, images: &[(&str, &Pushed)]) -> Result<Pushed, Problem> {
        let image = |(architecture, pushed): &(&str, &Pushed)| {
            json!({
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "size": pushed.size,
                "digest": format!("sha256:{}", pushed.digest), "platform": {"architecture": architecture, "os": "linux"},
            })
        };
        let list = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": images.iter().map(image).collect::<Vec<_>>(),
        });
        self.push_manifest(repository, tag, &list)
    }

    /// Pushes a blob; gives its digest.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String, Problem> {
        let digest = format!("sha256:{}", forge::hex(&forge::sha256(bytes)));
        let file = self.folder.join("blob");
        fs::write(&file, bytes)?;
        let begun = self.curl(&["-X", "POST", &format!("https://{}/v2/{repository}/blobs/uploads/", self.host)])?;
        let location = header(&begun, "location").ok_or_else(|| format!("no upload: {begun}"))?;
        // One registry gives a whole URL with a query, the other a path without.
        let host = if location.starts_with('/') { format!("https://{}", self.host) } else { String::new() };
        let at = format!("{host}{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' });
        let data = format!("@{}", file.display());
        let done =
            self.curl(&["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", &data, &at])?;
        if done.contains(" 201") { Ok(digest) } else { Err(format!("the registry refused a blob: {done}").into()) }
    }

    /// Pushes a manifest whose blobs, or an index whose manifests, are there.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Result<Pushed, Problem> {
        let text = manifest.to_string();
        let file = self.folder.join(format!("manifest-{}-{tag}.json", repository.replace('/', "_")));
        fs::write(&file, &text)?;
        let kind = format!("Content-Type: {}", manifest["mediaType"].as_str().unwrap_or_default());
        let data = format!("@{}", file.display());
        let url = format!("https://{}/v2/{repository}/manifests/{tag}", self.host);
        let done = self.curl(&["-X", "PUT", "-H", &kind, "--data-binary", &data, &url])?;
        let digest = header(&done, "docker-content-digest").ok_or_else(|| format!("no digest: {done}"))?;
        Ok(Pushed { digest: digest.trim_start_matches("sha256:").to_owned(), size: text.len(), manifest: file })
    }

    /// Asks for what a path below `/v2/` names; `accept` may be several types, with commas.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str, accept: &str) -> Result<Answer, Problem> {
        let body = self.folder.join("answer");
        // An answer without a body would leave the one before.
        fs::write(&body, [])?;
        let mut command = self.command(&format!("https://{}/v2/{path}", self.host))?;
        command.args(["-H", &format!("Accept: {accept}"), "-w", "%{http_code} %{content_type}", "-o"]).arg(&body);
        let finished = run(&mut command)?;
        if finished.code != 0 {
            return Err(finished.stderr.into());
        }
        let (status, kind) = finished.stdout.split_once(' ').ok_or("curl prints a status")?;
        Ok(Answer { status: status.parse()?, kind: kind.to_owned(), body: fs::read(body)? })
    }

    /// The tags of a repository, in order; none of one that is not there.
    ///
    /// # Errors
    /// No answer, or another one than a list.
    pub fn tags(&self, repository: &str) -> Result<Vec<String>, Problem> {
        let answer = self.get(&format!("{repository}/tags/list"), "application/json")?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        let list: Value = serde_json::from_slice(&answer.body)?;
        let tags = list["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut tags: Vec<_> = tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        tags.sort();
        Ok(tags)
    }

    /// The manifest under a tag or digest (`sha256:…`), or the index; as it is stored.
    ///
    /// # Errors
    /// No answer.
    pub fn manifest(&self, repository: &str, reference: &str) -> Result<Answer, Problem> {
        self.get(&format!("{repository}/manifests/{reference}"), MANIFESTS)
    }

    /// The referrers of a digest (`sha256:…`): an index, or 404 from a registry without that API.
    ///
    /// # Errors
    /// No answer.
    pub fn referrers(&self, repository: &str, digest: &str) -> Result<Answer, Problem> {
        self.get(&format!("{repository}/referrers/{digest}"), "application/vnd.oci.image.index.v1+json")
    }

    /// The head of the answer.
    fn curl(&self, arguments: &[&str]) -> Result<String, Problem> {
        let (url, arguments) = arguments.split_last().ok_or("no URL")?;
        let finished = run(self.command(url)?.args(["-D", "-", "-o", "/dev/null"]).args(arguments))?;
        if finished.code == 0 { Ok(finished.stdout) } else { Err(finished.stderr.into()) }
    }

    /// A curl of this URL, with a token if one is needed.
    fn command(&self, url: &str) -> Result<Command, Problem> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--cacert"]).arg(&self.ca).arg(url);
        if let Some((realm, user)) = &self.guard {
            // `https://HOST/v2/REPOSITORY/…`: what is pushed to is what a token is needed for.
            let path = url.split_once("/v2/").map_or("", |(_, path)| path);
            let after = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
            let end = after.iter().find_map(|part| path.find(part)).unwrap_or(path.len());
            let scope = format!("{realm}?service=registry&scope=repository:{}:pull,push", &path[..end]);
            let given = run(Command::new("curl").args(["-sS", "-u", user, "--cacert"]).arg(&self.ca).arg(scope))?;
            let given: Value = serde_json::from_str(&given.stdout)?;
            let token = given["token"].as_str().ok_or("no token")?;
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        Ok(command)
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
