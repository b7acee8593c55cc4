//! How a life ends: a power cut, or a kill of the process. Both leave the old machine as it was (without power), so
//! that one stopped machine can be cut again and again, in every way there is.
//!
//! A cut decides over *units*: each volatile sector or block of each file, the length of a file that grew, and the
//! changes of names. Where there are few, every combination has an index; where there are many, seeds sample them.

use std::collections::BTreeMap;
use std::fmt;

use super::disk::SimDisk;
use super::env::SimEnv;
use super::image::Grain;
use super::media::Media;
use super::names::NameCut;
use super::rng::Rng;
use super::state::State;
use super::trace::Trace;
use crate::io::Env;

/// Most units whose combinations are walked one by one.
const UNITS_ENUMERATED_MAX: u64 = 10;
/// Most combinations that are walked one by one; several writes to one unit make more than two outcomes of it.
const VARIANTS_ENUMERATED_MAX: u64 = 1 << UNITS_ENUMERATED_MAX;

/// What survives a power cut besides what is durable. `Display` and the fields name it completely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CutChoice {
    /// Nothing.
    DropAll,
    /// Everything, also what was in flight.
    KeepAll,
    /// Combination number `index`, below [`SimDisk::cut_count`].
    Variant { grain: Grain, names: NameCut, index: u64 },
    /// A combination drawn by `seed`: of each file none, few, half, most or all units.
    Sampled { grain: Grain, names: NameCut, seed: u64 },
}

impl fmt::Display for CutChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutChoice::DropAll => f.write_str("drop-all"),
            CutChoice::KeepAll => f.write_str("keep-all"),
            CutChoice::Variant { grain, names, index } => write!(f, "variant {grain:?} {names:?} {index}"),
            CutChoice::Sampled { grain, names, seed } => write!(f, "sampled {grain:?} {names:?} {seed}"),
        }
    }
}

/// Answers, unit by unit, what becomes of it: 0 is lost, `outcomes - 1` as readers saw it.
enum Chooser {
    Lose,
    Keep,
    /// Mixed-radix digits of a combination's number.
    Digits(u64),
    /// `eighths` of the units of the current file survive.
    Chance {
        rng: Rng,
        eighths: u64,
    },
    /// Loses everything and counts the units and their combinations.
    Count {
        units: u64,
        combinations: u64,
    },
}

impl Chooser {
    /// The next units belong to another file, or to the names.
    fn next_file(&mut self) {
        if let Chooser::Chance { rng, eighths } = self {
            *eighths = [0, 1, 4, 7, 8][rng.below(5) as usize];
        }
    }

    fn choose(&mut self, outcomes: u64) -> u64 {
        match self {
            Chooser::Lose => 0,
            Chooser::Keep => outcomes - 1,
            Chooser::Digits(rest) => {
                let digit = *rest % outcomes;
                *rest /= outcomes;
                digit
            }
            Chooser::Chance { rng, eighths } => {
                if rng.chance(*eighths, 8) {
                    1 + rng.below(outcomes - 1)
                } else {
                    0
                }
            }
            Chooser::Count { units, combinations } => {
                *units += 1;
                *combinations = combinations.saturating_mul(outcomes);
                0
            }
        }
    }
}

/// Walks all units, in an order that the disk alone decides, and puts together what the chooser lets survive.
fn survivors(media: &Media, grain: Grain, names: NameCut, chooser: &mut Chooser) -> Media {
    let (_, after_cut) = media.names.reachable();
    chooser.next_file();
    let tree = media.names.survive(names, &mut |outcomes| chooser.choose(outcomes));
    let mut contents = BTreeMap::new();
    // A file that no cut can bring back has no say in how many combinations there are.
    for (&ino, file) in media.files.iter().filter(|(ino, _)| after_cut.contains(ino)) {
        chooser.next_file();
        contents.insert(ino, file.survive(grain, &mut |outcomes| chooser.choose(outcomes)));
    }
    media.after_cut(contents, tree)
}

