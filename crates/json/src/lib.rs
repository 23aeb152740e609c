//! JSON as Notary writes and signs it: a bounded reader, and the canonical form that signatures cover.
//!
//! A reader of our own, since what is asked for is unusual: duplicate members must be refused, numbers must be kept
//! as they were written, and bytes that are not UTF-8 must become what Go makes of them, or signatures over such
//! strings would not verify.

pub mod skim;

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// How deep arrays and objects may nest. Tools write five levels; `custom` may hold anything, but nobody nests it a
/// hundred deep, and a recursive reader must stop well before its stack does.
pub const MAX_DEPTH: usize = 128;

/// How many values one document may hold: forty times those of a file with 100 000 tags would be too much memory to
/// give a stranger, four times is enough.
pub const MAX_VALUES: usize = 2_500_000;

/// What is wrong with a document, with the byte offset at which it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Something else was expected here.
    #[error("expected {expected} at byte {offset}")]
    Syntax {
        /// What should stand there.
        expected: &'static str,
        /// Where.
        offset: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels at byte {offset}")]
    TooDeep {
        /// Where.
        offset: usize,
    },
    /// More values than [`MAX_VALUES`], or than the caller allows.
    #[error("more values than such a document may hold")]
    TooManyValues,
    /// An object names a member twice. Go signs the last and reads both, so neither can be believed.
    #[error("the member {name:?} stands twice in one object")]
    DuplicateMember {
        /// The member.
        name: String,
    },
    /// Something follows the document.
    #[error("there are further bytes after the document, at byte {offset}")]
    TrailingBytes {
        /// Where.
        offset: usize,
    },
    /// A number that has no canonical form: a fraction, or too large for Go's `int64`.
    #[error("the number {number} has no canonical form")]
    NotCanonical {
        /// As written.
        number: String,
    },
}

/// A JSON value, borrowing from the text where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(&'a str),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// An object's members, sorted by the bytes of their names, no name twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    /// The member of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let at = self.0.binary_search_by(|(member, _)| member.as_ref().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// All members, in the order of their names' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The text of a document. Bytes that are not UTF-8 become U+FFFD, one for each byte, as Go's `encoding/json` does it.
#[must_use]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let mut rest = bytes;
    let mut text = String::new();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) if text.is_empty() && rest.len() == bytes.len() => return Cow::Borrowed(valid),
            Ok(valid) => {
                text.push_str(valid);
                return Cow::Owned(text);
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &invalid[1..];
            }
        }
    }
}

/// Reads one document and nothing after it but white space.
///
/// # Errors
/// Anything that RFC 8259 does not allow, duplicate members, and more depth or values than the limits of this module.
pub fn parse(text: &str) -> Result<Value<'_>, JsonError> {
    parse_within(text, MAX_VALUES)
}

/// The same for a format whose documents hold fewer values, never more than [`MAX_VALUES`].
///
/// # Errors
/// As [`parse`] has them, and more values than `max_values`.
pub fn parse_within(text: &str, max_values: usize) -> Result<Value<'_>, JsonError> {
    let mut reader = Reader { text, at: 0, left: max_values.min(MAX_VALUES) };
    reader.skip_space();
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(JsonError::TrailingBytes { offset: reader.at });
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// How many values there may still be.
    left: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError::Syntax { expected, offset: self.at })
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.left = self.left.checked_sub(1).ok_or(JsonError::TooManyValues)?;
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep { offset: self.at });
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => self.expected("a value"),
        }
    }

    fn word(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        self.expected(word)
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.expected("a comma or the end of the array"),
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.at += 1;
        let mut members = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(Object(members)));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.expected("the name of a member");
            }
            let name = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.expected("a colon");
            }
            self.at += 1;
            self.skip_space();
            members.push((name, self.value(depth + 1)?));
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.expected("a comma or the end of the object"),
            }
        }
        self.at += 1;
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(JsonError::DuplicateMember { name: pair[0].0.to_string() });
        }
        Ok(Value::Object(Object(members)))
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.expected("a digit");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut start = self.at;
        let mut unescaped: Option<String> = None;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let run = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(match unescaped {
                        None => Cow::Borrowed(run),
                        Some(text) => Cow::Owned(text + run),
                    });
                }
                Some(b'\\') => {
                    let text = unescaped.get_or_insert_default();
                    text.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    let character = self.escape()?;
                    unescaped.get_or_insert_default().push(character);
                    start = self.at;
                }
                Some(0..=0x1f) => return self.expected("no control character in a string"),
                Some(_) => self.at += 1,
                None => return self.expected("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return self.expected("an escape sequence"),
        };
        self.at += 1;
        Ok(character)
    }

    /// Four hex digits, and four more where they make a surrogate pair. A lone surrogate becomes U+FFFD, as in Go.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let unit = self.hex4()?;
        if !(0xd800..0xe000).contains(&unit) {
            return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if unit < 0xdc00 && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let scalar = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits =
            self.text.as_bytes().get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            return self.expected("four hex digits");
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |unit, digit| unit * 16 + char::from(*digit).to_digit(16).unwrap_or_default()))
    }
}

/// The canonical form of a value: the bytes that a signature covers in TUF as Notary has it (`docs/notary-v1.md#canonical-json`;
/// `docker/go` `canonical/json`).
///
/// # Errors
/// A number without a canonical form.
pub fn canonical(value: &Value<'_>) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write_canonical(value, &mut out)?;
    Ok(out)
}

