//! The canonical form that Notary signs, written from the protocol and not from the verifier.

use std::collections::BTreeMap;

use serde_json::Value;

/// The bytes that a signature over `value` covers.
///
/// Members are sorted by the bytes of their names, only `"` and `\` are escaped, and every number is read as a
/// double and written as an integer, as Go does.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(flag) => out.extend(flag.to_string().bytes()),
        Value::Number(number) => out.extend(integer(number).bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&[u8], (&String, &Value)> =
                members.iter().map(|(name, member)| (name.as_bytes(), (name, member))).collect();
            out.push(b'{');
            for (index, (name, member)) in sorted.into_values().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(name, out);
                out.push(b':');
                write(member, out);
            }
            out.push(b'}');
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "this is what Go does, and what signatures therefore cover")]
fn integer(number: &serde_json::Number) -> String {
    (number.as_f64().unwrap_or_default() as i64).to_string()
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use serde_json::json;

    #[test]
    fn sorts_by_bytes_and_writes_control_characters_raw() {
        let value = json!({"\u{1f600}": 1, "\u{e000}": 2, "b": "a\n\t\"\\\u{2028}<>", "a": [null, true, 5.0]});
        let wanted = "{\"a\":[null,true,5],\"b\":\"a\n\t\\\"\\\\\u{2028}<>\",\"\u{e000}\":2,\"\u{1f600}\":1}";
        assert_eq!(String::from_utf8(canonical(&value)).unwrap(), wanted);
    }

    #[test]
    fn large_integers_lose_what_a_double_loses() {
        assert_eq!(canonical(&json!(9_007_199_254_740_993_u64)), b"9007199254740992");
    }
}
