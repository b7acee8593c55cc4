//! Compaction: neighbouring tables become one larger table, so that a store stays a few tables however long it lives.
//!
//! | file | owns |
//! |---|---|
//! | [`policy`] | which neighbours to merge next; pure |
//! | [`job`] | the merge of such a run: tables in, bytes of the merged table out, one step at a time |
//!
//! Invariants:
//! - Only neighbours are merged, so ranges never overlap and order never has to be restored.
//! - Every rewritten byte lands in a table at least one tier higher: a byte is written at most
//!   1 + log_threshold(bytes of the largest table / bytes of the smallest) times.
//! - A block is copied as it is after its checks; damage in an input ends the job with an error that names the table, and
//!   its CRC is never computed anew.
//! - Memory of a job: one block, what one step yields, and the index of the inputs and of the merged table.
//!
//! Not here: I/O, the manifest edit (merged table durable and verified, then the manifest, then the inputs are unlinked),
//! pausing in emergency mode. All of them are the engine's.
//!
//! Proof: the simulation in `policy`, the byte-for-byte merges and the damaged inputs in `job`.

mod job;
mod policy;

pub(crate) use job::{MergeJob, Step, merged_facts};
pub(crate) use policy::{Policy, pick};
