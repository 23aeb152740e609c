//! Repositories that the real `notary` client makes on a real server: Countersign must come to the digest that the
//! client itself looks up, or deny where a signer is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_tests::{Ca, Client, Countersign, NotaryServer, Problem, Registry, run};
use serde_json::Value;
use tempfile::TempDir;

/// A server, and people with keys.
struct World {
    folder: TempDir,
    ca: Ca,
    server: NotaryServer,
}

/// One repository under construction.
struct Repository<'a> {
    world: &'a World,
    gun: String,
    folder: PathBuf,
    owner: Client,
}

/// What a person's key pair is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Rsa,
    /// A P-256 key whose certificate is what the owner is given.
    Certificate,
}

impl World {
    fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let server = NotaryServer::start(&ca, folder.path())?;
        Ok(Self { folder, ca, server })
    }

    fn repository(&self, gun: &str) -> Result<Repository<'_>, Problem> {
        let folder = self.folder.path().join(gun.replace(['/', ':'], "_"));
        std::fs::create_dir_all(&folder)?;
        let owner = Client::new(&self.server.url, &self.ca, &folder.join("owner"));
        owner.run(&["init", gun, "--publish"])?;
        Ok(Repository { world: self, gun: gun.to_owned(), folder, owner })
    }
}

fn openssl(arguments: &[&str]) -> Result<(), Problem> {
    let finished = run(Command::new("openssl").args(arguments))?;
    if finished.code == 0 { Ok(()) } else { Err(format!("openssl {arguments:?}: {}", finished.stderr).into()) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A digest of 64 hex digits that belongs to a name.
fn digest(name: &str) -> String {
    forge::hex(&forge::digest_of(name))
}

impl Repository<'_> {
    /// The server keeps the snapshot key, as with Docker, so that signers can publish.
    fn with_signers(self) -> Result<Self, Problem> {
        self.owner.run(&["key", "rotate", &self.gun, "snapshot", "-r"])?;
        Ok(self)
    }

    fn public_key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pub"))
    }

    /// Makes a person's keys, and adds them as `docker trust signer add` does.
    fn add_signer(&self, name: &str, kind: Kind) -> Result<Client, Problem> {
        self.make_key(name, kind)?;
        let public = self.public_key(name);
        for role in ["targets/releases".to_owned(), format!("targets/{name}")] {
            self.owner.run(&["delegation", "add", &self.gun, &role, text(&public), "--all-paths"])?;
        }
        self.owner.run(&["publish", &self.gun])?;
        self.client(name)
    }

    fn make_key(&self, name: &str, kind: Kind) -> Result<(), Problem> {
        let (key, public) = (self.folder.join(format!("{name}.key")), self.public_key(name));
        let algorithm: &[&str] = match kind {
            Kind::P256 | Kind::Certificate => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Kind::P384 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Kind::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        openssl(&[&["genpkey", "-out", text(&key)], algorithm].concat())?;
        if kind == Kind::Certificate {
            return openssl(&[
                "req",
                "-x509",
                "-key",
                text(&key),
                "-days",
                "30",
                "-subj",
                &format!("/CN={name}"),
                "-out",
                text(&public),
            ]);
        }
        openssl(&["pkey", "-in", text(&key), "-pubout", "-out", text(&public)])
    }

    fn client(&self, name: &str) -> Result<Client, Problem> {
        let client = Client::new(&self.world.server.url, &self.world.ca, &self.folder.join(format!("trust-{name}")));
        client.run(&["key", "import", text(&self.folder.join(format!("{name}.key"))), "--role", name])?;
        Ok(client)
    }

    /// What `docker trust sign` records.
    fn sign(&self, client: &Client, name: &str, tag: &str, hex: &str) -> Result<(), Problem> {
        let roles = format!("targets/releases,targets/{name}");
        client.run(&["addhash", &self.gun, tag, "523", "--sha256", hex, "-r", &roles, "--publish"])?;
        Ok(())
    }

    fn tag(&self, tag: &str, hex: &str) -> Result<(), Problem> {
        self.owner.run(&["addhash", &self.gun, tag, "523", "--sha256", hex, "--publish"])?;
        Ok(())
    }

    /// `countersign verify` of a tag (or `@digest`): the digest in hex, or the reason.
    fn verify(&self, tag: &str, signers: &[&str]) -> Result<Result<String, String>, Problem> {
        let image = if tag.starts_with('@') { format!("{}{tag}", self.gun) } else { format!("{}:{tag}", self.gun) };
        let named: Vec<_> = signers
            .iter()
            .map(|name| {
                let key = name.rsplit('/').next().unwrap_or_default();
                format!("{name}={}", text(&self.public_key(key)))
            })
            .collect();
        let mut arguments = vec![
            "verify",
            &image,
            "--trust-server",
            &self.world.server.url,
            "--trust-ca",
            text(&self.world.ca.ca),
            "-o",
            "json",
        ];
        for signer in &named {
            arguments.extend(["--signer", signer.as_str()]);
        }
        let finished = Countersign::run(&arguments)?;
        let answer: Value = serde_json::from_str(&finished.stdout).map_err(|_| format!("{finished:?}"))?;
        match (finished.code, answer["digest"].as_str(), answer["reason"].as_str()) {
            (0, Some(digest), None) => Ok(Ok(digest.trim_start_matches("sha256:").to_owned())),
            (1, None, Some(reason)) => Ok(Err(reason.to_owned())),
            _ => Err(format!("{finished:?}").into()),
        }
    }

    /// Both must find the digest.
    fn agree(&self, tag: &str, signers: &[&str], hex: &str) -> Result<(), Problem> {
        let client = self.owner.lookup_afresh(&self.gun, tag)?;
        assert_eq!(client.as_deref(), Some(hex), "notary lookup of {} {tag}", self.gun);
        assert_eq!(self.verify(tag, signers)?.as_deref(), Ok(hex), "{} {tag} {signers:?}", self.gun);
        Ok(())
    }

    /// Countersign must deny, for this reason.
    fn denied(&self, tag: &str, signers: &[&str], reason: &str) -> Result<(), Problem> {
        let answer = self.verify(tag, signers)?;
        assert!(
            answer.as_ref().is_err_and(|found| found.contains(reason)),
            "{} {tag} {signers:?}: {answer:?}, not {reason:?}",
            self.gun
        );
        Ok(())
    }
}

fn base_targets(world: &World) -> Result<(), Problem> {
    let repository = world.repository("registry.example.com/base/targets")?;
    repository.tag("v1", &digest("v1"))?;
    repository.agree("v1", &[], &digest("v1"))?;
    assert_eq!(repository.owner.lookup_afresh(&repository.gun, "v2")?, None);
    repository.denied("v2", &[], "no signed target v2 in registry.example.com/base/targets")?;
    repository.tag("v1", &digest("moved"))?;
    repository.agree("v1", &[], &digest("moved"))
}

fn no_trust_data(world: &World) -> Result<(), Problem> {
    let repository = Repository {
        world,
        gun: "registry.example.com/never/signed".into(),
        folder: world.folder.path().to_owned(),
        owner: Client::new(&world.server.url, &world.ca, &world.folder.path().join("nobody")),
    };
    assert_eq!(repository.owner.lookup_afresh(&repository.gun, "v1")?, None);
    let host = world.server.url.trim_start_matches("https://");
    repository.denied("v1", &[], &format!("failed to get content trust information: {host} does not have trust data for registry.example.com/never/signed"))
}

fn releases_and_signers(world: &World) -> Result<(), Problem> {
    let repository = world.repository("127.0.0.1:5000/deep/er/and/deeper/app")?.with_signers()?;
    let alice = repository.add_signer("alice", Kind::P256)?;
    let bob = repository.add_signer("bob", Kind::P256)?;
    repository.sign(&alice, "alice", "v1", &digest("v1"))?;
    repository.agree("v1", &[], &digest("v1"))?;
    repository.agree("v1", &["alice"], &digest("v1"))?;
    repository.denied("v1", &["alice", "bob"], "signer bob has not signed anything")?;
    repository.sign(&bob, "bob", "v1", &digest("v1"))?;
    repository.agree("v1", &["alice", "bob"], &digest("v1"))?;
    let by_digest = format!("@sha256:{}", digest("v1"));
    assert_eq!(repository.verify(&by_digest, &["alice", "bob"])?, Ok(digest("v1")));
    let pinned = format!("v1@sha256:{}", digest("v1"));
    assert_eq!(repository.verify(&pinned, &["alice"])?, Ok(digest("v1")));
    repository.denied(&format!("v1@sha256:{}", digest("other")), &["alice"], "is signed with sha256:")?;
    repository.denied(&format!("@sha256:{}", digest("other")), &[], "no signed target in")?;
    // They disagree: the last one to sign has released hers.
    repository.sign(&bob, "bob", "v1", &digest("bobs"))?;
    repository.agree("v1", &[], &digest("bobs"))?;
    repository.agree("v1", &["bob"], &digest("bobs"))?;
    repository.denied("v1", &["alice"], "but with sha256:")?;
    repository.denied("v1", &["alice", "bob"], "but with sha256:")
}

fn removed_signer(world: &World) -> Result<(), Problem> {
    let repository = world.repository("registry.example.com/removed/signer")?.with_signers()?;
    let alice = repository.add_signer("alice", Kind::P256)?;
    let bob = repository.add_signer("bob", Kind::P256)?;
    repository.sign(&alice, "alice", "v1", &digest("v1"))?;
    repository.sign(&bob, "bob", "v2", &digest("v2"))?;
    repository.agree("v2", &["bob"], &digest("v2"))?;
    let key = |name: &str| -> Result<String, Problem> {
        let list = repository.owner.run(&["delegation", "list", &repository.gun])?;
        let line = list.lines().find(|line| line.contains(&format!("targets/{name}"))).unwrap_or_default().to_owned();
        let id = line.split_whitespace().find(|word| word.len() == 64).map(str::to_owned);
        id.ok_or_else(|| list.into())
    };
    let id = key("bob")?;
    repository.owner.run(&["delegation", "remove", &repository.gun, "targets/bob", "--yes"])?;
    repository.owner.run(&["delegation", "remove", &repository.gun, "targets/releases", &id, "--yes"])?;
    repository.owner.run(&["publish", &repository.gun])?;
    repository.denied("v2", &["bob"], "has no signer bob")?;
    // Bob signed the releases last, so what is released cannot be told any more. The client falls back without a word.
    repository.denied("v2", &[], "what is released cannot be told")?;
    // Somebody who still may must witness them; until then the server takes no new signature either.
    alice.run(&["witness", &repository.gun, "targets/releases", "--publish"])?;
    repository.agree("v2", &[], &digest("v2"))?;
    repository.sign(&alice, "alice", "v3", &digest("v3"))?;
    repository.agree("v3", &["alice"], &digest("v3"))
}

fn kinds_of_keys(world: &World) -> Result<(), Problem> {
    for (kind, name) in [(Kind::P384, "p384"), (Kind::Rsa, "rsa"), (Kind::Certificate, "x509")] {
        let repository = world.repository(&format!("registry.example.com/keys/{name}"))?.with_signers()?;
        let signer = repository.add_signer("carol", kind)?;
        repository.sign(&signer, "carol", "v1", &digest("v1"))?;
        repository.agree("v1", &["carol"], &digest("v1"))?;
        repository.make_key("carol", Kind::P256)?;
        repository.denied("v1", &["carol"], "did not sign with the key")?;
    }
    Ok(())
}

fn rotated_keys(world: &World) -> Result<(), Problem> {
    let repository = world.repository("registry.example.com/rotated/keys")?.with_signers()?;
    let alice = repository.add_signer("alice", Kind::P256)?;
    repository.sign(&alice, "alice", "v1", &digest("v1"))?;
    for rotation in [&["snapshot", "-r"][..], &["timestamp", "-r"], &["targets"], &["root"], &["root"]] {
        // The client asks whether it is sure before it rotates the root.
        let rotate = format!(
            "yes | notary -s {} --tlscacert {} -d {} key rotate {} {}",
            world.server.url,
            text(&world.ca.ca),
            text(&repository.folder.join("owner")),
            repository.gun,
            rotation.join(" ")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &rotate]);
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), "a test passphrase");
        }
        let finished = run(&mut command)?;
        assert_eq!(finished.code, 0, "rotating {rotation:?}: {finished:?}");
        repository.agree("v1", &["alice"], &digest("v1"))?;
        repository.agree("v1", &[], &digest("v1"))?;
    }
    Ok(())
}

