//! What a simulated log is put through: options small enough that rotation, flush and merge happen all the time, and a
//! list of actions. A seed decides all of it.

use std::time::Duration;

use super::rng::Rng;
use crate::format::FlushMode;
use crate::options::Options;

/// One thing that producers, the operator or the world do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A producer hands a batch with payloads of these lengths over, and waits for room only.
    Submit { producer: u8, sizes: Vec<usize> },
    /// The reactor turns this many times.
    Turn(u64),
    /// Every producer waits until it is confirmed.
    Await,
    /// An explicit sync; `wait`: for the answer.
    Sync { wait: bool },
    /// Another flush mode; `wait`: for the answer.
    SetMode { mode: FlushMode, wait: bool },
    /// Somebody asks for the counters.
    Stats,
    /// A reader looks at the store beside the writer.
    Look,
    /// A reader goes through the store slowly, while the log goes on.
    Watch,
    /// Nobody does anything for so long.
    Idle(Duration),
    /// The machine is suspended for so long.
    Stall(Duration),
    /// The wall clock jumps by so many nanoseconds.
    StepClock(i64),
    /// The disk is full to the last block or two; room comes back after five seconds.
    FillDisk { blocks_left: u64 },
    /// The operator has everything deleted that is older than the newest so many entries.
    Vacuum { keep: u64 },
    /// A clean close, and the log is opened again.
    CloseAndOpen,
    /// The process ends without closing, its last operations done, and another one opens the log.
    ExitAndOpen,
    /// A clean close, for good.
    Close,
}

/// Options and actions of one life.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) actions: Vec<Action>,
}

const KIB: u64 = 1 << 10;

impl Plan {
    /// The first life of a store.
    pub(crate) fn first(rng: &mut Rng) -> Plan {
        let (rng_at_birth, mut apart) = (rng.clone(), rng.fork(1));
        if apart.chance(1, 12) {
            return Plan::bulk(&mut apart);
        }
        let options = Options {
            flush_mode: mode(rng),
            segment_bytes: [16, 32, 64, 64, 128][rng.below(5) as usize] * KIB,
            memtable_bytes: ([4, 8, 16, 64][rng.below(4) as usize] * KIB) as usize,
            channel_capacity: [2, 16, 1024][rng.below(3) as usize],
            compaction_threshold: 2 + rng.below(2) as usize,
            compaction_enabled: rng.chance(7, 8),
            ..Options::default()
        };
        let length = 4 + rng.below(28);
        let mut actions = actions(rng, length);
        let mut apart = rng_at_birth.fork(72);
        if apart.chance(1, 4) {
            suspend(&mut actions, &mut apart);
        }
        Plan { options, actions }
    }

    /// Batches so large that two groups are in flight at once.
    fn bulk(rng: &mut Rng) -> Plan {
        let options = Options {
            flush_mode: mode(rng),
            segment_bytes: 2048 * KIB,
            memtable_bytes: (1024 * KIB) as usize,
            ..Options::default()
        };
        let mut actions = Vec::new();
        for _ in 0..3 + rng.below(8) {
            actions.push(match rng.below(6) {
                0..4 => {
                    let count = 10 + rng.below(50);
                    let sizes = (0..count).map(|_| (4 * KIB + rng.below(14 * KIB)) as usize).collect();
                    Action::Submit { producer: rng.below(2) as u8, sizes }
                }
                4 => Action::Submit { producer: 2, sizes: vec![100] },
                _ => action(rng, 2, 0),
            });
            actions.push(Action::Turn(rng.below(4)));
        }
        Plan { options, actions }
    }

    /// A later life of the store that was born with these options; shorter.
    pub(crate) fn later(&self, rng: &mut Rng) -> Plan {
        let options = Options { flush_mode: mode(rng), ..self.options.clone() };
        let length = rng.below(8);
        Plan { options, actions: actions(rng, length) }
    }

    /// Whether a batch may extend a segment.
    pub(crate) fn has_large_batch(&self) -> bool {
        let bytes = |sizes: &[usize]| sizes.iter().map(|size| (size + 64) as u64).sum::<u64>();
        let large = |action: &Action| matches!(action, Action::Submit { sizes, .. } if bytes(sizes) > self.options.segment_bytes / 2);
        self.actions.iter().any(large)
    }

    /// Opening, and nothing else.
    pub(crate) fn idle(&self) -> Plan {
        Plan { options: Options { flush_mode: FlushMode::Cautious, ..self.options.clone() }, actions: Vec::new() }
    }
}

fn mode(rng: &mut Rng) -> FlushMode {
    [FlushMode::Normal, FlushMode::Normal, FlushMode::Cautious, FlushMode::Cautious, FlushMode::Emergency]
        [rng.below(5) as usize]
}

fn actions(rng: &mut Rng, length: u64) -> Vec<Action> {
    let producers = 1 + rng.below(4) as u8;
    // What most entries of this life are like: a run of small ones fills the 49, of large ones the segments.
    let scale = rng.below(4);
    let mut actions: Vec<Action> = (0..length).map(|_| action(rng, producers, scale)).collect();
    match rng.below(6) {
        0 => actions.push(Action::Close),
        1 | 2 => actions.push(Action::Await),
        _ => {}
    }
    actions
}

fn action(rng: &mut Rng, producers: u8, scale: u64) -> Action {
    match rng.below(40) {
        0..16 => submit(rng, producers, scale),
        16..24 => Action::Turn(1 + rng.below(8)),
        24..28 => Action::Await,
        28 => Action::Sync { wait: rng.coin() },
        29..32 => Action::SetMode { mode: mode(rng), wait: rng.coin() },
        32 => Action::Stats,
        33 => Action::Look,
        34..36 => Action::Idle(Duration::from_millis([1, 500, 950, 1200, 3000][rng.below(5) as usize])),
        36 => {
            let size = [1_000_000, 700_000_000, 5_000_000_000, 86_400_000_000_000][rng.below(4) as usize];
            Action::StepClock(if rng.coin() { size } else { -size })
        }
        37 | 38 => Action::CloseAndOpen,
        _ => Action::ExitAndOpen,
    }
}

/// Suspends the machine somewhere, with a few entries that normal mode has confirmed and not synced.
fn suspend(actions: &mut Vec<Action>, rng: &mut Rng) {
    let at = rng.below(actions.len() as u64 + 1) as usize;
    let submit = || Action::Submit { producer: 0, sizes: vec![40] };
    let stall = Action::Stall(Duration::from_millis(900 + rng.below(1000)));
    let story = [submit(), Action::Await, submit(), Action::Await, stall, Action::Turn(6)];
    actions.splice(at..at, story);
}

fn submit(rng: &mut Rng, producers: u8, scale: u64) -> Action {
    let producer = rng.below(u64::from(producers)) as u8;
    let count = match rng.below(8) {
        0..4 => 1,
        4..7 => 1 + rng.below(6),
        _ => 1 + rng.below(60),
    };
    Action::Submit { producer, sizes: (0..count).map(|_| size(rng, if count > 8 { 0 } else { scale })).collect() }
}

/// From empty to larger than a block, and now and then larger than a small segment.
fn size(rng: &mut Rng, scale: u64) -> usize {
    let max = match (scale, rng.below(64)) {
        (3, 0) => 150_000,
        (_, 0..4) => 6_000,
        (_, 4..8) => return 0,
        (0 | 1, _) => 100,
        (2, _) => 1_500,
        _ => 9_000,
    };
    rng.below(max) as usize
}
