//! The library on the real disk, from outside: what a program that embeds a log, or reads one, can rely on.
//!
//! `KIFA_IO_BACKEND=portable|uring|auto` chooses the backend of every log that a test opens (default: auto).
//! Tests that need another process run this binary again, as [`child::role`].

// These tests look at the real machine: its clock, its threads, its processes.
#![allow(clippy::disallowed_methods)]

mod affinity;
mod append;
#[cfg(target_os = "linux")]
mod cache;
mod child;
mod damage;
mod fixture;
mod foreign;
mod helper;
mod kill;
mod lock;
mod modes;
mod options;
mod readers;
mod relocate;
mod rotation;
mod volume;
