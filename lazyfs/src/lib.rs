//! A FUSE file system that loses what was not synced, on command: the ground for Kifa's crash tests. It never becomes
//! part of Kifa itself. Linux only; elsewhere this library is empty.
//!
//! What is durable lies as plain files in a *backing directory*; everything else is in memory, and a power cut takes it
//! away, or any part of it.
//!
//! # The model
//! It is that of Kifa's simulated disk (`src/sim`), for real programs:
//! - **Data**: a write is visible at once and volatile. `fsync` and `fdatasync` make all earlier writes of the file and its
//!   length durable; a write with O_DSYNC, O_SYNC or RWF_DSYNC itself and no other.
//! - **Names**: a create, mkdir, rename, unlink, rmdir or link is visible at once, and durable when each directory that it
//!   touches was synced after it. Syncing a file makes none of its names durable: a file that was synced, but whose
//!   directory was not, is gone.
//! - **A failed sync** cannot be repaired: later ones succeed and pass over what it should have covered.
//! - **A power cut** keeps what is durable and, of everything else, what [`Survivors`] says: nothing, everything, or any
//!   units of 512 or 4096 bytes in any order, lengths without their bytes, and names in order or not.
//! - **Without power** every operation fails with EIO until the power is back; files that were open stay dead.
//! - **Unmounting** makes everything durable, as an orderly shutdown does. Killing this program is a power cut that loses
//!   everything volatile.
//!
//! At least as hostile as POSIX permits, with three exceptions: modes, owners and the kind of a file are durable at once;
//! a sync that was asked for while a write was under way covers it or not as the two happened to arrive; symbolic links,
//! devices and extended attributes do not exist.
//!
//! Memory: volatile pages take at most [`Settings::volatile_bytes_max`]; what would be more is written back and counted.
//! Names take memory for as many files as there are.
//!
//! # Modules
//! `names`, `content`: the two halves of the model. `backing`: the durable side. `volume`, `ops`, `cut`, `fault`,
//! `torn`: one disk. `command`, `control`: the FIFOs. `fuse`, `mount`: the kernel's side.
#![cfg(target_os = "linux")]
// A program of its own around a real machine: its threads and clocks are not those of the simulator.
#![allow(clippy::disallowed_methods)]

mod backing;
pub mod command;
mod content;
pub mod control;
mod cut;
mod fault;
mod fuse;
mod mount;
mod names;
mod ops;
// The numbers that a seed stands for are the same here as in the simulator.
#[allow(dead_code)]
#[path = "../../src/sim/rng.rs"]
mod rng;
mod torn;
mod volume;
#[cfg(test)]
mod volume_tests;

pub use content::Grain;
pub use cut::Survivors;
pub use fault::{Fault, FaultKind, OpClass};
pub use mount::Mount;
pub use names::NameCut;
pub use ops::{Attributes, New};
pub use volume::{Settings, Volume};
