//! What a power cut leaves besides what is durable. It decides over *units*: each volatile sector or block of each file,
//! a truncation, the length, and the changes of names. The same history and the same choice leave the same bytes.

use std::fmt;
use std::io;

use crate::content::Grain;
use crate::names::NameCut;
use crate::rng::Rng;
use crate::volume::{Kind, Volume};

/// What survives a power cut besides what is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// A combination drawn by `seed`: of each file, and of the names, none, few, half, most or all units.
    Sampled {
        /// What survives or is lost together.
        grain: Grain,
        /// The order of names.
        names: NameCut,
        /// Decides.
        seed: u64,
    },
    /// For each cut one of the others, drawn by `seed` and the number of the cut.
    Mixed {
        /// Decides.
        seed: u64,
    },
}

impl fmt::Display for Survivors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Survivors::None => f.write_str("none"),
            Survivors::All => f.write_str("all"),
            Survivors::Sampled { grain, names, seed } => write!(f, "sampled {grain:?} {names:?} {seed}"),
            Survivors::Mixed { seed } => write!(f, "mixed {seed}"),
        }
    }
}

impl Survivors {
    /// What this comes to for the cut of this number: never `Mixed`.
    pub(crate) fn drawn_for(self, cut: u64) -> Survivors {
        let Survivors::Mixed { seed } = self else { return self };
        let mut rng = Rng::new(seed).fork(cut);
        let grain = if rng.coin() { Grain::Sector } else { Grain::Block };
        let names = if rng.coin() { NameCut::Ordered } else { NameCut::Any };
        match rng.below(8) {
            0 | 1 => Survivors::None,
            2 => Survivors::All,
            _ => Survivors::Sampled { grain, names, seed: rng.next_u64() },
        }
    }
}

/// Answers, unit by unit, what becomes of it: 0 is lost, `outcomes - 1` as programs saw it.
enum Chooser {
    Lose,
    Keep,
    /// `eighths` of the units of the current file survive.
    Chance {
        rng: Rng,
        eighths: u64,
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
            Chooser::Chance { rng, eighths } => {
                if rng.chance(*eighths, 8) {
                    1 + rng.below(outcomes - 1)
                } else {
                    0
                }
            }
        }
    }
}

impl Volume {
    /// Brings the backing directory to what the cut leaves.
    pub(crate) fn survive(&self, survivors: Survivors) -> io::Result<()> {
        let (grain, order, mut chooser) = match survivors {
            Survivors::None => (Grain::Block, NameCut::Ordered, Chooser::Lose),
            Survivors::All => (Grain::Block, NameCut::Ordered, Chooser::Keep),
            Survivors::Sampled { grain, names, seed } => {
                (grain, names, Chooser::Chance { rng: Rng::new(seed), eighths: 0 })
            }
            Survivors::Mixed { .. } => unreachable!("the draw is made before the cut"),
        };
        chooser.next_file();
        for step in self.names.survive(order, &mut |outcomes| chooser.choose(outcomes)) {
            self.carry_out(&step)?;
        }
        for node in self.nodes.values() {
            if let Kind::File(content) = &node.kind {
                chooser.next_file();
                content.survive(grain, &mut |outcomes| chooser.choose(outcomes))?;
            }
        }
        Ok(())
    }
}
