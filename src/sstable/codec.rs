//! Compressing and decompressing the entries of a block.
//!
//! - What a codec yields is decompressed again and compared before it is used: the log behind a table is released once the
//!   table is written, so a codec's mistake would cost entries. Where the two differ, or compression saves nothing, the
//!   block is stored plain.
//! - Decompression writes into a buffer of the length that the block's header promises, never more; a frame that asks for
//!   more memory is damaged.
//!
//! Proof: the tests of [`super`], and those below.

use std::cell::RefCell;

use structured_zstd::decoding::FrameDecoder;
use structured_zstd::encoding::{CompressionLevel, FrameCompressor};

use crate::format::FormatError;
use crate::format::table::{BLOCK_RAW_BYTES_MAX, Codec};

/// Speed of LZ4, half its size; higher levels gain little on blocks of 64 KiB.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// Each packing thread's own: a compressor cannot move between threads, a table that is being built does.
    static ZSTD: RefCell<FrameCompressor> =
        RefCell::new(FrameCompressor::new(CompressionLevel::from_level(ZSTD_LEVEL)));
}

/// Compresses blocks; its memory is used again for the next.
pub(super) struct Compressor {
    codec: Codec,
    decompressor: Decompressor,
    /// A frame, then what was decompressed to be compared.
    check: Vec<u8>,
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> Compressor {
        Compressor { codec, decompressor: Decompressor::default(), check: Vec::new() }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends `raw` to `out` through the codec, or as it is; returns which.
    pub(super) fn append(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        match self.codec {
            Codec::None => {}
            Codec::Lz4 => {
                out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                let stored = lz4_flex::block::compress_into(raw, &mut out[start..])
                    .expect("the output has the size that compression asks for");
                out.truncate(start + stored);
            }
            Codec::Zstd => ZSTD.with_borrow_mut(|zstd| {
                // It replaces what its output holds.
                let mut frame = std::mem::take(&mut self.check);
                zstd.compress_independent_frame_into(raw, &mut frame);
                out.extend_from_slice(&frame);
                self.check = frame;
            }),
        }
        if self.codec != Codec::None && out.len() - start < raw.len() && self.yields(&out[start..], raw) {
            return self.codec;
        }
        out.truncate(start);
        out.extend_from_slice(raw);
        Codec::None
    }

    fn yields(&mut self, stored: &[u8], raw: &[u8]) -> bool {
        let outcome = self.decompressor.decompress(self.codec, stored, raw.len(), &mut self.check);
        let is_right = outcome.is_ok() && self.check == raw;
        if !is_right {
            tracing::error!(
                "a block does not survive compression with {:?} and is stored plain; this is a bug",
                self.codec
            );
        }
        is_right
    }
}

/// Decompresses blocks; its memory is used again for the next.
#[derive(Default)]
pub(super) struct Decompressor {
    zstd: Option<Box<FrameDecoder>>,
}

impl Decompressor {
    /// Fills `out` with the `raw_bytes` that `stored` must hold.
    pub(super) fn decompress(
        &mut self,
        codec: Codec,
        stored: &[u8],
        raw_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        out.resize(raw_bytes, 0);
        let invalid = || FormatError::Field("compressed data");
        let found = match codec {
            Codec::None => {
                out.copy_from_slice(stored.get(..raw_bytes).ok_or(FormatError::Truncated)?);
                stored.len()
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, out).map_err(|_| invalid())?,
            Codec::Zstd => {
                let zstd = self.zstd.get_or_insert_with(|| Box::new(decoder()));
                zstd.decode_all(stored, out).map_err(|_| invalid())?
            }
        };
        match found == raw_bytes {
            true => Ok(()),
            false => Err(FormatError::Field("raw length")),
        }
    }
}

fn decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::new();
    let window_bytes_max = BLOCK_RAW_BYTES_MAX.next_power_of_two() as u64;
    decoder.set_max_window_size(window_bytes_max).expect("a window of 2 MiB is within what the format allows");
    decoder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::tests::noise;

    fn round_trip(codec: Codec, raw: &[u8]) -> Codec {
        let mut out = b"before".to_vec();
        let used = Compressor::new(codec).append(raw, &mut out);
        assert_eq!(&out[..6], b"before");
        let mut found = Vec::new();
        Decompressor::default().decompress(used, &out[6..], raw.len(), &mut found).unwrap();
        assert_eq!(found, raw);
        used
    }

    #[test]
    fn text_is_compressed_and_noise_is_stored_plain() {
        let text = b"{\"txn\":\"TXN-001\",\"amount\":5000}".repeat(2000);
        let noise = noise(7, 60_000);
        for codec in [Codec::Lz4, Codec::Zstd] {
            assert_eq!(round_trip(codec, &text), codec);
            assert_eq!(round_trip(codec, &noise), Codec::None);
        }
        assert_eq!(round_trip(Codec::None, &text), Codec::None);
        assert_eq!(round_trip(Codec::Zstd, &vec![0; BLOCK_RAW_BYTES_MAX]), Codec::Zstd);
    }

    /// A compressor's memory of one block must not leak into the next: each is read alone.
    #[test]
    fn blocks_do_not_depend_on_each_other() {
        let text = b"{\"txn\":\"TXN-001\",\"amount\":5000}".repeat(2000);
        let mut compressor = Compressor::new(Codec::Zstd);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        compressor.append(&text, &mut first);
        compressor.append(&text, &mut second);
        assert_eq!(first, second);
    }

    #[test]
    fn damaged_frames_of_every_kind_are_errors() {
        let text = b"{\"txn\":\"TXN-001\",\"amount\":5000}".repeat(50);
        for codec in [Codec::Lz4, Codec::Zstd] {
            let mut stored = Vec::new();
            assert_eq!(Compressor::new(codec).append(&text, &mut stored), codec);
            let mut out = Vec::new();
            let mut decompressor = Decompressor::default();
            for cut in 0..stored.len() {
                assert!(decompressor.decompress(codec, &stored[..cut], text.len(), &mut out).is_err());
            }
            for (at, bit) in (0..stored.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut flipped = stored.clone();
                flipped[at] ^= 1 << bit;
                // It may decode to something else: the block's CRC is what tells. It must not panic or ask for more.
                let _ = decompressor.decompress(codec, &flipped, text.len(), &mut out);
                assert!(out.capacity() < 10 * text.len());
            }
            assert!(decompressor.decompress(codec, &stored, text.len() - 1, &mut out).is_err(), "too long");
            assert!(decompressor.decompress(codec, &stored, text.len() + 1, &mut out).is_err(), "too short");
            assert!(decompressor.decompress(codec, &stored, text.len(), &mut out).is_ok(), "an error leaves no trace");
        }
    }
}
