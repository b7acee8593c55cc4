//! LSN and milliseconds as sixteen hexadecimal digits each, the bytes of the source's name if it is shown (`-`: none), then
//! the payload's bytes.

use super::{Head, Origin, put_hex_byte};

pub(super) fn encode(head: Head<'_>, payload: &[u8], out: &mut Vec<u8>) {
    head.lsn.to_be_bytes().iter().for_each(|&byte| put_hex_byte(byte, out));
    out.push(b' ');
    head.milliseconds.to_be_bytes().iter().for_each(|&byte| put_hex_byte(byte, out));
    out.push(b' ');
    match head.origin {
        Origin::Hidden => {}
        Origin::None => out.extend_from_slice(b"- "),
        Origin::Name(name) => {
            name.bytes().for_each(|byte| put_hex_byte(byte, out));
            out.push(b' ');
        }
    }
    out.reserve(2 * payload.len());
    payload.iter().for_each(|&byte| put_hex_byte(byte, out));
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
