//! The command line of the crash test.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// How a cycle ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PowerLoss {
    /// The process is killed; the disk goes on.
    Sigkill,
    /// The process is killed, and everything that was not synced is lost.
    Lazyfs,
    /// The power goes at one of the first so many mutating operations, and any part of what was not synced survives.
    Cut(u64),
}

/// What lies between the store and the disk that loses power.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Between {
    /// Nothing: the store lies on the power-loss file system itself
    None,
    /// ext4 in an image on a loop device
    Ext4,
    /// XFS in an image on a loop device
    Xfs,
    /// btrfs in an image on a loop device
    Btrfs,
}

/// Which confirmations are a promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum FlushMode {
    /// Confirmed is durable
    Cautious,
    /// At most 49 confirmed entries may be lost with one power cut
    Normal,
    /// As cautious
    Emergency,
}

impl FlushMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            FlushMode::Cautious => "cautious",
            FlushMode::Normal => "normal",
            FlushMode::Emergency => "emergency",
        }
    }

    /// Most confirmed entries that one power cut may take.
    pub(crate) fn lost_max(self) -> u64 {
        if self == FlushMode::Normal { 49 } else { 0 }
    }
}

fn power_loss(text: &str) -> Result<PowerLoss, String> {
    let operations = |text: &str| text.parse().ok().filter(|&operations| operations > 0);
    match text {
        "sigkill" => Ok(PowerLoss::Sigkill),
        "lazyfs" => Ok(PowerLoss::Lazyfs),
        _ => match text.strip_prefix("cut:").and_then(operations) {
            Some(operations) => Ok(PowerLoss::Cut(operations)),
            None => Err("it is sigkill, lazyfs or cut:N, with N from 1 on".to_owned()),
        },
    }
}

/// Crashes the kifa daemon again and again, and checks that the promise holds
///
/// Prints what each cycle came to, and all of them. Exit code 0: the promise holds; 1: it is broken; 2: the test could not
/// be run. The store stays where it is, to be looked at, and a later run on the same directory starts afresh only with
/// --clean.
#[derive(Parser, Clone, Debug)]
#[command(args_override_self = true)]
#[command(
    after_long_help = "sigkill needs nothing. lazyfs and cut:N need root and /dev/fuse; --fs also needs mkfs of that file system\nand loop devices."
)]
pub(crate) struct Arguments {
    /// Directory to work in; created if it is not there
    #[arg(short, long, value_name = "DIR", default_value = "crash-test-data")]
    pub(crate) data_dir: PathBuf,
    /// Number of crashes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) cycles: u64,
    /// Flush mode of the daemon
    #[arg(long, value_name = "MODE", default_value = "cautious")]
    pub(crate) flush_mode: FlushMode,
    /// I/O backend of the daemon: auto, uring or portable
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub(crate) io_backend: String,
    /// How a cycle ends: sigkill (process only, real disk), lazyfs (process killed, all that was not synced is lost),
    /// cut:N (the power goes at a random one of the first N mutating operations; any part of what was not synced survives)
    #[arg(long, value_name = "HOW", default_value = "sigkill", value_parser = power_loss)]
    pub(crate) power_loss: PowerLoss,
    /// File system between the store and the disk that loses power
    #[arg(long, value_name = "FS", default_value = "none")]
    pub(crate) fs: Between,
    /// Decides the moments of the crashes, what survives them, and the entries
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Remove what an earlier run left in the directory before starting
    #[arg(long)]
    pub(crate) clean: bool,
    /// Most entries submitted in one cycle
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) entries: u64,
    /// Bytes that short entries are filled up to
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(crate) size: u64,
    /// Length of the image for --fs, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(320..=65_536))]
    pub(crate) image_mib: u64,
    /// A control: the disk acknowledges syncs and does nothing. The promise must then break
    #[arg(long)]
    pub(crate) lie: bool,
    /// The kifa program; without it the one of this build
    #[arg(long, value_name = "PATH")]
    pub(crate) kifa: Option<PathBuf>,
    /// The kifa-lazyfs program; without it the one of this build
    #[arg(long, value_name = "PATH", conflicts_with = "mounted")]
    pub(crate) lazyfs: Option<PathBuf>,
    /// Use a LazyFS that is mounted here already, also the original one (with --power-loss lazyfs)
    #[arg(long, value_name = "DIR", requires = "fifo", requires = "fifo_completed")]
    pub(crate) mounted: Option<PathBuf>,
    /// Its FIFO for commands (fifo_path of its configuration)
    #[arg(long, value_name = "PATH", requires = "mounted")]
    pub(crate) fifo: Option<PathBuf>,
    /// Its FIFO for answers (fifo_path_completed)
    #[arg(long, value_name = "PATH", requires = "mounted")]
    pub(crate) fifo_completed: Option<PathBuf>,
}

impl Arguments {
    /// Combinations that make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let lazyfs = self.power_loss != PowerLoss::Sigkill;
        if self.mounted.is_some() && (self.power_loss != PowerLoss::Lazyfs || self.fs != Between::None || self.lie) {
            return Err("--mounted goes with --power-loss lazyfs, without --fs and --lie".to_owned());
        }
        if !lazyfs && (self.fs != Between::None || self.lie) {
            return Err("--fs and --lie go with --power-loss lazyfs or cut:N".to_owned());
        }
        Ok(())
    }

    /// Whether this program mounts something itself.
    pub(crate) fn mounts(&self) -> bool {
        self.power_loss != PowerLoss::Sigkill && self.mounted.is_none()
    }
}
