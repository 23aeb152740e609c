//! Texts of a YAML or JSON document, replaced where they stand: every other byte stays as it was written.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle};

/// A text that takes another one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Where it stands: a JSON pointer into the document.
    pub(crate) pointer: String,
    /// The text, of characters that need no quotes in YAML.
    pub(crate) text: String,
}

/// What one level of the document is at.
enum Level {
    List {
        next: usize,
    },
    /// A mapping, and the name whose value comes next; `None` before a name.
    Mapping {
        name: Option<String>,
    },
    /// The inside of a name that is no scalar: nothing in it has a pointer.
    Nameless,
}

/// Which bytes of a document are to be replaced, and by what; in the order in which they stand.
///
/// # Errors
/// Which is the first at whose pointer no scalar is written: it is not there, or comes of an alias (`*name`) of a whole list or mapping.
pub(crate) fn places(document: &str, edits: &[Edit]) -> Result<Vec<(Range<usize>, String)>, usize> {
    let wanted: HashMap<&str, usize> =
        edits.iter().enumerate().map(|(index, edit)| (edit.pointer.as_str(), index)).collect();
    let mut found: Vec<Option<(Range<usize>, String)>> = vec![None; edits.len()];
    let mut levels: Vec<Level> = Vec::new();
    let mut parser = Parser::new_from_str(document);
    while let Some(Ok((event, span))) = parser.next_event() {
        let style = match &event {
            Event::Scalar(_, style, ..) => Some(*style),
            // In the place of an alias the text is written out.
            Event::Alias(_) => Some(ScalarStyle::Plain),
            _ => None,
        };
        match event {
            Event::Scalar(..) | Event::Alias(_) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                if let Some(Level::Mapping { name: name @ None }) = levels.last_mut() {
                    match &event {
                        Event::Scalar(text, ..) => *name = Some(text.clone().into_owned()),
                        Event::Alias(_) => *name = Some(String::new()),
                        _ => levels.push(Level::Nameless),
                    }
                    continue;
                }
                let here = pointer(&levels);
                if let (Some(style), Some(here)) = (style, &here)
                    && let Some(&index) = wanted.get(here.as_str())
                {
                    let range = span.byte_range().unwrap_or_default();
                    let before = document.get(range.clone()).unwrap_or_default();
                    found[index] = Some((range, written(&edits[index].text, style, before)));
                }
                match event {
                    Event::SequenceStart(..) | Event::MappingStart(..) if here.is_none() => {
                        levels.push(Level::Nameless);
                    }
                    Event::SequenceStart(..) => levels.push(Level::List { next: 0 }),
                    Event::MappingStart(..) => levels.push(Level::Mapping { name: None }),
                    _ => value_ended(&mut levels),
                }
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let ended = levels.pop();
                match (ended, levels.last_mut()) {
                    // A name that is no scalar has ended; its value has no pointer either.
                    (Some(Level::Nameless), Some(Level::Mapping { name: name @ None })) => *name = Some(String::new()),
                    _ => value_ended(&mut levels),
                }
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    for (index, found) in found.into_iter().enumerate() {
        all.push(found.ok_or(index)?);
    }
    all.sort_by_key(|(range, _)| range.start);
    Ok(all)
}

fn value_ended(levels: &mut [Level]) {
    match levels.last_mut() {
        Some(Level::List { next }) => *next += 1,
        Some(Level::Mapping { name }) => *name = None,
        Some(Level::Nameless) | None => {}
    }
}

/// Where the next value stands, as a JSON pointer (RFC 6901).
fn pointer(levels: &[Level]) -> Option<String> {
    let mut pointer = String::new();
    for level in levels {
        pointer.push('/');
        match level {
            Level::List { next } => pointer.push_str(&next.to_string()),
            Level::Mapping { name } => pointer.push_str(&name.as_ref()?.replace('~', "~0").replace('/', "~1")),
            Level::Nameless => return None,
        }
    }
    Some(pointer)
}

/// The text in the style of the one whose place it takes.
fn written(text: &str, style: ScalarStyle, before: &str) -> String {
    match style {
        ScalarStyle::SingleQuoted => format!("'{text}'"),
        ScalarStyle::DoubleQuoted => format!("\"{text}\""),
        // The line breaks behind the text of a block stay.
        ScalarStyle::Literal | ScalarStyle::Folded => format!("{text}{}", &before[before.trim_end().len()..]),
        ScalarStyle::Plain => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(document: &str, pointer: &str) -> Result<String, usize> {
        let edits = [Edit { pointer: pointer.to_owned(), text: "app:v1@sha256:ab".to_owned() }];
        let mut text = document.to_owned();
        for (range, new) in places(document, &edits)?.into_iter().rev() {
            text.replace_range(range, &new);
        }
        Ok(text)
    }

    #[test]
    fn every_style_of_a_text_is_kept() {
        let cases = [
            ("image: app:v1\n", "image: app:v1@sha256:ab\n"),
            ("image:   app:v1   # why\r\nx: 0400\r\n", "image:   app:v1@sha256:ab   # why\r\nx: 0400\r\n"),
            ("image: 'app:v1'\n", "image: 'app:v1@sha256:ab'\n"),
            ("image: \"app:v1\" # x\n", "image: \"app:v1@sha256:ab\" # x\n"),
            ("{\"image\":\"app\\u003av1\",\"n\":1.50}", "{\"image\":\"app:v1@sha256:ab\",\"n\":1.50}"),
            ("{image: app:v1, n: 0o7}\n", "{image: app:v1@sha256:ab, n: 0o7}\n"),
            ("image: !!str app:v1\nb: 1\n", "image: !!str app:v1@sha256:ab\nb: 1\n"),
            ("image: &i app:v1\nb: 1\n", "image: &i app:v1@sha256:ab\nb: 1\n"),
            ("a: &i app:v1\nimage: *i\nb: 1\n", "a: &i app:v1\nimage: app:v1@sha256:ab\nb: 1\n"),
            ("image: |-\n  app:v1\nb: 1\n", "image: |-\n  app:v1@sha256:ab\nb: 1\n"),
            ("image: >-\n  app:v1\n\nb: 1\n", "image: >-\n  app:v1@sha256:ab\n\nb: 1\n"),
            ("image: \u{fc}\nb: \u{e9}\n", "image: app:v1@sha256:ab\nb: \u{e9}\n"),
            ("? [a, {image: x}]\n: image\nimage: app:v1\n", "? [a, {image: x}]\n: image\nimage: app:v1@sha256:ab\n"),
            ("? {b: 1}\n: {image: y}\nimage: app:v1\n", "? {b: 1}\n: {image: y}\nimage: app:v1@sha256:ab\n"),
        ];
        for (document, expected) in cases {
            assert_eq!(edited(document, "/image").as_deref(), Ok(expected), "{document}");
        }
    }

    #[test]
    fn the_pointer_says_which_text() {
        let document = "a: app\nl:\n- image: app\n- {image: app, e~/x: [app, app]}\n- - app\n";
        for (pointer, expected) in [
            ("/a", "a: N\nl:\n- image: app\n- {image: app, e~/x: [app, app]}\n- - app\n"),
            ("/l/0/image", "a: app\nl:\n- image: N\n- {image: app, e~/x: [app, app]}\n- - app\n"),
            ("/l/1/image", "a: app\nl:\n- image: app\n- {image: N, e~/x: [app, app]}\n- - app\n"),
            ("/l/1/e~0~1x/1", "a: app\nl:\n- image: app\n- {image: app, e~/x: [app, N]}\n- - app\n"),
            ("/l/2/0", "a: app\nl:\n- image: app\n- {image: app, e~/x: [app, app]}\n- - N\n"),
        ] {
            let expected = expected.replace('N', "app:v1@sha256:ab");
            assert_eq!(edited(document, pointer), Ok(expected), "{pointer}");
        }
        for pointer in ["/b", "/l", "/l/3", "/l/0/image/0", ""] {
            assert_eq!(edited(document, pointer), Err(0), "{pointer}");
        }
        // What stands behind an alias stands somewhere else.
        let aliased = "a: &c [{image: app}]\nb: *c\n";
        assert_eq!(edited(aliased, "/b/0/image"), Err(0));
    }
}
