//! Entries like a till's: JSON of one length, with what repeats (keys, names of terminals) and what does not (numbers,
//! codes), so that they compress as the real ones do (lz4: about 2.6).

use std::fmt::Write as _;

/// Distinct entries: together more than lz4 looks back, so that repeating them does not flatter compression.
const COUNT: usize = 8192;

/// See the module's page.
#[derive(Debug)]
pub struct Payloads {
    bytes: Vec<u8>,
    payload_bytes: usize,
}

impl Payloads {
    /// Entries of exactly `payload_bytes` each; the same ones every time.
    pub fn new(payload_bytes: usize) -> Payloads {
        let mut bytes = Vec::with_capacity(COUNT * payload_bytes);
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for number in 0..COUNT {
            let text = till_entry(number, &mut random, payload_bytes);
            bytes.extend_from_slice(&text.as_bytes()[..payload_bytes]);
        }
        Payloads { bytes, payload_bytes }
    }

    /// The entry for this number; they repeat after 8192.
    pub fn get(&self, number: usize) -> &[u8] {
        let start = number % COUNT * self.payload_bytes;
        &self.bytes[start..start + self.payload_bytes]
    }

    /// Length of each, in bytes.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }
}

/// One transaction, filled up with digits and letters of a signature to at least `bytes`.
fn till_entry(number: usize, random: &mut Random, bytes: usize) -> String {
    let (terminal, agent) = (random.below(40), random.below(12));
    let (amount, fee) = (random.below(500_000), random.below(500));
    let kind = ["cash-in", "cash-out", "payment", "airtime"][random.below(4) as usize];
    let mut text = format!(
        "{{\"txn\":\"TXN-{number:08}\",\"terminal\":\"T{terminal:04}\",\"agent\":\"AG-{agent:03}\",\"type\":\"{kind}\",\
         \"amount\":{amount},\"fee\":{fee},\"currency\":\"KES\",\"shop\":\"Duka la Njeri\",\
         \"status\":\"approved\",\"sig\":\""
    );
    while text.len() + 2 < bytes {
        let _ = write!(text, "{:x}", random.next() & 15);
    }
    text.push_str("\"}");
    text
}

/// Xorshift: a fixed sequence is all that is wanted.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
