//! The real `docker-registry`, and small images for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Ca, Part, free_port};
use crate::tokens::TokenServer;
use crate::{Problem, run};

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
        let at = format!("{location}&digest={digest}");
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

    /// The head of the answer.
    fn curl(&self, arguments: &[&str]) -> Result<String, Problem> {
        let mut command = Command::new("curl");
        command.args(["-sS", "-D", "-", "-o", "/dev/null", "--cacert"]).arg(&self.ca).args(arguments);
        if let Some((realm, user)) = &self.guard {
            // `https://HOST/v2/REPOSITORY/…`: what is pushed to is what a token is needed for.
            let url = arguments.last().unwrap_or(&"");
            let path = url.split_once("/v2/").map_or("", |(_, path)| path);
            let end = path.find("/blobs/").or_else(|| path.find("/manifests/")).unwrap_or(path.len());
            let scope = format!("{realm}?service=registry&scope=repository:{}:pull,push", &path[..end]);
            let given = run(Command::new("curl").args(["-sS", "-u", user, "--cacert"]).arg(&self.ca).arg(scope))?;
            let given: Value = serde_json::from_str(&given.stdout)?;
            let token = given["token"].as_str().ok_or("no token")?;
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let finished = run(&mut command)?;
        if finished.code == 0 { Ok(finished.stdout) } else { Err(finished.stderr.into()) }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