fn nested_delegation(world: &World) -> Result<(), Problem> {
    let repository = world.repository("registry.example.com/nested/delegation")?.with_signers()?;
    let alice = repository.add_signer("alice", Kind::P256)?;
    repository.sign(&alice, "alice", "v1", &digest("v1"))?;
    repository.make_key("deputy", Kind::P256)?;
    let public = repository.public_key("deputy");
    alice.run(&["delegation", "add", &repository.gun, "targets/alice/deputy", text(&public), "--all-paths"])?;
    alice.run(&["publish", &repository.gun])?;
    let deputy = repository.client("deputy")?;
    deputy.run(&[
        "addhash",
        &repository.gun,
        "v1",
        "523",
        "--sha256",
        &digest("v1"),
        "-r",
        "targets/alice/deputy",
        "--publish",
    ])?;
    repository.agree("v1", &["alice", "alice/deputy"], &digest("v1"))?;
    repository.denied("v1", &["deputy"], "has no signer deputy")
}

/// Images of several platforms, on a real registry: what is signed, and pinned, is the list.
fn manifest_lists(world: &World) -> Result<(), Problem> {
    let registry = Registry::start(&world.ca, world.folder.path())?;
    let repository = world.repository(&format!("{}/multi/arch", registry.host))?.with_signers()?;
    let alice = repository.add_signer("alice", Kind::P256)?;
    let amd64 = registry.push("multi/arch", "amd64", "amd64")?;
    let arm64 = registry.push("multi/arch", "arm64", "arm64")?;
    let list = registry.push_list("multi/arch", "v1", &[("amd64", &amd64), ("arm64", &arm64)])?;
    // The client hashes the list itself, as `docker trust sign` does with what the registry gave it.
    alice.run(&[
        "add",
        &repository.gun,
        "v1",
        text(&list.manifest),
        "-r",
        "targets/releases,targets/alice",
        "--publish",
    ])?;
    repository.agree("v1", &["alice"], &list.digest)?;
    repository.denied(&format!("@sha256:{}", amd64.digest), &["alice"], "no signed target in")
}

/// All on one server, one after another: starting a server takes longer than all of them.
#[test]
fn same_digest_as_the_real_client() -> Result<(), Problem> {
    type Scenario = fn(&World) -> Result<(), Problem>;
    let world = World::start()?;
    let scenarios: [(&str, Scenario); 8] = [
        ("base targets", base_targets),
        ("no trust data", no_trust_data),
        ("releases and signers", releases_and_signers),
        ("removed signer", removed_signer),
        ("kinds of keys", kinds_of_keys),
        ("rotated keys", rotated_keys),
        ("nested delegation", nested_delegation),
        ("manifest lists", manifest_lists),
    ];
    for (name, scenario) in scenarios {
        scenario(&world).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}
