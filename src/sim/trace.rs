//! What happened on a simulated disk, as text that is the same for the same seed.
//!
//! One line per submission (`+`), completion (`-`), read (`r`) and event (`=`). Every line is hashed; the newest
//! [`LINES_KEPT`] are kept to be read. The hash goes on over cuts and kills, so it stands for a whole history.

use std::collections::VecDeque;

/// Lines kept for reading; older ones live on in the hash only.
const LINES_KEPT: usize = 4000;

/// See the module's page.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    lines: VecDeque<String>,
    hash: u64,
}

impl Trace {
    /// A trace that goes on where the hash of an earlier one ended (0 for none).
    pub(super) fn after(hash: u64) -> Trace {
        Trace { lines: VecDeque::new(), hash: if hash == 0 { 0xCBF2_9CE4_8422_2325 } else { hash } }
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: String) {
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// FNV-1a (64 bits) over all lines.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The kept lines, each with its newline.
    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}
