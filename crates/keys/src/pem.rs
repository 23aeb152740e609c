//! PEM as Docker's tools write it.
//!
//! Readers that keep to RFC 7468 refuse the `role: alice` header of `docker trust key generate`, so this follows
//! RFC 1421: lines with a colon before the base64 text are headers, and carry no meaning here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One PEM block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind `BEGIN`.
    pub label: String,
    /// The decoded bytes.
    pub der: Vec<u8>,
}

/// All blocks of a text; what stands between blocks is passed over. A block that is broken ends the list.
#[must_use]
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        let mut in_headers = true;
        let mut closed = false;
        for line in lines.by_ref() {
            if line == end {
                closed = true;
                break;
            }
            in_headers = in_headers && line.contains(':');
            if !in_headers {
                body.extend(line.chars().filter(|character| !character.is_ascii_whitespace()));
            }
        }
        match STANDARD.decode(&body) {
            Ok(der) if closed => found.push(Block { label: label.to_owned(), der }),
            _ => break,
        }
    }
    found
}

/// The PEM text of DER bytes: 64 columns, line feeds, a final newline, no headers. Go writes exactly this, and the id of
/// a certificate's key is a hash over it.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_windows_lines_and_text_around_are_passed_over() {
        let text =
            "hello\r\n-----BEGIN PUBLIC KEY-----\r\nrole: alice\r\n\r\nAQID\r\nBAUG\r\n-----END PUBLIC KEY-----\r\nbye";
        assert_eq!(blocks(text), [Block { label: "PUBLIC KEY".into(), der: vec![1, 2, 3, 4, 5, 6] }]);
    }

    #[test]
    fn a_broken_block_ends_the_list() {
        for text in ["", "-----BEGIN X-----\nAQID\n", "-----BEGIN X-----\nAQ*D\n-----END X-----\n", "-----BEGIN X-----"]
        {
            assert_eq!(blocks(text), [], "{text}");
        }
    }

    #[test]
    fn what_is_encoded_reads_back() {
        for length in [0, 1, 47, 48, 49, 200] {
            let der: Vec<u8> = (0..length).collect();
            assert_eq!(blocks(&encode("CERTIFICATE", &der)), [Block { label: "CERTIFICATE".into(), der }]);
        }
    }
}
