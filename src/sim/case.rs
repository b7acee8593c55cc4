//! The ends of a workload that the campaign tries, each named by a line of text.
//!
//! | end | what happens | then |
//! |---|---|---|
//! | `cut n …` | the power fails at mutating operation `n` | a boot on what the choice lets survive |
//! | `kill n s` | the process is killed there | a start on the same machine, cut later |
//! | `fault … n` | the `n`-th of a class fails; the log latches or goes on | a cut or a kill |
//! | `full n b` | `b` blocks are left before action `n`, for five seconds | an end, and a start on the full disk |
//! | `recovering n … m` | the power fails at `n`; in the life after it the `m`-th of a class fails | an end, and a start without |
//! | `opening n … m` | the same, and the `m`-th fails while the log opens; an I/O error lasts until it gives up | as above |
//! | `rot s` | one bit of a log at rest is wrong | it is reported, or it does not matter |
//!
//! What fails, and how, is one of [`FAULTS`]. A bit that is wrong in what one read returns, and right the next time, is
//! the one that nobody may notice: the log neither stops nor speaks of damage.

use std::fmt;

use super::{CutChoice, FaultKind, Grain, NameCut, OpClass};

/// How the first life of a workload ends. `Display` names it completely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    Cut { at: u64, choice: CutChoice },
    Kill { at: u64, seed: u64 },
    Fault { kind: FaultKind, class: OpClass, at: u64 },
    Full { before: u64, blocks_left: u64 },
    Recovering { at: u64, kind: FaultKind, class: OpClass, nth: u64 },
    Opening { at: u64, kind: FaultKind, class: OpClass, nth: u64 },
    Rot { seed: u64 },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Cut { at, choice } => write!(f, "cut {at} {choice}"),
            Case::Kill { at, seed } => write!(f, "kill {at} {seed}"),
            Case::Fault { kind, class, at } => write!(f, "fault {kind:?} {class:?} {at}"),
            Case::Full { before, blocks_left } => write!(f, "full {before} {blocks_left}"),
            Case::Recovering { at, kind, class, nth } => write!(f, "recovering {at} {kind:?} {class:?} {nth}"),
            Case::Opening { at, kind, class, nth } => write!(f, "opening {at} {kind:?} {class:?} {nth}"),
            Case::Rot { seed } => write!(f, "rot {seed}"),
        }
    }
}

impl Case {
    /// Reads what `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Case> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().ok();
        Some(match words[..] {
            ["cut", at, "drop-all"] => Case::Cut { at: number(at)?, choice: CutChoice::DropAll },
            ["cut", at, "keep-all"] => Case::Cut { at: number(at)?, choice: CutChoice::KeepAll },
            ["cut", at, how, grain, names, which] => {
                let grain = [Grain::Sector, Grain::Block].into_iter().find(|one| format!("{one:?}") == grain)?;
                let names = [NameCut::Ordered, NameCut::Any].into_iter().find(|one| format!("{one:?}") == names)?;
                let which = number(which)?;
                let choice = match how {
                    "variant" => CutChoice::Variant { grain, names, index: which },
                    "sampled" => CutChoice::Sampled { grain, names, seed: which },
                    _ => return None,
                };
                Case::Cut { at: number(at)?, choice }
            }
            ["kill", at, seed] => Case::Kill { at: number(at)?, seed: number(seed)? },
            ["fault", kind, class, at] => {
                let (kind, class) = fault(kind, class)?;
                Case::Fault { kind, class, at: number(at)? }
            }
            ["recovering", at, kind, class, nth] => {
                let (kind, class) = fault(kind, class)?;
                Case::Recovering { at: number(at)?, kind, class, nth: number(nth)? }
            }
            ["opening", at, kind, class, nth] => {
                let (kind, class) = fault(kind, class)?;
                Case::Opening { at: number(at)?, kind, class, nth: number(nth)? }
            }
            ["rot", seed] => Case::Rot { seed: number(seed)? },
            ["full", before, blocks] => Case::Full { before: number(before)?, blocks_left: number(blocks)? },
            _ => return None,
        })
    }
}

/// What is planted at the n-th operation of a class.
pub(crate) const FAULTS: [(FaultKind, OpClass); 12] = [
    (FaultKind::Eio, OpClass::Mutating),
    (FaultKind::Eio, OpClass::Sync),
    (FaultKind::Eio, OpClass::Write),
    (FaultKind::ShortWrite, OpClass::Write),
    (FaultKind::NoSpace, OpClass::Mutating),
    (FaultKind::Eio, OpClass::SyncDir),
    (FaultKind::Eio, OpClass::Read),
    (FaultKind::Eio, OpClass::Lookup),
    (FaultKind::Interrupted, OpClass::Mutating),
    (FaultKind::Interrupted, OpClass::Read),
    (FaultKind::Interrupted, OpClass::Lookup),
    (FaultKind::FlipBit, OpClass::Read),
];

fn fault(kind: &str, class: &str) -> Option<(FaultKind, OpClass)> {
    FAULTS.into_iter().find(|(one, other)| format!("{one:?}") == kind && format!("{other:?}") == class)
}
