//! Proof of the codecs: one battery for all of them, and golden bytes for each.
//!
//! The battery knows a codec by two functions: decode-and-encode-again, and "make the checksums fit these bytes". With
//! the second one it gets behind the checksums, to the rules of the fields: bytes are either refused, or they are the
//! one encoding of what they decode to. A reserved byte that nobody looks at, a flag that is merely "not zero", a
//! padding that may hold anything: each of them would be accepted and come out different.
//!
//! Everything is seeded: two runs see the same bytes.

mod bytes;
mod entry;
mod group;
mod manifest;
mod record;
mod segment;

use proptest::test_runner::{Config, RngSeed};

use super::FormatError;

const SEED: u64 = 0x4B49_4641;

/// Few cases, the same ones in every run.
fn config() -> Config {
    Config { cases: 64, rng_seed: RngSeed::Fixed(SEED), failure_persistence: None, ..Config::default() }
}

/// CRC-32 written out bit by bit, so that the codecs' own is not proven by itself.
fn crc32(pieces: &[&[u8]]) -> u32 {
    !pieces.iter().copied().flatten().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

/// Puts a little-endian number at `at`.
fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// As [`put_u16`].
fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// As [`put_u16`].
fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Compares field by field, so that a failure names the field; returns the golden bytes as one piece.
fn assert_golden(encoded: &[u8], fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut rest = encoded;
    for (name, expected) in fields {
        let (field, tail) = rest.split_at_checked(expected.len()).expect("the encoding is as long as the golden bytes");
        assert_eq!(field, *expected, "{name}");
        rest = tail;
    }
    assert!(rest.is_empty(), "{} bytes behind the golden ones", rest.len());
    fields.iter().flat_map(|(_, bytes)| *bytes).copied().collect()
}

/// Decodes the record at the start of the bytes and encodes it again.
type Again = dyn Fn(&[u8]) -> Result<Vec<u8>, FormatError>;
/// Changes a record.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

/// A codec as the battery sees it.
struct Codec<'a> {
    again: &'a Again,
    /// Makes the checksums fit, as far as there are bytes to do so.
    reseal: &'a dyn Fn(&mut [u8]),
}

impl Codec<'_> {
    /// Everything that must hold of one encoded record. `sealed` is how many of its bytes lie under a checksum or are
    /// one (what follows is padding), `opaque_bits_min` how many single bits at least may be changed for another record
    /// that is as good: it proves that the battery got behind the checksums.
    fn prove(&self, record: &[u8], sealed: usize, opaque_bits_min: usize) {
        assert_eq!((self.again)(record).as_deref(), Ok(record), "the record itself");
        for len in 0..record.len() {
            assert!((self.again)(&record[..len]).is_err(), "cut to {len} bytes");
        }
        let mut accepted = 0;
        for bit in 0..record.len() * 8 {
            let mut flipped = record.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!((self.again)(&flipped).is_err(), "bit {} of byte {} flipped", bit % 8, bit / 8);
            if bit < sealed * 8 {
                (self.reseal)(&mut flipped);
                accepted += usize::from(self.refuses_or_gives_back(&flipped) && flipped != record);
            }
        }
        assert!(accepted >= opaque_bits_min, "only {accepted} flips were accepted under a checksum that fits");
        self.prove_noise(record);
    }

    /// Arbitrary bytes and mutations of the record, with checksums as they fall and made to fit.
    fn prove_noise(&self, record: &[u8]) {
        let mut random = Random(SEED);
        for _ in 0..3000 {
            let mut bytes = record.to_vec();
            if random.below(8) == 0 {
                bytes = (0..random.below(2 * record.len())).map(|_| random.next() as u8).collect();
            }
            for _ in 0..random.below(4) {
                random.mutate(&mut bytes);
            }
            self.refuses_or_gives_back(&bytes);
            (self.reseal)(&mut bytes);
            self.refuses_or_gives_back(&bytes);
        }
    }

    /// Whether the bytes are accepted; if they are, they must be the one encoding of what they say.
    fn refuses_or_gives_back(&self, bytes: &[u8]) -> bool {
        match (self.again)(bytes) {
            Ok(again) => {
                assert!(bytes.starts_with(&again), "accepted, but encoded differently: {bytes:02x?}");
                true
            }
            Err(_) => false,
        }
    }

    /// Each change makes a record that is refused for the reason given, although its checksums fit.
    fn refuses(&self, record: &[u8], changes: &[(&'static str, Change<'_>)]) {
        for (index, (field, change)) in changes.iter().enumerate() {
            let mut bytes = record.to_vec();
            change(&mut bytes);
            (self.reseal)(&mut bytes);
            assert_eq!((self.again)(&bytes), Err(FormatError::Field(field)), "change {index}");
        }
    }

    /// Each change makes another good record.
    fn accepts(&self, record: &[u8], changes: &[Change<'_>]) {
        for (index, change) in changes.iter().enumerate() {
            let mut bytes = record.to_vec();
            change(&mut bytes);
            (self.reseal)(&mut bytes);
            assert_eq!((self.again)(&bytes).as_deref(), Ok(&*bytes), "change {index}");
        }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// 0 to `end`, without `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Does to the bytes what decoders stumble over: extreme integers, swapped and repeated pieces, another length.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        if len == 0 {
            return bytes.push(self.next() as u8);
        }
        let at = self.below(len);
        match self.below(5) {
            0 => bytes[at] = self.next() as u8,
            1 => {
                let extreme = [0, 0xFF, 0x7F, 0x80, 1][self.below(5)];
                let end = len.min(at + [1, 2, 4, 8][self.below(4)]);
                bytes[at..end].fill(extreme);
            }
            2 => bytes.truncate(at),
            3 => bytes.resize(len + at.min(64), self.next() as u8),
            _ => bytes.copy_within(at..len.min(at + 8), self.below(at + 1)),
        }
    }
}
