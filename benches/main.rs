//! How fast is kifa, measured by the device it runs on?
//!
//! `cargo bench` runs everything in full (about fifteen minutes, and 20 GB of disk in the build directory while it runs);
//! `cargo bench -- --quick`, or KIFA_BENCH_QUICK=1, everything small, in under a minute. Words behind `--` choose cases by
//! a part of their name. Every case prints the raw device's figure of the same run, the ratio to it, io_uring beside the
//! portable backend, and one line `ratio CASE VALUE UNIT` for scripts.
//!
//! | file | question |
//! |---|---|
//! | `append` | what does a confirmed append cost, by mode and number of producers; what do pipelined appends reach |
//! | `read` | how fast is a full scan, and how much is read for a small range of a big store |
//! | `recovery` | how long does it take to open a store that was killed |
//! | `network` | what do producers get that send lines over TCP and wait for their confirmations |
//! | `program` | what do `kifa daemon` and `kifa query` reach from end to end, and how much memory do they take |
//! | `table` | how fast does a flush build its table (processor only) |
//!
//! What R and BW are, and how ratios are taken: `src/bench/mod.rs`. Targets and what limits each case: docs/performance.md.
// It measures the real machine.
#![allow(clippy::disallowed_methods)]

mod append;
mod common;
mod network;
mod program;
mod read;
mod recovery;
mod table;

fn main() {
    let mut bench = common::Bench::start();
    append::run(&mut bench);
    recovery::run(&mut bench);
    table::run(&mut bench);
    read::run(&mut bench);
    network::run(&mut bench);
    program::run(&mut bench);
    bench.finish();
}
