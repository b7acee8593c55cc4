//! A machine that loses power, tears writes and fails on command, the same way for the same seed: the ground for every
//! test of durability. Tests and the feature `sim` only.
//!
//! ```text
//! let disk = SimDisk::new(seed);
//! disk.power_off_at(n);                      // 1 ..= disk.ops_total() of a run without it
//! run(disk.backend(), disk.vfs(), disk.env());
//! for choice in disk.cut_variants(Grain::Sector, NameCut::Ordered, 8) {
//!     let next = disk.cut(choice);           // another machine; `disk` stays as it was
//!     recover(next.backend(), next.vfs(), next.env());
//! }
//! ```
//!
//! # The model
//! - **Writes** become visible when they complete (some sectors perhaps before) and durable by a sync. `Own` makes its
//!   write durable and no other; `File` and `SyncData` every write whose completion was polled before they were
//!   submitted. Whether a write that completed in between is covered is left to the seed.
//! - **Names** are durable when their directory was synced, whatever became of the file's data; see [`names`].
//! - **A failed sync** cannot be repaired: later ones succeed and pass over what it should have covered; see [`image`].
//! - **Operations** take effect when they complete, in an order the seed chooses, and only inside a poll.
//! - **A power cut** keeps what is durable and, of everything else, also of what was in flight, any part; see [`cut`].
//!   Two writes to one unit: either may be what is found, or what was durable before. The length of a file may survive
//!   without its bytes. The default order of names is a journal's ([`NameCut::Ordered`]: a prefix per directory);
//!   [`NameCut::Any`] is harsher than any file system we know.
//! - **A kill** of the process keeps all that is visible, and it stays as volatile as it was.
//! - **Faults** are planted by number and class; see [`fault`].
//! - **Time** moves when a poll waits and an operation completes. A poll never blocks: with nothing in flight it lets
//!   its timeout pass on the virtual clocks and returns; with no timeout it returns at once. Without power whatever is or
//!   was in flight fails at the next poll, its buffer gone, and nothing more reaches the disk: the engine stops by itself.
//!
//! What it does not do: links of any kind (outside ones are a number), removal of directories, truncation, and two
//! writers at once beyond what the seed shuffles.
//!
//! Proof: `tests`, one test per rule.

pub(crate) mod campaign;
mod case;
pub(crate) mod cut;
pub(crate) mod disk;
pub(crate) mod driver;
pub(crate) mod env;
pub(crate) mod fault;
pub(crate) mod image;
mod media;
pub(crate) mod names;
pub(crate) mod oracle;
mod refusal;
pub(crate) mod report;
mod retention;
pub(crate) mod rng;
mod rule;
mod state;
#[cfg(test)]
mod tests;
mod trace;
pub(crate) mod workload;

pub(crate) use cut::CutChoice;
pub(crate) use disk::SimDisk;
pub(crate) use fault::{Fault, FaultKind, OpClass};
pub(crate) use image::Grain;
pub(crate) use names::NameCut;
pub(crate) use rng::Rng;
