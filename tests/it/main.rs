//! The integration tests: one binary, a module per subject.

#[cfg(feature = "cli")]
mod config;
#[cfg(all(feature = "cli", unix))]
mod daemon;
#[cfg(feature = "cli")]
mod export;
#[cfg(feature = "cli")]
mod main_job;
#[cfg(feature = "cli")]
mod program;
#[cfg(feature = "cli")]
mod query;
