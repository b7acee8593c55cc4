//! What the manifest and every table carry alike, as of their last LSN: gaps, checkpoints and clock steps.
//!
//! | item | layout | rule |
//! |---|---|---|
//! | gap | first (8), last (8), cause (1) | LSNs from 1 to [`NUMBER_MAX`](super::NUMBER_MAX); in LSN order, not overlapping |
//! | checkpoint | key length (2), value length (2), key, value | keys rise strictly |
//! | clock step | LSN (8), from (8), to (8) | LSN from 1 to [`NUMBER_MAX`](super::NUMBER_MAX); in LSN order |
//!
//! | checkpoint key | value | kept by |
//! |---|---|---|
//! | `source/NUMBER` (decimal) | the source's name, UTF-8 | the daemon, for each number that entries carry |
//!
//! All other keys are their owners' business. The items follow each other in this order; how many of each there are stands in front, where the owner says. The
//! owner's checksum covers them. No item is allocated for before its bytes are seen.

use std::collections::BTreeMap;

use super::bytes::{Get, Put, check_number};
use super::record::{CHECKPOINT_KEY_BYTES_MAX, CHECKPOINT_VALUE_BYTES_MAX};
use super::{ClockStep, FormatError, Gap, GapCause, Lsn};

const GAP_BYTES: usize = 17;
const CHECKPOINT_HEAD_BYTES: usize = 4;
const CLOCK_STEP_BYTES: usize = 24;

/// Positions and names of sources by key; both are opaque bytes here, but for [`source_name`].
pub(crate) type Checkpoints = BTreeMap<Vec<u8>, Vec<u8>>;

/// Gives a key its new value; an empty one removes the key.
pub(crate) fn apply(checkpoints: &mut Checkpoints, key: Vec<u8>, value: Vec<u8>) {
    match value.is_empty() {
        true => drop(checkpoints.remove(&key)),
        false => drop(checkpoints.insert(key, value)),
    }
}

/// What the key of a source's name starts with.
pub(crate) const SOURCE_KEY_PREFIX: &str = "source/";

/// The number and the name in a checkpoint, if that is what it holds. A name that is not UTF-8 is shown as well as it can.
pub(crate) fn source_name(key: &[u8], value: &[u8]) -> Option<(u16, String)> {
    let number = std::str::from_utf8(key).ok()?.strip_prefix(SOURCE_KEY_PREFIX)?.parse().ok()?;
    Some((number, String::from_utf8_lossy(value).into_owned()))
}

/// The names of sources in these checkpoints, by number.
pub(crate) fn source_names(checkpoints: &Checkpoints) -> BTreeMap<u16, String> {
    checkpoints.iter().filter_map(|(key, value)| source_name(key, value)).collect()
}

/// How many items of each kind follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) gaps: u32,
    pub(crate) checkpoints: u32,
    pub(crate) clock_steps: u32,
}

impl Counts {
    /// Of these items.
    pub(crate) fn of(gaps: &[Gap], checkpoints: &Checkpoints, clock_steps: &[ClockStep]) -> Counts {
        Counts { gaps: gaps.len() as u32, checkpoints: checkpoints.len() as u32, clock_steps: clock_steps.len() as u32 }
    }

    pub(crate) fn encode(self, put: &mut Put<'_>) {
        put.u32(self.gaps).u32(self.checkpoints).u32(self.clock_steps);
    }

    pub(crate) fn decode(get: &mut Get<'_>) -> Result<Counts, FormatError> {
        Ok(Counts { gaps: get.u32()?, checkpoints: get.u32()?, clock_steps: get.u32()? })
    }
}

/// Bytes that [`encode`] takes.
pub(crate) fn encoded_bytes(gaps: &[Gap], checkpoints: &Checkpoints, clock_steps: &[ClockStep]) -> usize {
    let pairs: usize = checkpoints.iter().map(|(key, value)| CHECKPOINT_HEAD_BYTES + key.len() + value.len()).sum();
    gaps.len() * GAP_BYTES + pairs + clock_steps.len() * CLOCK_STEP_BYTES
}

/// Writes the items.
///
/// # Panics
/// If an item breaks a rule of this page: what would be refused on reading must never be written.
pub(crate) fn encode(put: &mut Put<'_>, gaps: &[Gap], checkpoints: &Checkpoints, clock_steps: &[ClockStep]) {
    assert!(gaps_ordered(gaps) && clock_steps_ordered(clock_steps), "gaps and clock steps are in LSN order");
    for gap in gaps {
        assert_eq!(check_gap(gap), Ok(()));
        put.u64(gap.first.0).u64(gap.last.0).u8(gap.cause as u8);
    }
    for (key, value) in checkpoints {
        assert!(key.len() <= CHECKPOINT_KEY_BYTES_MAX && value.len() <= CHECKPOINT_VALUE_BYTES_MAX);
        put.u16(key.len() as u16).u16(value.len() as u16).bytes(key).bytes(value);
    }
    for step in clock_steps {
        assert_eq!(check_clock_step(step), Ok(()));
        put.u64(step.lsn.0).u64(step.from_ns).u64(step.to_ns);
    }
}

