//! The real `cosign`: keys, signatures in each form that it writes, attestations, and its own word on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, iter};

use crate::process::Ca;
use crate::{Finished, Problem, run};

/// The folder with what `scripts/cosign VERSION` makes, which is built when it is not there yet.
pub(crate) fn programs(version: &str) -> Result<PathBuf, Problem> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cosign");
    let output = Command::new(script).arg(version).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("scripts/cosign cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("scripts/cosign {version} failed; it says why above").into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(text.lines().last().ok_or("scripts/cosign prints a folder")?))
}

/// What keys cosign signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// What `cosign generate-key-pair` makes; all others are made by openssl and imported.
    P256,
    /// Signs with SHA-384.
    P384,
    /// Signs with SHA-512.
    P521,
    /// RSA of 2048 bits; cosign signs PKCS #1 v1.5 with SHA-256, also with a longer one.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// Signs Ed25519ph, which cosign itself cannot verify.
    Ed25519,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::P256, Self::P384, Self::P521, Self::Rsa2048, Self::Rsa3072, Self::Ed25519];

    /// Its name, fit for a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Ed25519 => "ed25519",
        }
    }

    /// What `openssl genpkey` is told, but for P-256.
    fn openssl(self) -> &'static [&'static str] {
        match self {
            Self::P256 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::P384 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::P521 => &["EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
            Self::Rsa2048 => &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Self::Rsa3072 => &["RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
            Self::Ed25519 => &["ED25519"],
        }
    }

    /// The hash that `cosign verify` must be told: it takes SHA-256 for granted, and does not sign with that.
    fn digest(self) -> Option<&'static str> {
        match self {
            Self::P384 => Some("sha384"),
            Self::P521 => Some("sha512"),
            _ => None,
        }
    }
}

/// A key pair.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// What it is.
    pub kind: KeyKind,
    /// The public key, a PEM file.
    pub public: PathBuf,
    /// The private key as cosign keeps it, under an empty password.
    private: PathBuf,
    /// The private key as openssl made it; none if cosign made the key.
    bare: Option<PathBuf>,
}

impl KeyPair {
    /// The public key, PEM.
    ///
    /// # Errors
    /// Its file is gone.
    pub fn public_pem(&self) -> Result<String, Problem> {
        Ok(fs::read_to_string(&self.public)?)
    }
}

/// Where and how a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A payload of "simple signing" under the tag `sha256-….sig`; of an attestation, an envelope under `sha256-….att`.
    Tag,
    /// The same payload in a manifest that refers to the image. Not for attestations.
    Referrer,
    /// A bundle in a manifest that refers to the image.
    Bundle,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tag, Self::Referrer, Self::Bundle];

    /// Its name, fit for a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Referrer => "referrer",
            Self::Bundle => "bundle",
        }
    }
}

/// How it is signed, or what is demanded when it is verified.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// Where and how.
    pub form: Form,
    /// Claims that are signed with the digest.
    pub annotations: &'a [(&'a str, &'a str)],
    /// `HOST/REPOSITORY` where signatures are kept, if not with the image (`COSIGN_REPOSITORY`). In [`Form::Referrer`] cosign
    /// does not heed it, and cosign 2 not in [`Form::Bundle`] either.
    pub repository: Option<&'a str>,
    /// Of an index, also each image in it.
    pub recursive: bool,
}

impl From<Form> for Signing<'_> {
    fn from(form: Form) -> Self {
        Self { form, annotations: &[], repository: None, recursive: false }
    }
}

/// The program, with a folder of its own for keys, which is also its home. It asks nothing of the network beyond loopback.
#[derive(Debug)]
pub struct Cosign {
    program: PathBuf,
    old: bool,
    ca: PathBuf,
    folder: PathBuf,
}

impl Cosign {
    /// cosign 3. Registries are known by this CA.
    ///
    /// # Errors
    /// It cannot be built; or a folder that cannot be made.
    pub fn new(ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        Self::of("3", ca, folder)
    }

    /// cosign 2: for dumps of what it writes. Few machines have it, and it is slow to build.
    ///
    /// # Errors
    /// It cannot be built; or a folder that cannot be made.
    pub fn version_2(ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        Self::of("2", ca, folder)
    }

    fn of(version: &str, ca: &Ca, folder: &Path) -> Result<Self, Problem> {
        let program = programs(version)?.join("cosign");
        let folder = folder.join(format!("cosign-{version}"));
        fs::create_dir_all(&folder)?;
        Ok(Self { program, old: version == "2", ca: ca.ca.clone(), folder })
    }

    /// Which release it is, as `3.1.3`.
    ///
    /// # Errors
    /// It does not say.
    pub fn release(&self) -> Result<String, Problem> {
        let said = done(self.command("version").arg("--json"))?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let version = said["gitVersion"].as_str().ok_or("cosign does not say its version")?;
        Ok(version.trim_start_matches('v').to_owned())
    }

