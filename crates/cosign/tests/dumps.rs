//! What the real cosign puts into registries (`tests/cosign/dumps`) proves what it should: by everybody who signed, and by nobody else.

#![expect(clippy::disallowed_methods, reason = "the dumps are files")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use countersign_cosign::{Budget, Demand, Descriptor, Error, Fact, Key, Layer, Scan, guesses};
use countersign_image::Sha256;
use serde_json::Value;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A case, as a client finds it.
struct Case {
    folder: PathBuf,
    about: Value,
    tags: Value,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
        Self { folder: folder.to_owned(), about: read("case.json"), tags: read("tags.json") }
    }

    fn text(&self, member: &str) -> &str {
        self.about[member].as_str().unwrap()
    }

    fn digest(&self) -> Sha256 {
        Sha256::parse(self.text("digest")).unwrap()
    }

    /// The repository with the signatures, as the tools place them.
    fn place(&self) -> &str {
        let (name, old) = (self.folder.file_name().unwrap().to_str().unwrap(), self.text("cosign").starts_with("2."));
        // These two stay with the image, whatever they are told.
        let stays = name.starts_with("referrer-") || (old && name.starts_with("bundle-"));
        self.about["placement"].as_str().filter(|_| !stays).unwrap_or_else(|| self.text("repository"))
    }

    fn manifest(&self, digest: &str) -> (Vec<u8>, String) {
        let bytes = fs::read(self.folder.join("manifests").join(digest.replace(':', "-"))).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        (bytes, document["mediaType"].as_str().unwrap().to_owned())
    }

    fn tagged(&self, tag: &str) -> Option<(Vec<u8>, String)> {
        self.tags[self.place()][tag].as_str().map(|digest| self.manifest(digest))
    }

    fn listed(&self) -> Vec<Descriptor> {
        let digest = self.digest();
        let file = format!("{}/{digest}.json", self.place().replace('/', "+"));
        let asked = [file.clone(), file.replace("sha256:", "sha256-")];
        let answered = asked.iter().find_map(|file| fs::read(self.folder.join("referrers").join(file)).ok());
        let tagged = self.tagged(&digest.to_string().replace(':', "-")).filter(|(_, kind)| kind == OCI_INDEX);
        let lists = answered.into_iter().chain(tagged.map(|(bytes, _)| bytes));
        let mut found = Vec::new();
        for list in lists {
            let list: Value = serde_json::from_slice(&list).unwrap();
            for item in list["manifests"].as_array().into_iter().flatten() {
                found.push(descriptor(item));
            }
        }
        found
    }

    /// The names of everybody who has a key here.
    fn keys(&self) -> Vec<Key> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Key::from_pem(&name, &fs::read(&path).unwrap()).unwrap()
        };
        files.filter(|path| path.extension().is_some_and(|ending| ending == "pub")).map(read).collect()
    }

    /// Looks at all that is there; with the number of blobs that could not be guessed.
    fn scan(&self, keys: &[Key]) -> (Scan, usize) {
        let (digest, budget) = (self.digest(), Budget::new());
        let mut scan = Scan::new(digest);
        let mut layers: Vec<Layer> = Vec::new();
        if let Some((bytes, kind)) = self.tagged(&format!("{}.sig", digest.to_string().replace(':', "-"))) {
            layers.extend(scan.sig_tag(&bytes, &kind));
        }
        for listed in scan.referrers(self.listed()) {
            let (bytes, kind) = self.manifest(&listed.digest.to_string());
            layers.extend(scan.referrer(&listed, &bytes, &kind));
        }
        let guesses = guesses(&format!("{}/{}", self.text("host"), self.text("repository")), digest);
        let mut fetched = 0;
        for layer in layers {
            let blob = fs::read(self.folder.join("blobs").join(layer.digest().to_string().replace(':', "-"))).unwrap();
            fetched += usize::from(layer.guessed(&guesses).is_none());
            scan.blob(&layer, &blob, keys, &budget);
        }
        (scan, fetched)
    }
}

fn descriptor(item: &Value) -> Descriptor {
    let annotations = item["annotations"].as_object().into_iter().flatten();
    Descriptor {
        media_type: item["mediaType"].as_str().unwrap().to_owned(),
        digest: Sha256::parse(item["digest"].as_str().unwrap()).unwrap(),
        size: item["size"].as_u64().unwrap(),
        artifact_type: item["artifactType"].as_str().filter(|kind| !kind.is_empty()).map(str::to_owned),
        annotations: annotations.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
    }
}

fn cases() -> Vec<Case> {
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cosign/dumps");
    let folders = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    };
    folders(&dumps).iter().flat_map(|version| folders(version)).map(|folder| Case::read(&folder)).collect()
}

#[test]
fn who_signed_is_found_in_every_form_and_place() {
    let cases = cases();
    assert!(cases.len() > 160, "{}", cases.len());
    for case in cases {
        let at = case.folder.display();
        let keys = case.keys();
        let (scan, fetched) = case.scan(&keys);
        // cosign signs Ed25519ph with such keys, which it cannot verify itself.
        let signers = case.about["signers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let signers: BTreeSet<&str> = signers.filter(|name| *name != "ed25519").collect();
        let found: BTreeSet<&str> = scan
            .facts()
            .iter()
            .map(|fact| keys.iter().find(|key| key.material() == fact.material()).unwrap().name())
            .collect();
        assert_eq!(found, signers, "{at}: {:?}", scan.found());
        let repository = format!("{}/{}", case.text("host"), case.text("repository"));
        for key in &keys {
            let demand = Demand::new(vec![key.clone()], None, Vec::new(), BTreeMap::new()).unwrap();
            let judged = scan.judge(&repository, &demand);
            assert_eq!(judged.is_ok(), signers.contains(key.name()), "{at}: {judged:?}");
        }
        let name = case.folder.file_name().unwrap().to_str().unwrap();
        let is_plain = |name: &str| name.starts_with("tag-p") || name.starts_with("tag-two");
        assert!(!is_plain(name) || name.contains("annotations") || fetched == 0, "{at}: the payload is guessed");
        // Claims are those of the signature; cosign 2 leaves them out of bundles.
        let left_out = case.text("cosign").starts_with("2.") && name.starts_with("bundle-");
        let claims: BTreeMap<String, String> = match case.about.get("annotations") {
            Some(claims) if !left_out => serde_json::from_value(claims.clone()).unwrap(),
            _ => BTreeMap::new(),
        };
        assert!(scan.facts().iter().all(|fact: &Fact| *fact.claims() == claims), "{at}: {:?}", scan.facts());
    }
}

#[test]
fn what_is_found_instead_is_told() {
    let stranger = Key::from_pem("mallory", forge::Key::p256("mallory").pem().as_bytes()).unwrap();
    let demand = Demand::new(vec![stranger.clone()], None, Vec::new(), BTreeMap::new()).unwrap();
    for case in cases() {
        let at = case.folder.display();
        let name = case.folder.file_name().unwrap().to_str().unwrap().to_owned();
        let (scan, _) = case.scan(std::slice::from_ref(&stranger));
        let refused = scan.judge("h.io/a", &demand).unwrap_err();
        let said = refused.told("h.io:443");
        match &refused {
            Error::OnlyAttestations { .. } => assert!(name.starts_with("bundle-attestation-only"), "{at}: {said}"),
            Error::NoSignature { .. } => {
                assert!(name.starts_with("unsigned") || name.starts_with("tag-attestation-only"), "{at}: {said}");
            }
            Error::NotSignedBy { .. } => {
                assert!(said.contains("found (") && said.contains("none by mallory"), "{said}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}
