//! The run: cycle after cycle, and what they came to.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Parser;

use crate::args::{Arguments, PowerLoss};
use crate::daemon::{Daemon, Load, Told, kifa};
use crate::ground::Ground;
use crate::oracle::{Findings, Oracle, Store};
use crate::programs::Programs;
use crate::transactions::{Profile, Rng};

/// How long a load may go on.
const LOAD_MAX: Duration = Duration::from_secs(20);
/// How long a daemon may take to notice that its disk is gone.
const NOTICE_MAX: Duration = Duration::from_secs(30);
/// How often it is asked whether the lock of a killed daemon is gone.
const WRITER_LOOKS_MAX: u32 = 1_000;
/// Says that this is the program in its own name space.
const INSIDE: &str = "CRASH_TEST_INSIDE";

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.check().and_then(|()| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("crash-test: {why}");
            ExitCode::from(2)
        }
    }
}

/// Whether the promise held.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let programs = Programs::find(arguments.kifa.as_deref(), arguments.lazyfs.as_deref(), arguments.mounts())?;
    if arguments.mounts() {
        can_mount()?;
        if std::env::var_os(INSIDE).is_none() {
            return Err(inside());
        }
    }
    prepare_dir(arguments)?;
    try_settings(arguments, &programs)?;
    let ground = Ground::prepare(arguments, &programs)?;
    let mut run = Run::new(arguments, programs, ground)?;
    let done = (1..=arguments.cycles).try_for_each(|cycle| run.cycle(cycle));
    let holds = done.and_then(|()| run.totals())?;
    run.ground.end()?;
    Ok(holds)
}

/// Becomes the same program in a mount name space of its own: whatever happens to it, its mounts go with it.
fn inside() -> String {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return format!("this program does not know where it is: {error}"),
    };
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(own).args(std::env::args_os().skip(1));
    // Everything is built already.
    command.env(INSIDE, "1").env_remove("CARGO");
    format!("unshare (of util-linux) cannot be started: {}", command.exec())
}

fn can_mount() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let root = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|uids| uids.split_whitespace().nth(1) == Some("0"));
    if !root {
        return Err("a file system can be mounted by root only; --power-loss sigkill runs as anybody".to_owned());
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    fuse.map(drop).map_err(|error| format!("/dev/fuse cannot be opened ({error}); in a container: --device /dev/fuse"))
}

