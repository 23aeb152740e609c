//! Simple signing, under the `.sig` tag.

use serde_json::json;

use crate::limits::MAX_PAYLOAD_BYTES;
use crate::testing::{
    MANIFEST, REPOSITORY, Registry, SIMPLE, alice, base64, image, key, other_image, pae, payload, sign, statement,
};
use crate::{Error, Form, Layer, Scan, guesses, sig_tag};

#[test]
fn sound() {
    let registry = Registry::new().sig(&alice());
    let proof = registry.by_alice().unwrap();
    assert_eq!((proof.repository(), proof.digest()), (REPOSITORY, image()));
    assert_eq!(proof.by()[0].signer, "alice");
    assert_eq!(proof.by()[0].key, key("alice").fingerprint());
    let scan = registry.scan(&[key("alice")]);
    let fact = &scan.facts()[0];
    assert_eq!((fact.digest(), fact.form(), fact.docker_reference()), (image(), Form::SigTag, Some(REPOSITORY)));
    assert_eq!(fact.material(), key("alice").material());
}

#[test]
fn sig_zero_layers() {
    let error = Registry::new().by_alice().unwrap_err();
    assert!(matches!(error, Error::NoSignature { .. }));
    assert_eq!(error.to_string(), format!("there is no signature of {}", image()));
    assert_eq!(error.told("registry.example.com"), format!("registry.example.com has no signature of {}", image()));
    assert_eq!(error.rank(), 2);
}

#[test]
fn sig_annotation_missing() {
    let mut registry = Registry::new().sig(&alice());
    registry.sig_layers[0].as_object_mut().unwrap().remove("annotations");
    assert!(registry.refused().contains("a layer has no signature beside it"));
    registry.sig_layers[0]["annotations"] = json!({"dev.cosignproject.cosign/other": "x"});
    assert!(registry.refused().contains("a layer has no signature beside it"));
}

#[test]
fn sig_annotation_empty() {
    assert!(Registry::new().sig_with(&payload(image()), "").refused().contains("a layer has no signature beside it"));
    // Nothing but line breaks decodes to nothing.
    assert!(Registry::new().sig_with(&payload(image()), "\n").refused().contains("not base64 of 1 to"));
}

#[test]
fn sig_base64_garbage() {
    let right = base64(&sign(&alice(), payload(image()).as_bytes()));
    for wrong in
        ["*".to_owned(), right[1..].to_owned(), format!("{right} "), format!(" {right}"), format!("{right}AAAA=")]
    {
        assert!(Registry::new().sig_with(&payload(image()), &wrong).refused().contains("not base64"), "{wrong}");
    }
    let long = base64(&[0x30; 1025]);
    assert!(Registry::new().sig_with(&payload(image()), &long).refused().contains("not base64 of 1 to 1024 bytes"));
}

#[test]
fn sig_base64_with_newlines() {
    let right = base64(&sign(&alice(), payload(image()).as_bytes()));
    let (head, tail) = right.split_at(40);
    assert!(Registry::new().sig_with(&payload(image()), &format!("{head}\n{tail}\r\n")).by_alice().is_ok());
}

#[test]
fn sig_payload_other_digest() {
    let refused = Registry::new().sig_of(&alice(), &payload(other_image()));
    let error = refused.by_alice().unwrap_err();
    assert!(
        error.to_string().contains(&format!("a signature by alice is not taken: it is about \"{}\"", other_image()))
    );
    assert_eq!(error.rank(), 0);
    // Nearly the right one is another one, too.
    for near in [
        image().to_string().to_uppercase(),
        image().hex(),
        format!("{} ", image()),
        format!("sha512:{}", image().hex()),
    ] {
        let text = payload(image()).replace(&image().to_string(), &near);
        assert!(Registry::new().sig_of(&alice(), &text).refused().contains("it is about"), "{near}");
    }
}

