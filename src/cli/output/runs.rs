//! Text copied in runs, stopping at the characters that must not be copied as they are.
//!
//! Most text needs no closer look, and a query is as fast as this loop: chunks are first asked whether they hold anything
//! but plain ASCII, which the compiler turns into a few wide instructions.

/// Bytes asked at once.
const CHUNK_BYTES: usize = 32;

/// Which bytes of valid UTF-8 need a closer look: ASCII controls, the lead bytes of every character that
/// [`harms_terminal`] names, and up to two more ASCII characters of the format's own.
pub(super) struct Attention {
    table: [bool; 256],
    own: [u8; 2],
}

impl Attention {
    pub(super) const fn new(own: [u8; 2]) -> Attention {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 0x20 {
            table[byte] = true;
            byte += 1;
        }
        table[0x7F] = true;
        table[0xC2] = true;
        table[0xD8] = true;
        table[0xE2] = true;
        table[own[0] as usize] = true;
        table[own[1] as usize] = true;
        Attention { table, own }
    }

    fn marks(&self, byte: u8) -> bool {
        self.table[usize::from(byte)]
    }

    /// Whether all of these are printable ASCII and none of the format's own. A character above 127 says no: it may be one
    /// to look at.
    fn are_plain(&self, chunk: &[u8; CHUNK_BYTES]) -> bool {
        let [first, second] = self.own;
        // Without a branch for each byte.
        let look = |byte: u8| !is_printable_ascii(byte) | (byte == first) | (byte == second);
        !chunk.iter().fold(false, |found, &byte| found | look(byte))
    }
}

fn is_printable_ascii(byte: u8) -> bool {
    byte.wrapping_sub(0x20) < 0x5F
}

/// Whether text is printable ASCII throughout.
pub(super) fn are_printable_ascii(text: &[u8]) -> bool {
    text.iter().fold(true, |all, &byte| all & is_printable_ascii(byte))
}

/// Controls (C0, DEL, C1), bidirectional controls, and the line and paragraph separators.
pub(super) fn harms_terminal(character: char) -> bool {
    matches!(character,
        '\0'..='\x1F' | '\x7F'..='\u{9F}' | '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Copies `text` to `out`, calling `special` for each character whose first byte is marked in `attention`, together with
/// the rest of the text behind it.
pub(super) fn copy_in_runs(
    text: &str,
    attention: &Attention,
    out: &mut Vec<u8>,
    special: impl Fn(char, &str, &mut Vec<u8>),
) {
    let bytes = text.as_bytes();
    // Everything up to `copied` is in `out`, and everything up to `at` was looked at.
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].first_chunk().is_some_and(|chunk| attention.are_plain(chunk)) {
            at += CHUNK_BYTES;
            continue;
        }
        let end = bytes.len().min(at + CHUNK_BYTES);
        while let Some(run) = bytes.get(at..end).and_then(|rest| rest.iter().position(|&byte| attention.marks(byte))) {
            at += run;
            out.extend_from_slice(&bytes[copied..at]);
            // A marked byte is ASCII or begins a character, so this is where one begins.
            let mut behind = text[at..].chars();
            if let Some(character) = behind.next() {
                special(character, behind.as_str(), out);
            }
            at = text.len() - behind.as_str().len();
            copied = at;
        }
        at = at.max(end);
    }
    out.extend_from_slice(&bytes[copied..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ATTENTION: Attention = Attention::new(*b"\"\\");

    #[test]
    fn the_attention_table_misses_no_harmful_character() {
        for character in (0..=0x10FFFF).filter_map(char::from_u32).filter(|&character| harms_terminal(character)) {
            let lead = character.to_string().as_bytes()[0];
            assert!(ATTENTION.marks(lead), "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn a_chunk_is_judged_as_its_bytes_are(
            at in 0..CHUNK_BYTES,
            byte in prop_oneof![any::<u8>(), 0x1E_u8..0x24, 0x5B_u8..0x5E, 0x7D_u8..0x82],
        ) {
            let mut chunk = [b'a'; CHUNK_BYTES];
            prop_assert!(ATTENTION.are_plain(&chunk));
            chunk[at] = byte;
            prop_assert_eq!(ATTENTION.are_plain(&chunk), byte.is_ascii() && !ATTENTION.marks(byte));
        }

        #[test]
        fn runs_are_copied_and_the_rest_is_handed_over(text in prop_oneof![
            any::<String>(),
            "[a-z\"\\\\\u{1}é€\u{202e}ÿ]{0,100}",
            "[a-z]{20,50}[é€\u{202e}\"][a-z]{20,70}",
        ]) {
            let mut out = Vec::new();
            copy_in_runs(&text, &ATTENTION, &mut out, |character, behind, out| {
                assert!(text.ends_with(behind));
                out.extend_from_slice(format!("<{character}>").as_bytes());
            });
            let mut expected = String::new();
            for character in text.chars() {
                match ATTENTION.marks(character.to_string().as_bytes()[0]) {
                    true => expected.push_str(&format!("<{character}>")),
                    false => expected.push(character),
                }
            }
            prop_assert_eq!(out, expected.into_bytes());
        }
    }
}