fn write_canonical(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(canonical_number(number)?.to_string().as_bytes()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (index, (name, member)) in object.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(member, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Only the quote and the backslash are escaped; everything else stands as it is, control characters too.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Go reads every number of an untyped document as a `float64` and writes it as an `int64`.
fn canonical_number(number: &str) -> Result<i64, JsonError> {
    /// 2^63, the first float that an `int64` cannot hold.
    const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;
    let refused = || JsonError::NotCanonical { number: number.chars().take(64).collect() };
    let float: f64 = number.parse().map_err(|_| refused())?;
    if float.fract() != 0.0 || !(-TOO_LARGE..TOO_LARGE).contains(&float) {
        return Err(refused());
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked above, and the value is whole")]
    Ok(float as i64)
}

impl fmt::Display for Value<'_> {
    /// Short text for messages: scalars as they are, the rest by kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => f.write_str(&number.chars().take(64).collect::<String>()),
            Self::String(text) => fmt::Debug::fmt(&text.chars().take(64).collect::<String>(), f),
            Self::Array(_) => f.write_str("a list"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canon(text: &str) -> Result<String, JsonError> {
        let bytes = canonical(&parse(text)?)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn canonical_form_follows_go() {
        let cases = [
            (r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#),
            (" { \"a\" : [ 1 , true , null ] } ", r#"{"a":[1,true,null]}"#),
            (r#""\n\t\u0000""#, "\"\n\t\0\""),
            (r#""<>&\u2028é\/""#, "\"<>&\u{2028}é/\""),
            (r#""\"\\""#, r#""\"\\""#),
            ("5.0", "5"),
            ("5e0", "5"),
            ("-0.0", "0"),
            ("9007199254740993", "9007199254740992"),
            (r#""\ud83d\ude00""#, "\"😀\""),
            (r#""\ud800""#, "\"\u{fffd}\""),
            (r#""\ud800\u0041""#, "\"\u{fffd}A\""),
            ("{\"\u{1f600}\":1,\"\u{e000}\":2}", "{\"\u{e000}\":2,\"\u{1f600}\":1}"),
        ];
        for (text, expected) in cases {
            assert_eq!(canon(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        let deep = "[".repeat(100_000);
        let cases = [
            ("", JsonError::Syntax { expected: "a value", offset: 0 }),
            ("\u{feff}{}", JsonError::Syntax { expected: "a value", offset: 0 }),
            ("{} {}", JsonError::TrailingBytes { offset: 3 }),
            (r#"{"a":1,"b":2,"a":1}"#, JsonError::DuplicateMember { name: "a".into() }),
            (r#"{"a":1,"\u0061":1}"#, JsonError::DuplicateMember { name: "a".into() }),
            ("5.5", JsonError::NotCanonical { number: "5.5".into() }),
            ("1e400", JsonError::NotCanonical { number: "1e400".into() }),
            ("9223372036854775808", JsonError::NotCanonical { number: "9223372036854775808".into() }),
            ("01", JsonError::TrailingBytes { offset: 1 }),
            ("+1", JsonError::Syntax { expected: "a value", offset: 0 }),
            ("\"\n\"", JsonError::Syntax { expected: "no control character in a string", offset: 1 }),
            ("[1,]", JsonError::Syntax { expected: "a value", offset: 3 }),
            (&deep, JsonError::TooDeep { offset: MAX_DEPTH + 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(canon(text), Err(expected), "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(canon(&format!("[{}1]", "1,".repeat(MAX_VALUES))), Err(JsonError::TooManyValues));
    }

    #[test]
    fn a_caller_may_allow_fewer_values() {
        assert!(parse_within("[1,2]", 3).is_ok());
        assert_eq!(parse_within("[1,2]", 2), Err(JsonError::TooManyValues));
        assert_eq!(parse_within("1", 0), Err(JsonError::TooManyValues));
    }

    #[test]
    fn bytes_that_are_not_utf8_become_one_replacement_each() {
        assert_eq!(decode(b"a\xe2\x82b\xff"), "a\u{fffd}\u{fffd}b\u{fffd}");
        assert!(matches!(decode(b"plain"), Cow::Borrowed("plain")));
    }

    fn ascii_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-(1i64 << 53)..(1i64 << 53)).prop_map(Into::into),
            "[ -~]{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                // olpc-cjson sorts names as they are written, quotes and escapes included, Notary without: names of signs
                // above the quote that need no escape are in the same order in both.
                prop::collection::btree_map(r"[#-\[\]-~]{0,6}", inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// On ASCII the published canonical JSON and Notary's are the same.
        #[test]
        fn agrees_with_olpc_cjson_on_ascii(value in ascii_json()) {
            use serde::Serialize;
            let mut expected = Vec::new();
            let mut writer = serde_json::Serializer::with_formatter(&mut expected, olpc_cjson::CanonicalFormatter::new());
            value.serialize(&mut writer).unwrap();
            let text = value.to_string();
            let parsed = parse(&text).unwrap();
            prop_assert_eq!(canonical(&parsed).unwrap(), expected);
        }

        /// The canonical form of a value reads back as the same value where it holds no control characters.
        #[test]
        fn canonical_form_reads_back(value in ascii_json()) {
            let text = value.to_string();
            let once = canonical(&parse(&text).unwrap()).unwrap();
            let again = decode(&once).into_owned();
            prop_assert_eq!(canonical(&parse(&again).unwrap()).unwrap(), once);
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = decode(&bytes).into_owned();
            if let Ok(value) = parse(&text) {
                let _ = canonical(&value);
            }
        }
    }
}