/// The blob and the signature of another image that alice signed, copied under the tag of this one.
#[test]
fn sig_payload_of_other_image_same_key() {
    let elsewhere = payload(other_image());
    let signature = base64(&sign(&alice(), elsewhere.as_bytes()));
    assert!(Registry::new().sig_with(&elsewhere, &signature).by_alice().is_err());
    // And with the payload of this one, it is no signature of it.
    let error = Registry::new().sig_with(&payload(image()), &signature).by_alice().unwrap_err();
    assert!(matches!(error, Error::NotSignedBy { .. }));
}

#[test]
fn sig_type_binauthz() {
    for other in [
        "Google cloud binauthz container signature",
        "atomic container signature",
        "",
        "Cosign container image signature",
    ] {
        let text = payload(image()).replace("cosign container image signature", other);
        assert!(Registry::new().sig_of(&alice(), &text).refused().contains("which is no cosign signature"), "{other}");
    }
}

#[test]
fn sig_duplicate_digest_member() {
    let member = format!(r#""docker-manifest-digest":"{}""#, image());
    let other = format!(r#""docker-manifest-digest":"{}""#, other_image());
    for twice in [format!("{member},{other}"), format!("{other},{member}"), format!("{member},{member}")] {
        let text = payload(image()).replace(&member, &twice);
        assert!(Registry::new().sig_of(&alice(), &text).refused().contains("stands twice"), "{twice}");
    }
}

#[test]
fn sig_digest_member_capital_d() {
    let text = payload(image()).replace("docker-manifest-digest", "Docker-manifest-digest");
    assert!(Registry::new().sig_of(&alice(), &text).refused().contains("unknown member \"Docker-manifest-digest\""));
    // Beside the right one it would be a second one to a reader that ignores case, as Go's does.
    let right = format!(r#""docker-manifest-digest":"{}""#, other_image());
    let wrong = format!(r#"{right},"Docker-manifest-digest":"{}""#, image());
    let both = payload(other_image()).replace(&right, &wrong);
    assert!(Registry::new().sig_of(&alice(), &both).refused().contains("not taken"));
}

#[test]
fn sig_critical_unknown_member() {
    let text = payload(image()).replace("\"critical\":{", "\"critical\":{\"expires\":\"2020-01-01\",");
    assert!(Registry::new().sig_of(&alice(), &text).refused().contains("critical has an unknown member \"expires\""));
}

#[test]
fn sig_trailing_bytes() {
    for tail in ["x", "{}", "\0", ","] {
        let text = payload(image()) + tail;
        assert!(Registry::new().sig_of(&alice(), &text).refused().contains("further bytes"), "{tail:?}");
    }
}

#[test]
fn sig_layer_other_media_type() {
    for other in ["application/octet-stream", "application/vnd.dev.cosign.simplesigning.v1+json; a=b", "", "text/html"]
    {
        let mut registry = Registry::new().sig(&alice());
        registry.sig_layers[0]["mediaType"] = json!(other);
        let error = registry.by_alice().unwrap_err();
        assert!(matches!(&error, Error::NoSignature { found, .. } if found.other_types().any(|kind| kind == other)));
    }
}

#[test]
fn sig_dsse_as_layer() {
    let text = statement(image());
    let signature = sign(&alice(), &pae("application/vnd.in-toto+json", text.as_bytes()));
    let envelope = json!({
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64(text.as_bytes()),
        "signatures": [{"sig": base64(&signature)}]
    });
    // Under its own type it is an attestation; as simple signing the signature is not over these bytes.
    let mut registry = Registry::new().sig_with(&envelope.to_string(), &base64(&signature));
    assert!(matches!(registry.by_alice(), Err(Error::NotSignedBy { .. })));
    registry.sig_layers[0]["mediaType"] = json!("application/vnd.dsse.envelope.v1+json");
    assert!(matches!(registry.by_alice(), Err(Error::NoSignature { .. })));
    // A statement that the key signed as it stands, which no tool does, is no payload.
    assert!(Registry::new().sig_of(&alice(), &text).refused().contains("unknown member"));
}

#[test]
fn sig_blob_bytes_differ_from_descriptor() {
    // The blob alone would do: the manifest lists another of the same length.
    let mut registry = Registry::new().sig(&alice());
    let good = registry.blobs.values().next().unwrap().clone();
    let other = other_image();
    registry.sig_layers[0]["digest"] = json!(other.to_string());
    registry.blobs.insert(other, good);
    assert!(registry.refused().contains("the bytes of a blob are not those that its manifest lists"));
}

#[test]
fn sig_size_lies() {
    for size in [json!(0), json!(241), json!(100_000_000), json!(-1), json!(1.5), json!("242"), json!(null)] {
        let mut registry = Registry::new().sig(&alice());
        registry.sig_layers[0]["size"] = size.clone();
        assert!(registry.by_alice().is_err(), "{size}");
    }
    let mut registry = Registry::new().sig(&alice());
    registry.sig_layers[0]["size"] = json!(MAX_PAYLOAD_BYTES + 1);
    assert!(registry.refused().contains("a payload has more than 65536 bytes"));
}

/// What is appended is read first, so the newest signatures are found; those that are not read are told of.
#[test]
fn sig_900_layers_good_one_last() {
    let mut registry = Registry::new();
    for number in 0..899 {
        registry = registry.sig_with(&payload(image()), &base64(format!("0{number}").as_bytes()));
    }
    let layers = |registry: &Registry| {
        let mut scan = Scan::new(image());
        let layers = scan.sig_tag(&registry.sig_manifest(), MANIFEST);
        (layers, scan)
    };
    let (read, scan) = layers(&registry);
    assert_eq!(read.len(), 64);
    let left = &scan.found().left_out()[0];
    assert_eq!((left.what, left.read, left.of), ("layers", 64, 899));
    assert!(registry.refused().contains("only 64 of 899 layers were read"));
    assert!(registry.sig(&alice()).by_alice().is_ok());
    let mut many = Registry::new().sig(&alice());
    many.sig_layers = vec![many.sig_layers[0].clone(); 1001];
    assert!(many.refused().contains("layers has more than 1000 items"));
}

#[test]
fn the_same_layer_is_looked_at_once() {
    let mut registry = Registry::new().sig(&alice());
    registry.sig_layers = vec![registry.sig_layers[0].clone(); 900];
    let scan = registry.scan(&[key("alice")]);
    assert_eq!(scan.facts().len(), 1);
    assert_eq!(scan.found().left_out(), []);
}

#[test]
fn sig_tag_is_index() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let told = sig_tag(index.as_bytes(), INDEX).unwrap_err().to_string();
    assert_eq!(told, format!("it is of the type {INDEX}, which is no image manifest"));
    // One that came as a manifest, and says what it is.
    let told = sig_tag(index.as_bytes(), MANIFEST).unwrap_err().to_string();
    assert_eq!(told, format!("it came as {MANIFEST} and says that it is {INDEX}"));
}

#[test]
fn sig_manifest_and_index_in_one() {
    for manifests in ["[]", "null", "7"] {
        let text = String::from_utf8(Registry::new().sig(&alice()).sig_manifest()).unwrap();
        let both = text.replacen('{', &format!("{{\"manifests\":{manifests},"), 1);
        let told = sig_tag(both.as_bytes(), MANIFEST).unwrap_err().to_string();
        assert_eq!(told, "it is a manifest and an index at once");
    }
}

#[test]
fn manifests_that_are_none() {
    let good = String::from_utf8(Registry::new().sig(&alice()).sig_manifest()).unwrap();
    assert_eq!(sig_tag(good.as_bytes(), MANIFEST).unwrap().len(), 1);
    // Old OCI manifests do not say what they are.
    let silent = good.replacen(&format!("\"mediaType\":\"{MANIFEST}\","), "", 1);
    assert_eq!(sig_tag(silent.as_bytes(), MANIFEST).unwrap().len(), 1);
    for (from, to) in [
        ("\"schemaVersion\":2", "\"schemaVersion\":1"),
        ("\"schemaVersion\":2", "\"schemaVersion\":2.0"),
        ("\"schemaVersion\":2", "\"schemaVersion\":2,\"schemaVersion\":2"),
        ("\"layers\":[", "\"x\":["),
        ("\"layers\":[", "\"layers\":7,\"x\":["),
    ] {
        let odd = good.replacen(from, to, 1);
        assert_ne!(odd, good);
        assert!(sig_tag(odd.as_bytes(), MANIFEST).is_err(), "{to}");
    }
    assert!(sig_tag(good.as_bytes(), "application/json").is_err());
    assert!(sig_tag(&[good.as_bytes(), &vec![b' '; 4 << 20]].concat(), MANIFEST).is_err());
    // A layer that is none does not keep its neighbour from counting.
    let mut registry = Registry::new().sig(&alice());
    for odd in [json!(7), json!({}), json!({"mediaType": SIMPLE, "size": 1, "digest": "sha512:00"})] {
        registry.sig_layers.push(odd);
    }
    assert!(registry.by_alice().is_ok());
}

#[test]
fn sig_optional_claims_missing() {
    use std::collections::BTreeMap;
    let claims = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let demand = crate::Demand::new(vec![key("alice")], None, vec![], claims).unwrap();
    let with = |optional: &str| payload(image()).replace("\"optional\":null", &format!("\"optional\":{optional}"));
    for (optional, taken) in [
        (r#"{"env":"prod"}"#, true),
        (r#"{"env":"prod","build":7}"#, true),
        ("null", false),
        ("{}", false),
        (r#"{"env":"test"}"#, false),
        (r#"{"env":true}"#, false),
        (r#"{"env":["prod"]}"#, false),
        (r#"{"Env":"prod"}"#, false),
    ] {
        let judged = Registry::new().sig_of(&alice(), &with(optional)).demand(&demand);
        assert_eq!(judged.is_ok(), taken, "{optional}");
        if let Err(error) = judged {
            let expected = format!("{} is signed by alice without the annotation env=prod", image());
            assert_eq!((error.to_string(), error.rank()), (expected, 0));
        }
    }
    // Two signatures do not make one claim together; one that makes it is enough.
    let both = Registry::new().sig(&alice()).sig_of(&alice(), &with(r#"{"env":"prod"}"#));
    assert!(both.demand(&demand).is_ok());
    let claims = BTreeMap::from([("env".to_owned(), "prod".to_owned()), ("team".to_owned(), "a".to_owned())]);
    let demand = crate::Demand::new(vec![key("alice")], None, vec![], claims).unwrap();
    let split = Registry::new().sig_of(&alice(), &with(r#"{"env":"prod"}"#)).sig_of(&alice(), &with(r#"{"team":"a"}"#));
    assert!(split.demand(&demand).is_err());
}

#[test]
fn sig_other_docker_reference() {
    let copied = payload(image()).replace(REPOSITORY, "elsewhere.example.com/old/name");
    let registry = Registry::new().sig_of(&alice(), &copied);
    assert!(registry.by_alice().is_ok());
    let scan = registry.scan(&[key("alice")]);
    assert_eq!(scan.facts()[0].docker_reference(), Some("elsewhere.example.com/old/name"));
}

#[test]
fn a_guessed_payload_is_not_fetched() {
    let registry = Registry::new().sig(&alice());
    let layers: Vec<Layer> = sig_tag(&registry.sig_manifest(), MANIFEST).unwrap();
    let guesses = guesses(REPOSITORY, image());
    assert_eq!(layers[0].guessed(&guesses), Some(payload(image()).as_bytes()));
    for (repository, digest) in [("h.io/other", image()), (REPOSITORY, other_image())] {
        assert_eq!(layers[0].guessed(&crate::guesses(repository, digest)), None);
    }
    // The size alone is no proof of it.
    let mut lying = Registry::new().sig(&alice());
    lying.sig_layers[0]["digest"] = json!(other_image().to_string());
    assert_eq!(sig_tag(&lying.sig_manifest(), MANIFEST).unwrap()[0].guessed(&guesses), None);
}