/// Reads and checks the items at the front of `get`.
pub(crate) fn decode(
    get: &mut Get<'_>,
    counts: Counts,
) -> Result<(Vec<Gap>, Checkpoints, Vec<ClockStep>), FormatError> {
    let mut gaps = Vec::new();
    for _ in 0..counts.gaps {
        let (first, last) = (Lsn(get.u64()?), Lsn(get.u64()?));
        let cause = GapCause::from_u8(get.u8()?).ok_or(FormatError::Field("gap cause"))?;
        let gap = Gap { first, last, cause };
        check_gap(&gap)?;
        gaps.push(gap);
    }
    if !gaps_ordered(&gaps) {
        return Err(FormatError::Field("gap order"));
    }
    let checkpoints = decode_checkpoints(get, counts.checkpoints)?;
    let mut clock_steps = Vec::new();
    for _ in 0..counts.clock_steps {
        let step = ClockStep { lsn: Lsn(get.u64()?), from_ns: get.u64()?, to_ns: get.u64()? };
        check_clock_step(&step)?;
        clock_steps.push(step);
    }
    if !clock_steps_ordered(&clock_steps) {
        return Err(FormatError::Field("clock step order"));
    }
    Ok((gaps, checkpoints, clock_steps))
}

fn decode_checkpoints(get: &mut Get<'_>, count: u32) -> Result<Checkpoints, FormatError> {
    let mut checkpoints = Checkpoints::new();
    for _ in 0..count {
        let (key_bytes, value_bytes) = (usize::from(get.u16()?), usize::from(get.u16()?));
        if key_bytes > CHECKPOINT_KEY_BYTES_MAX || value_bytes > CHECKPOINT_VALUE_BYTES_MAX {
            return Err(FormatError::Field("checkpoint length"));
        }
        let key = get.bytes(key_bytes)?.to_vec();
        if checkpoints.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(FormatError::Field("checkpoint order"));
        }
        checkpoints.insert(key, get.bytes(value_bytes)?.to_vec());
    }
    Ok(checkpoints)
}

fn check_gap(gap: &Gap) -> Result<(), FormatError> {
    check_number(gap.first.0, 1, "gap")?;
    check_number(gap.last.0, gap.first.0, "gap")
}

fn check_clock_step(step: &ClockStep) -> Result<(), FormatError> {
    check_number(step.lsn.0, 1, "clock step")
}

fn gaps_ordered(gaps: &[Gap]) -> bool {
    gaps.windows(2).all(|pair| pair[0].last < pair[1].first)
}

fn clock_steps_ordered(clock_steps: &[ClockStep]) -> bool {
    clock_steps.windows(2).all(|pair| pair[0].lsn <= pair[1].lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, last: u64) -> Gap {
        Gap { first: Lsn(first), last: Lsn(last), cause: GapCause::UncleanNormal }
    }

    fn encoded(gaps: &[Gap], checkpoints: &Checkpoints, clock_steps: &[ClockStep]) -> Vec<u8> {
        let mut out = vec![0; encoded_bytes(gaps, checkpoints, clock_steps)];
        let mut put = Put::new(&mut out);
        encode(&mut put, gaps, checkpoints, clock_steps);
        assert_eq!(put.len(), out.len());
        out
    }

    #[test]
    fn golden_bytes() {
        let checkpoints = Checkpoints::from([(b"till".to_vec(), vec![9, 8])]);
        let steps = [ClockStep { lsn: Lsn(5), from_ns: 6, to_ns: 7 }];
        let expected: &[(&str, &[u8])] = &[
            ("gap first", &[2, 0, 0, 0, 0, 0, 0, 0]),
            ("gap last", &[3, 0, 0, 0, 0, 0, 0, 0]),
            ("gap cause", &[1]),
            ("key length", &[4, 0]),
            ("value length", &[2, 0]),
            ("key", b"till"),
            ("value", &[9, 8]),
            ("step LSN", &[5, 0, 0, 0, 0, 0, 0, 0]),
            ("step from", &[6, 0, 0, 0, 0, 0, 0, 0]),
            ("step to", &[7, 0, 0, 0, 0, 0, 0, 0]),
        ];
        let bytes = encoded(&[gap(2, 3)], &checkpoints, &steps);
        let mut get = Get(&bytes);
        for (field, expected) in expected {
            assert_eq!(get.bytes(expected.len()), Ok(*expected), "{field}");
        }
        assert!(get.0.is_empty());
        let counts = Counts::of(&[gap(2, 3)], &checkpoints, &steps);
        assert_eq!(decode(&mut Get(&bytes), counts), Ok((vec![gap(2, 3)], checkpoints, steps.to_vec())));
        for len in 0..bytes.len() {
            assert_eq!(decode(&mut Get(&bytes[..len]), counts), Err(FormatError::Truncated));
        }
    }

    #[test]
    fn items_out_of_order_are_refused() {
        let none = Checkpoints::new();
        let mut gaps = encoded(&[gap(2, 3), gap(4, 4)], &none, &[]);
        gaps[17] = 3;
        let counts = Counts { gaps: 2, ..Counts::default() };
        assert_eq!(decode(&mut Get(&gaps), counts), Err(FormatError::Field("gap order")));

        let pairs = Checkpoints::from([(b"a".to_vec(), vec![]), (b"b".to_vec(), vec![])]);
        let mut pairs = encoded(&[], &pairs, &[]);
        pairs[9] = b'a';
        let counts = Counts { checkpoints: 2, ..Counts::default() };
        assert_eq!(decode(&mut Get(&pairs), counts), Err(FormatError::Field("checkpoint order")));

        let step = |lsn| ClockStep { lsn: Lsn(lsn), from_ns: 0, to_ns: 1 };
        let mut steps = encoded(&[], &none, &[step(5), step(6)]);
        steps[24] = 4;
        let counts = Counts { clock_steps: 2, ..Counts::default() };
        assert_eq!(decode(&mut Get(&steps), counts), Err(FormatError::Field("clock step order")));
    }

    #[test]
    fn a_huge_count_ends_with_the_bytes() {
        let counts = Counts { gaps: u32::MAX, checkpoints: u32::MAX, clock_steps: u32::MAX };
        assert_eq!(decode(&mut Get(&[]), counts), Err(FormatError::Truncated));
    }
}
