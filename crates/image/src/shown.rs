//! Texts of strangers, made safe to show.

use std::fmt::Write as _;

/// How many characters of a text a message repeats.
const MAX_SHOWN: usize = 1024;

/// A text in quotes, without anything that a terminal would obey or that would break a line, and not too long.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).replace('"', "\\\""))
}

/// A text without anything that a terminal would obey or that would break a line, and not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    // Almost all texts are plain, and each line of the log has some dozens.
    if text.len() <= MAX_SHOWN && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        // Besides control characters: line and paragraph separators, signs that change the direction of writing, and those that
        // nobody sees.
        let hidden = matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{2060}'..='\u{2064}' | '\u{e0000}'..='\u{e007f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}');
        if character.is_control() || hidden {
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal() {
        assert_eq!(quoted("a\n\u{1b}[31m\"b\u{202e}"), "\"a\\n\\u{1b}[31m\\\"b\\u{202e}\"");
        assert_eq!(shown(&"x".repeat(10_000)), format!("{}…", "x".repeat(MAX_SHOWN)));
    }
}