    /// A command of cosign, to be run in other ways than here. Nothing of a developer's settings reaches it, and everything
    /// that is not on loopback is out of its reach: Go sends that to the proxy, and there is none.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).current_dir(&self.folder).env_clear().env("HOME", &self.folder).env("COSIGN_PASSWORD", "");
        command
            .env("SSL_CERT_FILE", &self.ca)
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1");
        command
    }

    /// Makes a key pair; `name` is that of its files.
    ///
    /// # Errors
    /// cosign or openssl fails.
    pub fn key(&self, name: &str, kind: KeyKind) -> Result<KeyPair, Problem> {
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        let prefix = ["--output-key-prefix", name];
        let bare = if kind == KeyKind::P256 {
            done(self.command("generate-key-pair").args(prefix))?;
            None
        } else {
            let pem = file("pem");
            done(Command::new("openssl").args(["genpkey", "-algorithm"]).args(kind.openssl()).arg("-out").arg(&pem))?;
            done(self.command("import-key-pair").args(prefix).arg("--key").arg(&pem))?;
            Some(pem)
        };
        Ok(KeyPair { kind, public: file("pub"), private: file("key"), bare })
    }

    /// Signs an image, `HOST/REPOSITORY@DIGEST` or with a tag.
    ///
    /// # Errors
    /// cosign fails; with what it says.
    pub fn sign<'a>(&self, image: &str, key: &KeyPair, how: impl Into<Signing<'a>>) -> Result<(), Problem> {
        let how = how.into();
        let mut command = self.signs("sign", key, how);
        command.args(annotations(how)).arg(format!("--recursive={}", how.recursive));
        if how.form == Form::Referrer {
            command.env("COSIGN_EXPERIMENTAL", "1").arg("--registry-referrers-mode=oci-1-1");
        }
        done(command.arg(image)).map(drop)
    }

    /// Attests something of an image: a predicate, a JSON text, of a type that is a URI or one of cosign's words.
    ///
    /// # Errors
    /// cosign fails; with what it says.
    pub fn attest<'a>(
        &self,
        image: &str,
        key: &KeyPair,
        (kind, predicate): (&str, &str),
        how: impl Into<Signing<'a>>,
    ) -> Result<(), Problem> {
        let file = self.folder.join("predicate.json");
        fs::write(&file, predicate)?;
        let mut command = self.signs("attest", key, how.into());
        done(command.args(["--type", kind, "--predicate"]).arg(&file).arg(image)).map(drop)
    }

    /// Puts a signature beside an image that cosign would not make, as users of an HSM do: always as [`Form::Tag`]. The
    /// payload is cosign's, and `openssl dgst` is told how to sign it: `["-sha256"]`, or more for RSA-PSS. The key must be one
    /// that openssl made.
    ///
    /// # Errors
    /// cosign or openssl fails; with what it says.
    pub fn attach(&self, image: &str, key: &KeyPair, dgst: &[&str]) -> Result<(), Problem> {
        let bare = key.bare.as_ref().ok_or("only keys that openssl made")?;
        let [payload, signature, text] = ["payload", "signature", "signature.b64"].map(|name| self.folder.join(name));
        fs::write(&payload, done(self.registry(&mut self.command("generate")).arg(image))?)?;
        let mut openssl = Command::new("openssl");
        done(openssl.arg("dgst").args(dgst).arg("-sign").arg(bare).arg("-out").arg(&signature).arg(&payload))?;
        done(Command::new("openssl").args(["base64", "-A", "-in"]).arg(&signature).arg("-out").arg(&text))?;
        let mut command = self.command("attach");
        self.registry(command.arg("signature")).arg("--payload").arg(&payload).arg("--signature").arg(&text);
        done(command.arg(image)).map(drop)
    }

    /// Lets cosign verify an image, as it was signed: it finds bundles and `.sig` tags by itself, but must be told of
    /// [`Form::Referrer`], of another repository, and of the annotations to demand. Its exit code is its verdict.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn verify<'a>(&self, image: &str, key: &KeyPair, how: impl Into<Signing<'a>>) -> Result<Finished, Problem> {
        let how = how.into();
        let mut command = self.command("verify");
        self.registry(&mut command)
            .args(["--insecure-ignore-tlog=true", "--key"])
            .arg(&key.public)
            .args(annotations(how));
        if let Some(digest) = key.kind.digest() {
            command.args(["--signature-digest-algorithm", digest]);
        }
        if how.form == Form::Referrer {
            command.env("COSIGN_EXPERIMENTAL", "1").args(["--experimental-oci11", "--new-bundle-format=false"]);
        }
        if let Some(repository) = how.repository {
            command.env("COSIGN_REPOSITORY", repository);
        }
        run(command.arg(image))
    }

    /// What all that sign are told: no log, no timestamps, and no look at the network for where those are.
    fn signs(&self, name: &str, key: &KeyPair, how: Signing<'_>) -> Command {
        let mut command = self.command(name);
        self.registry(&mut command).args(["--yes", "--tlog-upload=false", "--key"]).arg(&key.private);
        command.arg(format!("--new-bundle-format={}", how.form == Form::Bundle));
        if !self.old {
            command.arg("--use-signing-config=false");
        }
        if let Some(repository) = how.repository {
            command.env("COSIGN_REPOSITORY", repository);
        }
        command
    }

    fn registry<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.arg("--registry-cacert").arg(&self.ca)
    }
}

fn annotations(how: Signing<'_>) -> impl Iterator<Item = String> {
    let pairs: Vec<_> = how.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.into_iter().flat_map(|pair| iter::once("--annotations".to_owned()).chain(iter::once(pair)))
}

/// Runs something that must succeed; gives what it printed.
fn done(command: &mut Command) -> Result<String, Problem> {
    let finished = run(command)?;
    if finished.code == 0 {
        Ok(finished.stdout)
    } else {
        Err(format!("{command:?} ended with {}:\n{}{}", finished.code, finished.stdout, finished.stderr).into())
    }
}
