//! A text of JSON read from one end to the other, in which most values are passed over.
//!
//! What a webhook is sent has some hundred values, of which a dozen count. What is passed over is checked for its form all the same, so that
//! nobody takes for a member what stands within a text, or the other way round.

use std::borrow::Cow;

use thiserror::Error;

/// Something that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {expected} at byte {offset}")]
pub struct Unexpected {
    /// What should stand there.
    pub expected: &'static str,
    /// Where, from the beginning of the text.
    pub offset: usize,
}

/// The kind of a value, by its first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A place in a text.
#[derive(Debug, Clone)]
pub struct Skim<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Skim<'a> {
    /// The beginning of a text.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn bad<T>(&self, expected: &'static str) -> Result<T, Unexpected> {
        Err(Unexpected { expected, offset: self.at })
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn byte(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    /// The next byte that is no white space.
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                next => return next,
            }
        }
    }

    /// Passes over this byte, if it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.token() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Which kind of value is next.
    ///
    /// # Errors
    /// None is.
    pub fn kind(&mut self) -> Result<Kind, Unexpected> {
        match self.token() {
            Some(b'n') => Ok(Kind::Null),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'"') => Ok(Kind::Text),
            Some(b'[') => Ok(Kind::Array),
            Some(b'{') => Ok(Kind::Object),
            _ => self.bad("a value"),
        }
    }

    /// Enters an array or object.
    ///
    /// # Errors
    /// None is next.
    pub fn enter(&mut self, kind: Kind) -> Result<(), Unexpected> {
        match kind {
            Kind::Array if self.take(b'[') => Ok(()),
            Kind::Object if self.take(b'{') => Ok(()),
            _ => self.bad("a list or an object"),
        }
    }

    /// Goes on to the next item of the array that was entered; false at its end. `first` is true before the first one.
    ///
    /// # Errors
    /// There is neither.
    pub fn item(&mut self, first: bool) -> Result<bool, Unexpected> {
        if self.take(b']') {
            return Ok(false);
        }
        if first || self.take(b',') { Ok(true) } else { self.bad("a comma or the end of a list") }
    }

    /// Goes on to the next member of the object that was entered, and gives its name; nothing at its end. `first` is true before the
    /// first one.
    ///
    /// # Errors
    /// There is neither.
    pub fn member(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Unexpected> {
        if self.take(b'}') {
            return Ok(None);
        }
        if !first && !self.take(b',') {
            return self.bad("a comma or the end of an object");
        }
        let name = self.string()?;
        if self.take(b':') { Ok(Some(name)) } else { self.bad("a colon") }
    }

    /// A text.
    ///
    /// # Errors
    /// None is next, or it is none of Unicode.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        self.token();
        let begin = self.at;
        if self.pass_string()? {
            let text = &self.text[begin..self.at];
            return serde_json::from_str(text)
                .map(Cow::Owned)
                .map_err(|_| Unexpected { expected: "a text", offset: begin });
        }
        Ok(Cow::Borrowed(&self.text[begin + 1..self.at - 1]))
    }

    /// Passes over a value, and gives its text.
    ///
    /// # Errors
    /// None is next.
    pub fn value(&mut self) -> Result<&'a str, Unexpected> {
        self.token();
        let begin = self.at;
        self.pass()?;
        Ok(&self.text[begin..self.at])
    }

    /// Makes sure that nothing but white space is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        if self.token().is_none() { Ok(()) } else { self.bad("nothing more") }
    }

    /// Passes over a value, however deep it is.
    fn pass(&mut self) -> Result<(), Unexpected> {
        // A bit for each level, 1 for objects; those beyond 64 levels are put away.
        let (mut levels, mut depth, mut deeper) = (0_u64, 0_usize, Vec::new());
        loop {
            let kind = self.kind()?;
            match kind {
                Kind::Null => self.word("null")?,
                Kind::Bool => self.word(if self.byte() == Some(b't') { "true" } else { "false" })?,
                Kind::Number => self.number()?,
                Kind::Text => {
                    self.pass_string()?;
                }
                Kind::Array | Kind::Object => {
                    self.at += 1;
                    let is_object = kind == Kind::Object;
                    if !self.take(if is_object { b'}' } else { b']' }) {
                        if depth > 0 && depth.is_multiple_of(64) {
                            deeper.push(levels);
                        }
                        levels = levels << 1 | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            self.pass_name()?;
                        }
                        continue;
                    }
                }
            }
            // A value has ended, and perhaps those that it ends.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = levels & 1 == 1;
                if self.take(b',') {
                    if is_object {
                        self.pass_name()?;
                    }
                    break;
                }
                if !self.take(if is_object { b'}' } else { b']' }) {
                    return self.bad("a comma or an end");
                }
                depth -= 1;
                levels >>= 1;
                if depth > 0 && depth.is_multiple_of(64) {
                    levels = deeper.pop().unwrap_or_default();
                }
            }
        }
    }

    fn pass_name(&mut self) -> Result<(), Unexpected> {
        self.token();
        self.pass_string()?;
        if self.take(b':') { Ok(()) } else { self.bad("a colon") }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Unexpected> {
        if !self.bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.bad(word);
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Unexpected> {
        let begin = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { self.bad("a digit") }
    }

    fn number(&mut self) -> Result<(), Unexpected> {
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// Passes over a text, and tells whether anything in it is escaped.
    fn pass_string(&mut self) -> Result<bool, Unexpected> {
        if self.byte() != Some(b'"') {
            return self.bad("a text");
        }
        self.at += 1;
        let mut escaped = false;
        loop {
            self.pass_plain();
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match self.byte() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            let digits = self.bytes().get(self.at..self.at + 4);
                            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                                return self.bad("four digits");
                            }
                            self.at += 4;
                        }
                        _ => return self.bad("an escape"),
                    }
                }
                _ => return self.bad("the end of a text"),
            }
        }
    }

    /// Passes over what stands for itself in a text, eight bytes at once as long as there are so many.
    fn pass_plain(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGH: u64 = ONES << 7;
        let bytes = self.bytes();
        while let Some(next) = bytes.get(self.at..self.at + 8).and_then(|next| next.try_into().ok()) {
            let word = u64::from_le_bytes(next);
            let zero = |word: u64| word.wrapping_sub(ONES) & !word;
            // The lowest byte that is marked is one that is looked for; those above it may be marked by mistake.
            let quote = zero(word ^ (ONES * u64::from(b'"')));
            let backslash = zero(word ^ (ONES * u64::from(b'\\')));
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let found = (quote | backslash | control) & HIGH;
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.byte().is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Whether the whole text is a value, and its text.
    fn passed(text: &str) -> Result<&str, Unexpected> {
        let mut skim = Skim::new(text);
        let value = skim.value()?;
        skim.end().map(|()| value)
    }

    #[test]
    fn what_is_passed_over_is_json() {
        let sound = [
            "null",
            " true ",
            "false",
            "0",
            "-1.5e+10",
            "1E3",
            "\"\"",
            "\"a\\u00e9\\n\\\"b\"",
            "[]",
            "{}",
            "[1, [2], {}]",
            "{\"a\": {\"b\": [null, \"}\"]}, \"c\" : 1 }",
            "\"0123456\\\\\"",
            "\"é€😀\"",
        ];
        for text in sound {
            assert_eq!(passed(text), Ok(text.trim()), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
        let broken = [
            "",
            "nul",
            "tru",
            "01",
            "-",
            "1.",
            "1e",
            "\"",
            "\"a\nb\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12\"",
            "[",
            "[1",
            "[1,]",
            "[1 2]",
            "[}",
            "{",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "1 2",
            "]",
            ",",
            "\"01234567\u{1}\"",
        ];
        for text in broken {
            assert!(passed(text).is_err(), "{text}");
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn any_depth_is_passed_over() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 193, 100_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"b\":", "}]")] {
                let text = open.repeat(depth) + "1" + &close.repeat(depth);
                assert!(passed(&text).is_ok(), "{depth} {open}");
                let wrong = if close == "]" { "}" } else { "]" };
                for at in [0, depth / 2, depth - 1] {
                    let broken = open.repeat(depth) + "1" + &close.repeat(at) + wrong + &close.repeat(depth - at - 1);
                    assert!(passed(&broken).is_err(), "{depth} {open} {at}");
                }
            }
        }
    }

    /// Each member by its name, and the text of its value.
    fn members(text: &str) -> Result<Vec<(String, &str)>, Unexpected> {
        let mut skim = Skim::new(text);
        skim.enter(Kind::Object)?;
        let mut all = Vec::new();
        while let Some(name) = skim.member(all.is_empty())? {
            all.push((name.into_owned(), skim.value()?));
        }
        skim.end().map(|()| all)
    }

    #[test]
    fn members_are_told_by_their_names() {
        let expected = vec![("a".to_owned(), "1"), ("b\"".to_owned(), "[\"a\"]"), ("é".to_owned(), "{}")];
        assert_eq!(members(r#" { "a": 1, "b\"":["a"],"\u00e9" : {} } "#), Ok(expected));
        for broken in ["[]", "{\"a\":1 \"b\":2}", "{,}", "{\"a\":1,}", "{\"\\ud800\":1}", "{\"a\":1}}"] {
            assert!(members(broken).is_err(), "{broken}");
        }
    }

    proptest! {
        /// Whatever is done to a text, it is JSON here exactly if it is JSON to somebody else.
        #[test]
        fn it_agrees_with_another_reader(bytes in proptest::collection::vec(0_usize..18, 0..24)) {
            let parts = ["{", "}", "[", "]", ",", ":", "\"a\"", "\"b\\\\\"", "1", "-0.5", "null", "true", " ", "\"", "\\", "é", "0", "e"];
            let text: String = bytes.into_iter().map(|part| parts[part]).collect();
            prop_assert_eq!(passed(&text).is_ok(), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn a_byte_that_is_changed_makes_no_difference_to_the_verdict(at in 0_usize..90, byte in 0_u8..128) {
            let sound = r#"{"kind":"Pod","spec":{"containers":[{"name":"a","image":"b:1","ports":[80,-1.5e3,true,null]}]}}"#;
            let mut bytes = sound.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(passed(&text).is_ok(), serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
        }
    }
}
