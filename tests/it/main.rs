//! The program from outside: one binary, a module per subject.

// These tests look at the real machine: its clock, its threads, its processes.
#![allow(clippy::disallowed_methods)]

#[cfg(all(feature = "cli", unix))]
mod append;
#[cfg(feature = "cli")]
mod bad_input;
#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
mod config;
#[cfg(all(feature = "cli", unix))]
mod confirm;
#[cfg(all(feature = "cli", unix))]
mod ctl;
#[cfg(all(feature = "cli", unix))]
mod daemon;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod disk;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod docs;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod doctor;
#[cfg(feature = "cli")]
mod export;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod file_systems;
#[cfg(feature = "cli")]
mod filter;
#[cfg(all(feature = "cli", unix))]
mod follow;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod full_disk;
#[cfg(all(feature = "cli", unix))]
mod lifecycle;
#[cfg(feature = "cli")]
mod main_job;
#[cfg(feature = "cli")]
mod manual;
#[cfg(all(feature = "cli", unix))]
mod metrics;
#[cfg(all(feature = "cli", unix))]
mod net;
#[cfg(all(feature = "cli", unix))]
mod permissions;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod query;
#[cfg(feature = "cli")]
mod recover;
#[cfg(all(feature = "cli", unix))]
mod snapshot;
#[cfg(feature = "cli")]
mod sources;
#[cfg(all(feature = "cli", unix))]
mod standin;
#[cfg(all(feature = "cli", unix))]
mod systemd;
#[cfg(all(feature = "cli", unix))]
mod tail;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod terminal;
#[cfg(all(feature = "cli", unix))]
mod vacuum;
#[cfg(feature = "cli")]
mod verify;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod volume;
#[cfg(all(feature = "cli", unix))]
mod vouch;
