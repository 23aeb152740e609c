//! Documents that registries have, read as strictly as one reads what strangers wrote.

use countersign_json::{Object, Value, parse};

/// How many commas and opening brackets a document may have, and so how many values. The largest sound one is an index of a
/// thousand descriptors with a few annotations each.
const MAX_VALUES: usize = 100_000;

/// The type of a `Content-Type`, without its parameters.
pub(super) fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a manifest or an index, which says itself what it is, or leaves that to the `Content-Type` (`media_type`). What could
/// be taken for either is refused: the same bytes would be another thing to somebody else (CVE-2021-41190).
pub(super) fn read<'a>(bytes: &'a [u8], media_type: &str) -> Result<Object<'a>, String> {
    let marks = bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    if marks > MAX_VALUES {
        return Err(format!("a document of more than {MAX_VALUES} values"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "a document that is not UTF-8".to_owned())?;
    let Value::Object(document) = parse(text).map_err(|error| format!("a document that cannot be read: {error}"))?
    else {
        return Err("a document that is no JSON object".to_owned());
    };
    match document.get("mediaType") {
        None => {}
        Some(Value::String(own)) if *own == media_type => {}
        Some(own) => return Err(format!("{media_type} for a document that says it is {own}")),
    }
    if document.get("schemaVersion") != Some(&Value::Number("2")) {
        return Err("a document whose schemaVersion is not 2".to_owned());
    }
    let of_manifest = document.get("layers").is_some() || document.get("config").is_some();
    if of_manifest && document.get("manifests").is_some() {
        return Err("a document that is a manifest and an index at once".to_owned());
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let long = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, "0,".repeat(MAX_VALUES));
        for (text, refused) in [
            (r#"{"schemaVersion":2,"mediaType":"t/x","manifests":[]}"#, None),
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#, None),
            (r#"{"schemaVersion":2,"mediaType":"t/y"}"#, Some("t/x for a document that says it is \"t/y\"")),
            (r#"{"schemaVersion":2,"mediaType":null}"#, Some("t/x for a document that says it is null")),
            (r#"{"schemaVersion":1}"#, Some("a document whose schemaVersion is not 2")),
            (r#"{"schemaVersion":"2"}"#, Some("a document whose schemaVersion is not 2")),
            ("{}", Some("a document whose schemaVersion is not 2")),
            ("[]", Some("a document that is no JSON object")),
            (
                r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
                Some("a document that is a manifest and an index at once"),
            ),
            (
                r#"{"schemaVersion":2,"config":{},"manifests":[]}"#,
                Some("a document that is a manifest and an index at once"),
            ),
            (
                r#"{"schemaVersion":2,"a":1,"a":2}"#,
                Some("a document that cannot be read: the member \"a\" stands twice"),
            ),
            ("<html>", Some("a document that cannot be read: expected a value at byte 0")),
            (&long, Some("a document of more than 100000 values")),
        ] {
            let found = read(text.as_bytes(), "t/x").map(|_| ());
            match (found, refused) {
                (Ok(()), None) => {}
                (Err(found), Some(refused)) if found.starts_with(refused) => {}
                (found, _) => panic!("{}: {found:?}", text.chars().take(80).collect::<String>()),
            }
        }
        assert_eq!(read(b"\"\xff\"", "t/x"), Err("a document that is not UTF-8".to_owned()));
    }

    #[test]
    fn types() {
        for (given, expected) in [
            (None, ""),
            (Some("Text/HTML; charset=utf-8"), "text/html"),
            (Some(" application/json "), "application/json"),
        ] {
            assert_eq!(essence(given), expected);
        }
    }
}