/// Number of combinations, if they are few enough to walk.
fn combinations(media: &Media, grain: Grain, names: NameCut) -> Option<u64> {
    let mut count = Chooser::Count { units: 0, combinations: 1 };
    survivors(media, grain, names, &mut count);
    match count {
        Chooser::Count { units, combinations } => {
            (units <= UNITS_ENUMERATED_MAX && combinations <= VARIANTS_ENUMERATED_MAX).then_some(combinations)
        }
        _ => unreachable!("a chooser does not change its kind"),
    }
}

impl SimDisk {
    /// Cuts the power (if it is still there) and boots again on what `choice` lets survive. Monotonic time starts at 0,
    /// wall time goes on; faults are gone; space limit and sync method stay. The result depends on this machine's
    /// history and `choice` alone, not on earlier cuts of it.
    pub(crate) fn cut(&self, choice: CutChoice) -> SimDisk {
        let mut state = self.state();
        state.power_off();
        let (grain, names, mut chooser) = match choice {
            CutChoice::DropAll => (Grain::Block, NameCut::Ordered, Chooser::Lose),
            CutChoice::KeepAll => (Grain::Block, NameCut::Ordered, Chooser::Keep),
            CutChoice::Variant { grain, names, index } => (grain, names, Chooser::Digits(index)),
            CutChoice::Sampled { grain, names, seed } => {
                (grain, names, Chooser::Chance { rng: state.rng.fork(seed), eighths: 0 })
            }
        };
        let media = survivors(&state.with_flights(), grain, names, &mut chooser);
        assert!(!matches!(chooser, Chooser::Digits(rest) if rest != 0), "there is no {choice} of this cut");
        next_life(&state, media, 0, &format!("cut {choice}"))
    }

    /// Number of different combinations of surviving units, if there are at most 10 units and 1024 combinations.
    pub(crate) fn cut_count(&self, grain: Grain, names: NameCut) -> Option<u64> {
        combinations(&self.state().with_flights(), grain, names)
    }

    /// The cuts to try at this point: every combination where they can be counted; else nothing, everything, and
    /// `samples` seeded ones.
    pub(crate) fn cut_variants(&self, grain: Grain, names: NameCut, samples: u64) -> impl Iterator<Item = CutChoice> {
        let counted = self.cut_count(grain, names);
        let every = (0..counted.unwrap_or(0)).map(move |index| CutChoice::Variant { grain, names, index });
        let ends = counted.is_none().then_some([CutChoice::DropAll, CutChoice::KeepAll]);
        let drawn = 0..if counted.is_none() { samples } else { 0 };
        let drawn = drawn.map(move |seed| CutChoice::Sampled { grain, names, seed });
        every.chain(ends.into_iter().flatten()).chain(drawn)
    }

    /// Kills the process, not the machine: each operation in flight happens or not, by `seed`; what was volatile stays
    /// visible and volatile, what a failed sync left behind stays beyond repair. Both clocks go on; faults are gone.
    /// The old handles behave as after a cut.
    pub(crate) fn kill(&self, seed: u64) -> SimDisk {
        let mut state = self.state();
        state.power_off();
        let mut media = state.with_flights_resolved(&mut state.rng.fork(seed));
        media.forget_handles();
        let mono_ns = state.env.mono_ns();
        next_life(&state, media, mono_ns, &format!("kill {seed}"))
    }

    /// A machine of its own with a copy of what readers see, as `cp -r` would make: all of it durable, nothing pending.
    pub(crate) fn copy_tree(&self) -> SimDisk {
        let state = self.state();
        let media = state.media.copied();
        next_life(&state, media, 0, "copy")
    }
}

fn next_life(state: &State, media: Media, mono_ns: u64, how: &str) -> SimDisk {
    let rng = state.rng.fork(u64::from(crc32fast::hash(how.as_bytes())));
    let env = SimEnv::new(state.env.wall_ns(), mono_ns, rng.fork(1));
    let mut trace = Trace::after(state.trace.hash());
    trace.line(format!("= {how}"));
    SimDisk::running(State::boot(media, rng, env, trace))
}
