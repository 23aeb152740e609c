//! As much DER as it takes to write a public key or an ECDSA signature anew.

/// `SEQUENCE`
pub(crate) const SEQUENCE: u8 = 0x30;
/// `BIT STRING`
const BIT_STRING: u8 = 0x03;
/// `INTEGER`
const INTEGER: u8 = 0x02;
/// `OBJECT IDENTIFIER`
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
/// `NULL`, whole.
pub(crate) const NULL: [u8; 2] = [0x05, 0x00];

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    match digits {
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            // A `usize` has at most eight bytes, so their number fits the low bits of one.
            out.push(long.iter().fold(0x80, |count, _| count + 1));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A number that is above zero, from its big-endian bytes; nothing for zero.
pub(crate) fn positive(bytes: &[u8]) -> Option<Vec<u8>> {
    let digits = &bytes[bytes.iter().position(|byte| *byte != 0)?..];
    if digits[0] < 0x80 {
        return Some(element(INTEGER, digits));
    }
    Some(element(INTEGER, &[&[0], digits].concat()))
}

/// Whole bytes as a bit string.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        for (length, head) in [
            (0, &[4u8, 0][..]),
            (1, &[4, 1]),
            (0x7f, &[4, 0x7f]),
            (0x80, &[4, 0x81, 0x80]),
            (0xff, &[4, 0x81, 0xff]),
            (0x100, &[4, 0x82, 1, 0]),
        ] {
            let whole = element(4, &vec![7; length]);
            assert_eq!(&whole[..head.len()], head);
            assert_eq!(whole.len(), head.len() + length);
        }
        assert_eq!(positive(&[0, 0]), None);
        assert_eq!(positive(&[0, 0x7f]), Some(vec![2, 1, 0x7f]));
        assert_eq!(positive(&[0, 0x80]), Some(vec![2, 2, 0, 0x80]));
    }
}