/// Removes what an earlier run left, if that is wanted, and only that.
fn prepare_dir(arguments: &Arguments) -> Result<(), String> {
    let dir = arguments.mounted.as_deref().unwrap_or(&arguments.data_dir);
    let left: Vec<_> = ["data", "backing"].iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect();
    if left.is_empty() {
        return Ok(());
    }
    if !arguments.clean {
        return Err(format!("{} is left of an earlier run; --clean removes it", left[0].display()));
    }
    for path in left {
        fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Lets a daemon start and end with these settings, on a store that nobody needs: one that never starts is no crash.
fn try_settings(arguments: &Arguments, programs: &Programs) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", arguments.data_dir.display());
    fs::create_dir_all(&arguments.data_dir).map_err(fail)?;
    let probe = arguments.data_dir.join("probe");
    let output = daemon(arguments, programs, &probe).args(["--stdin", "--confirm"]).output().map_err(fail)?;
    if probe.exists() {
        fs::remove_dir_all(&probe).map_err(fail)?;
    }
    if output.status.success() {
        return Ok(());
    }
    Err(format!("the daemon does not start: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// `kifa daemon` on a store, as it is to be tested.
fn daemon(arguments: &Arguments, programs: &Programs, store: &Path) -> Command {
    let mut command = kifa(&programs.kifa, "daemon", store);
    command.args(["--flush-mode", arguments.flush_mode.name(), "--io-backend", &arguments.io_backend]);
    command
}

struct Run<'a> {
    arguments: &'a Arguments,
    programs: Programs,
    ground: Ground,
    profile: Profile,
    oracle: Oracle,
    log: File,
    next_seq: u64,
    submitted: u64,
    confirmed: u64,
    duplicated: u64,
    damaged: u64,
    gaps: u64,
    is_broken: bool,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments, programs: Programs, ground: Ground) -> Result<Run<'a>, String> {
        let log = arguments.data_dir.join("daemon.log");
        let log = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok(Run {
            arguments,
            programs,
            ground,
            profile: Profile { seed: arguments.seed, size_bytes: arguments.size as usize, merchants: 1000 },
            oracle: Oracle::new(arguments.flush_mode.lost_max()),
            log,
            next_seq: 1,
            submitted: 0,
            confirmed: 0,
            duplicated: 0,
            damaged: 0,
            gaps: 0,
            is_broken: false,
        })
    }

    /// The daemon under test, and where its messages go.
    fn daemon(&self) -> Result<(Command, File), String> {
        let command = daemon(self.arguments, &self.programs, &self.ground.store());
        let log = self.log.try_clone().map_err(|error| format!("daemon.log: {error}"))?;
        Ok((command, log))
    }

    fn cycle(&mut self, cycle: u64) -> Result<(), String> {
        let mut rng = Rng::new(self.arguments.seed).fork(cycle);
        // Floods make large groups, single lines that are waited for make many small ones.
        let chunk = [1, 1, 7, 100, 1000][rng.below(5) as usize];
        let count = 1 + rng.below(self.arguments.entries);
        let load = Load { profile: self.profile, first: self.next_seq, count, chunk, waits: rng.coin() };
        self.next_seq += count;
        let mut broken = Vec::new();
        let (told, how) = match self.arguments.power_loss {
            PowerLoss::Cut(operations) => self.cut(load, 1 + rng.below(operations), &mut broken)?,
            _ => self.kill(load, &mut rng, &mut broken)?,
        };
        let (submitted, confirmed) = (told.submitted, told.confirmed());
        self.oracle.told(told);
        self.ground.power_on()?;
        self.await_end_of_writer()?;
        let mut findings = self.look(false)?;
        broken.append(&mut findings.broken);
        // Otherwise the next daemon recovers, and may lose its power while it does.
        let mut then = "the next cycle recovers";
        if cycle == self.arguments.cycles || rng.coin() {
            findings = self.recover()?;
            broken.append(&mut findings.broken);
            then = "recovered";
        }
        println!(
            "cycle {cycle}: submitted {submitted}, confirmed {confirmed}, {} ({how}; {then})",
            described(&findings)
        );
        broken.sort();
        broken.dedup();
        broken.iter().for_each(|what| println!("cycle {cycle}: broken: {what}"));
        self.is_broken |= !broken.is_empty();
        self.duplicated = self.duplicated.max(findings.duplicated);
        self.damaged = self.damaged.max(findings.damaged);
        self.gaps += findings.gaps;
        self.submitted += submitted;
        self.confirmed += confirmed;
        Ok(())
    }

    /// Stores a load until a random moment, and kills the daemon.
    fn kill(&self, load: Load, rng: &mut Rng, broken: &mut Vec<String>) -> Result<(Told, String), String> {
        let (command, log) = self.daemon()?;
        let mut daemon = Daemon::start(command, load, log)?;
        if rng.chance(1, 4) {
            // Most of these hit the start, with its recovery.
            let at = Duration::from_millis(rng.below(50));
            daemon.wait_for(u64::MAX, at);
        } else {
            daemon.wait_for(1 + rng.below(load.count), LOAD_MAX);
            daemon.wait_for(u64::MAX, Duration::from_micros(rng.below(3_000)));
        }
        let early = daemon.has_ended();
        let (told, status) = daemon.kill()?;
        broken.extend(ended_early(early, status));
        Ok((told, "killed".to_owned()))
    }

    /// Stores a load until the power goes at a mutating operation, or after it.
    fn cut(&self, load: Load, operation: u64, broken: &mut Vec<String>) -> Result<(Told, String), String> {
        self.ground.cut_at(operation)?;
        let (command, log) = self.daemon()?;
        let mut daemon = Daemon::start(command, load, log)?;
        daemon.wait_for(load.count, LOAD_MAX);
        if !self.ground.is_off()? {
            let early = daemon.has_ended();
            self.ground.power_off()?;
            let (told, status) = daemon.kill()?;
            broken.extend(ended_early(early, status));
            return Ok((told, "power cut behind the last answer".to_owned()));
        }
        // Whoever has entries that wait for an answer must notice; whoever has none may be told at any time.
        let all_answered = daemon.answered() == load.count;
        if !all_answered && !daemon.ends_within(NOTICE_MAX) {
            broken.push(format!("the daemon runs on {} s after the power went", NOTICE_MAX.as_secs()));
        }
        let (told, status) = daemon.kill()?;
        if status.success() && !all_answered {
            broken.push("the daemon reports success although its disk was gone".to_owned());
        }
        Ok((told, format!("power cut at operation {operation}")))
    }

    /// Reads the whole store.
    fn look(&mut self, decides: bool) -> Result<Findings, String> {
        let mut store = Store::default();
        let dir = self.ground.store();
        if !is_store(&dir) {
            return Ok(self.oracle.check(store, decides));
        }
        let mut query = kifa(&self.programs.kifa, "query", &dir);
        query.args(["-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = query.spawn().map_err(|error| format!("{query:?}: {error}"))?;
        let stderr = child.stderr.take().expect("it was asked for");
        let messages = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        for line in BufReader::new(child.stdout.take().expect("it was asked for")).lines() {
            store.read(&line.map_err(|error| format!("kifa query: {error}"))?, &self.profile);
        }
        let status = child.wait().map_err(|error| format!("kifa query: {error}"))?;
        let messages = messages.join().unwrap_or_default();
        if !matches!(status.code(), Some(0 | 1)) {
            store.damage(format!("kifa query: {status}: {}", messages.trim()));
        }
        if decides {
            self.read_gaps(&dir, &mut store)?;
        }
        Ok(self.oracle.check(store, decides))
    }

    fn stats(&self, dir: &Path) -> Result<serde_json::Value, String> {
        let output = kifa(&self.programs.kifa, "stats", dir).args(["--format", "json"]).output();
        let output = output.map_err(|error| format!("kifa stats: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::String(text)))
    }

    fn read_gaps(&self, dir: &Path, store: &mut Store) -> Result<(), String> {
        let stats = self.stats(dir)?;
        match stats["gaps"].as_array() {
            Some(gaps) => gaps.iter().for_each(|gap| {
                store.gap(gap["first_lsn"].as_u64().unwrap_or(0), gap["last_lsn"].as_u64().unwrap_or(0));
            }),
            // A store that was never born; whether it had to be is decided by the entries.
            None if !is_store(dir) => {}
            None => store.damage(format!("kifa stats: {stats}")),
        }
        Ok(())
    }

    /// The lock of a killed daemon lives until its last request has ended; until then readers hold back what only its
    /// answers vouch for.
    fn await_end_of_writer(&self) -> Result<(), String> {
        let dir = self.ground.store();
        for _ in 0..WRITER_LOOKS_MAX {
            let stats = self.stats(&dir)?;
            if !is_store(&dir) || stats["writer_alive"] != true {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the lock of the killed daemon does not go".to_owned())
    }

    /// Starts the daemon once more, lets it end in good order, and looks again.
    fn recover(&mut self) -> Result<Findings, String> {
        let (mut command, log) = self.daemon()?;
        let status = command.arg("--stdin").stderr(log).status().map_err(|error| format!("{command:?}: {error}"))?;
        let mut findings = self.look(true)?;
        if !status.success() {
            findings.broken.push(format!("the daemon does not start again: {status}; daemon.log tells why"));
        }
        Ok(findings)
    }

    /// Prints what all cycles came to; whether the promise held.
    fn totals(&self) -> Result<bool, String> {
        let (recovered, lost_confirmed) = self.oracle.decided();
        let total = Findings {
            recovered,
            lost_confirmed,
            duplicated: self.duplicated,
            damaged: self.damaged,
            gaps: self.gaps,
            broken: Vec::new(),
        };
        println!(
            "total: cycles {}, submitted {}, confirmed {}, {}",
            self.arguments.cycles,
            self.submitted,
            self.confirmed,
            described(&total)
        );
        let written_back = self.ground.written_back()?;
        if written_back > 0 {
            println!("{written_back} bytes were written back for want of memory, which no cut could take any more");
        }
        if !self.is_broken && self.confirmed == 0 {
            return Err(
                "nothing was confirmed in any cycle, so nothing was tested; cut later, or use more cycles".to_owned()
            );
        }
        println!("{}", if self.is_broken { "THE PROMISE IS BROKEN" } else { "the promise holds" });
        Ok(!self.is_broken)
    }
}

/// What it means that a daemon has ended although its disk was there.
fn ended_early(early: bool, status: ExitStatus) -> Option<String> {
    early.then(|| format!("the daemon ended by itself ({status}); daemon.log tells why"))
}

/// Whether a store was born here: its first manifest has its name.
fn is_store(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with("MANIFEST-"))
}

fn described(findings: &Findings) -> String {
    format!(
        "recovered {}, lost confirmed {}, duplicated {}, damaged {}, gaps {}",
        findings.recovered, findings.lost_confirmed, findings.duplicated, findings.damaged, findings.gaps
    )
}
