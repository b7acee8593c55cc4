//! LSN and milliseconds as sixteen hexadecimal digits each, the bytes of the source's name if it is shown (`-`: none), then
//! the payload's bytes.

use super::{Origin, put_hex_byte};
use crate::query::EntryRef;

pub(super) fn encode(entry: &EntryRef<'_>, milliseconds: u64, origin: Origin<'_>, out: &mut Vec<u8>) {
    entry.lsn.0.to_be_bytes().iter().for_each(|&byte| put_hex_byte(byte, out));
    out.push(b' ');
    milliseconds.to_be_bytes().iter().for_each(|&byte| put_hex_byte(byte, out));
    out.push(b' ');
    match origin {
        Origin::Hidden => {}
        Origin::None => out.extend_from_slice(b"- "),
        Origin::Name(name) => {
            name.bytes().for_each(|byte| put_hex_byte(byte, out));
            out.push(b' ');
        }
    }
    out.reserve(2 * entry.payload.len());
    entry.payload.iter().for_each(|&byte| put_hex_byte(byte, out));
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::line;

    #[test]
    fn every_byte_is_two_digits() {
        assert_eq!(line(Format::Hex, b"\x00\x0f\xf0\xff"), b"0000000000000001 0000019c1551ac40 000ff0ff");
    }
}
