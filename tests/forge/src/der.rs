//! As much DER as keys and certificates need.

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 + u8::try_from(bytes.len()).expect("a length has at most 8 bytes"));
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x31, &parts.concat())
}

/// A number that is not negative, from its big-endian bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let mut digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if digits.first().is_none_or(|first| *first >= 0x80) {
        digits.insert(0, 0);
    }
    element(0x02, &digits)
}

pub(crate) fn bit_string(content: &[u8]) -> Vec<u8> {
    let mut bits = vec![0];
    bits.extend_from_slice(content);
    element(0x03, &bits)
}

pub(crate) fn octet_string(content: &[u8]) -> Vec<u8> {
    element(0x04, content)
}

pub(crate) fn null() -> Vec<u8> {
    vec![0x05, 0x00]
}

/// An object identifier from its arcs.
pub(crate) fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut content = vec![u8::try_from(arcs[0] * 40 + arcs[1]).expect("the first two arcs fit a byte")];
    for arc in &arcs[2..] {
        let groups: Vec<u8> = (0..5).rev().map(|group| (arc >> (7 * group) & 0x7f) as u8).collect();
        let start = groups.iter().position(|group| *group != 0).unwrap_or(4);
        for (index, group) in groups.iter().enumerate().skip(start) {
            content.push(if index < 4 { group | 0x80 } else { *group });
        }
    }
    element(0x06, &content)
}

/// PEM text as Go writes it: 64 columns and a final newline.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
