//! Where signatures stand: what is fetched, in which order, and what is told of the rest.

use std::collections::BTreeMap;

use countersign_image::Sha256;

use crate::testing::{BUNDLE, MANIFEST, Registry, SIGN, alice, image, key, other_image};
use crate::{Descriptor, Error, Form, ManifestProblem, Scan, referrer};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn listed(name: &str, artifact_type: Option<&str>, annotations: &[(&str, &str)]) -> Descriptor {
    Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Sha256::of(name.as_bytes()),
        size: 700,
        artifact_type: artifact_type.map(str::to_owned),
        annotations: annotations.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const CREATED: &str = "org.opencontainers.image.created";

#[test]
fn likely_ones_first_then_new_ones() {
    let given = [
        listed(
            "attestation",
            Some(BUNDLE),
            &[(PREDICATE, "https://slsa.dev/provenance/v1"), (CREATED, "2026-09-01T00:00:00Z")],
        ),
        listed("silent", Some(EMPTY), &[]),
        listed("silent later", None, &[(CREATED, "yesterday")]),
        listed("silent new", None, &[(CREATED, "2026-02-01T00:00:00Z")]),
        listed("old", Some(BUNDLE), &[(PREDICATE, SIGN), (CREATED, "2025-01-01T00:00:00Z")]),
        listed("new", Some(BUNDLE), &[(PREDICATE, SIGN), (CREATED, "2026-01-01T00:00:00Z")]),
    ];
    let order = Scan::new(image()).referrers(given.to_vec());
    let expected = [5, 4, 3, 2, 1, 0].map(|at: usize| given[at].clone());
    assert_eq!(order, expected);
}

#[test]
fn what_is_of_another_format_is_told() {
    let mut scan = Scan::new(image());
    let wanted = scan.referrers(vec![
        listed("notation", Some("application/vnd.cncf.notary.signature"), &[]),
        listed("sbom", Some("application/spdx+json"), &[]),
        Descriptor { size: (4 << 20) + 1, ..listed("long", Some(BUNDLE), &[]) },
        listed("old bundle", Some("application/vnd.dev.sigstore.bundle+json;version=0.2"), &[]),
        listed("sig", Some("application/vnd.dev.cosign.artifact.sig.v1+json"), &[]),
    ]);
    assert_eq!(wanted.len(), 2);
    let found = scan.found();
    assert_eq!((found.notation(), found.other_types().collect::<Vec<_>>()), (1, vec!["application/spdx+json"]));
    let demand = crate::Demand::new(vec![key("alice")], None, vec![], BTreeMap::new()).unwrap();
    let told = scan.judge("h/r", &demand).unwrap_err().told("registry.example.com");
    assert!(told.starts_with(&format!("registry.example.com has no signature of {}", image())), "{told}");
    assert!(told.ends_with("; a Notation signature was found, which this entry does not ask for"), "{told}");
}

#[test]
fn at_most_64_manifests_of_all_lists() {
    let mut scan = Scan::new(image());
    let lot = |from: usize, to: usize| (from..to).map(|n| listed(&n.to_string(), Some(BUNDLE), &[])).collect();
    assert_eq!(scan.referrers(lot(0, 60)).len(), 60);
    assert_eq!(scan.referrers(lot(60, 960)).len(), 4);
    assert_eq!(scan.referrers(lot(960, 961)).len(), 0);
    let told: Vec<_> = scan.found().left_out().iter().map(|left| (left.what, left.read, left.of)).collect();
    assert_eq!(told, [("manifests", 4, 900), ("manifests", 0, 1)]);
}

/// Attestations fill the list; the signature is among the first all the same.
#[test]
fn attestations_do_not_crowd_out_signatures() {
    let mut registry = Registry::new();
    for number in 0..200 {
        registry = registry.refer(image(), BUNDLE, EMPTY, &[serde_json::json!({"n": number})]);
        let (descriptor, _) = registry.referrers.last_mut().unwrap();
        descriptor.annotations.insert(PREDICATE.into(), "https://slsa.dev/provenance/v1".into());
    }
    let sound = registry.bundle(&alice());
    assert!(sound.by_alice().is_ok());
}

#[test]
fn sig_referrer() {
    let registry = Registry::new().sig_referrer(&alice(), image());
    assert!(registry.by_alice().is_ok());
    assert_eq!(registry.scan(&[key("alice")]).facts()[0].form(), Form::SigReferrer);
    let told = registry.judge(&[key("bob")]).unwrap_err().to_string();
    assert_eq!(told, format!("1 signature of {} found (1 in a referrer), none by bob", image()));
}

#[test]
fn referrers_type_oci_empty() {
    for listed in [None, Some(EMPTY.to_owned())] {
        let mut registry = Registry::new().bundle(&alice());
        registry.referrers[0].0.artifact_type = listed;
        assert!(registry.by_alice().is_ok());
    }
}

#[test]
fn referrers_first_broken_second_good() {
    let mut registry = Registry::new().bundle_bytes(b"{").bundle_bytes(b"").bundle(&alice());
    registry = registry.refer(image(), BUNDLE, EMPTY, &[]).refer(other_image(), BUNDLE, EMPTY, &[]);
    let (_, bytes) = registry.referrers.last_mut().unwrap();
    bytes.clear();
    assert!(registry.by_alice().is_ok());
}

#[test]
fn referrers_manifest_bytes_wrong() {
    let registry = Registry::new().bundle(&alice());
    let (descriptor, bytes) = &registry.referrers[0];
    assert_eq!(referrer(bytes, MANIFEST, descriptor, image()).unwrap().len(), 1);
    let spaced = [bytes.as_slice(), b" "].concat();
    assert_eq!(referrer(&spaced, MANIFEST, descriptor, image()), Err(ManifestProblem::OtherBytes));
    let short = Descriptor { size: descriptor.size - 1, ..descriptor.clone() };
    assert_eq!(referrer(bytes, MANIFEST, &short, image()), Err(ManifestProblem::OtherBytes));
    let other = Descriptor { digest: other_image(), ..descriptor.clone() };
    assert_eq!(referrer(bytes, MANIFEST, &other, image()), Err(ManifestProblem::OtherBytes));
}

/// A sound bundle of the image in a manifest that refers to another one, and the reverse.
#[test]
fn referrers_subject_other() {
    let sound = Registry::new().bundle(&alice());
    let (digest, blob) = sound.blobs.iter().next().unwrap();
    let layer = serde_json::json!({"mediaType": BUNDLE, "size": blob.len(), "digest": digest.to_string()});
    let mut moved = Registry::new().refer(other_image(), BUNDLE, EMPTY, &[layer]);
    moved.blobs = sound.blobs.clone();
    assert!(moved.refused().contains("it refers to another image, or to none"));
    assert!(Registry::new().sig_referrer(&alice(), other_image()).refused().contains("it refers to another image"));
    let other = crate::testing::bundle(&alice(), &crate::testing::statement(other_image()));
    assert!(matches!(Registry::new().bundle_of(other).by_alice(), Err(Error::NoSignature { .. })));
}

/// What could not be used is told, shortened and made safe to show, and hides nothing.
#[test]
fn what_came_in_place_of_signatures_is_told() {
    let mut scan = Scan::new(image());
    for number in 0..20 {
        scan.unusable(&format!("the registry answered nonsense {number}\u{1b}[31m{}", "x".repeat(5000)));
    }
    let demand = crate::Demand::new(vec![key("alice")], None, vec![], BTreeMap::new()).unwrap();
    let told = scan.judge("h/r", &demand).unwrap_err().to_string();
    assert!(told.contains("; the registry answered nonsense 7\\u{1b}[31mx") && !told.contains("nonsense 8"), "{told}");
    assert!(told.len() < 10_000);
    let sound = Registry::new().sig(&alice());
    for layer in scan.sig_tag(&sound.sig_manifest(), MANIFEST) {
        scan.blob(&layer, &sound.blobs[&layer.digest()], demand.keys(), &crate::Budget::new());
    }
    assert!(scan.judge("h/r", &demand).is_ok());
}
