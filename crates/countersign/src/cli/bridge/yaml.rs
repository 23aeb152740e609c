//! Writes an object as YAML that every reader takes for the same: whatever could be taken for something other than text is quoted.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that some readers of YAML take for something other than text.
const RESERVED: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];

/// The lines of a value that is no scalar, or the one line of one that is.
pub(super) fn lines(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                put(&mut out, &format!("{}:", scalar(name)), member);
            }
        }
        other => out.push(flow(other)),
    }
    out
}

/// A member, behind its name.
fn put(out: &mut Vec<String>, head: &str, value: &Value) {
    let mut below = |indent: &str, lines: Vec<String>| {
        out.push(head.to_owned());
        out.extend(lines.into_iter().map(|line| format!("{indent}{line}")));
    };
    match value {
        Value::Object(members) if !members.is_empty() => below("  ", lines(value)),
        Value::Array(list) if !list.is_empty() => below("  ", list.iter().flat_map(item).collect()),
        Value::String(text) if is_block(text) => {
            let mark = if text.ends_with('\n') { "|" } else { "|-" };
            out.push(format!("{head} {mark}"));
            out.extend(text.lines().map(|line| format!("  {line}")));
        }
        other => out.push(format!("{head} {}", flow(other))),
    }
}

/// The lines of one item of a list.
pub(super) fn item(value: &Value) -> Vec<String> {
    let inner = match value {
        Value::String(text) if is_block(text) => {
            let mut out = Vec::new();
            put(&mut out, "-", value);
            return out;
        }
        other => lines(other),
    };
    let mark = |(index, line)| format!("{}{line}", if index == 0 { "- " } else { "  " });
    inner.into_iter().enumerate().map(mark).collect()
}

/// Whether a text of several lines can stand as it is: a key in PEM, say.
fn is_block(text: &str) -> bool {
    let lines: Vec<_> = text.lines().collect();
    let plain = |line: &&str| {
        !line.is_empty()
            && !line.starts_with([' ', '-'])
            && !line.ends_with(' ')
            && line.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    };
    // A first line of dashes begins a key; it is indented, so it is no mark of a document.
    let begins = |line: &&str| plain(line) || line.starts_with("-----");
    lines.len() > 1 && !text.ends_with("\n\n") && !text.contains('\r') && lines.iter().all(begins)
}

/// A value in one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("{}: {}", scalar(name), flow(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
    }
}

/// A text, in quotes where it must be.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '\n' => out.push_str("\\n"),
            ' '..='~' => out.push(character),
            other => {
                let _ = write!(out, "\\U{:08x}", u32::from(other));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_is_read_back_as_it_was() {
        let pem = forge::Key::p256("a").pem();
        for text in [
            "",
            "a",
            "on",
            "N",
            "1",
            "1e3",
            "~",
            "null",
            "a: b",
            "# c",
            "- d",
            "*",
            "h.io/*",
            "é\u{2028}\u{85}\u{1f600}",
            "\"\\\n\t\r\u{7f}",
            " x",
            "a\n",
            "a\nb",
            "a\n b\n",
            "a\n\nb",
            "---\nx: 1\n",
            &pem,
            pem.trim(),
        ] {
            let value = json!({"a": text, "l": [text, {"m": text, "n": {text: [1, true, null, {}, []]}}, [text]], "e": {}, "f": []});
            let written = lines(&value).join("\n") + "\n";
            let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(read, value, "{written}");
            let documents = crate::documents::parse("f", &written).unwrap();
            assert_eq!(documents[0].value, value, "{written}");
        }
    }
}
