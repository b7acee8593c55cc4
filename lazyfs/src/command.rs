//! The commands, as they come in by FIFO, one per line: `lazyfs::NAME` are LazyFS's own, so that it can stand in for this
//! program and the other way round; `kifa::NAME` are those that only this program has. Arguments follow as `::key=value`.
//!
//! | command | what it does |
//! |---|---|
//! | `lazyfs::clear-cache` | cuts the power and switches it on again; answered by `finished::clear-cache` |
//! | `lazyfs::cache-checkpoint` | makes all data durable; names stay as they are |
//! | `lazyfs::unsynced-data-report` | prints the files that a cut would take something from |
//! | `lazyfs::display-cache-usage` | prints the bytes of volatile pages |
//! | `lazyfs::crash::timing=before\|after::op=OP::from_rgx=R[::to_rgx=R]` | the power goes at the first such operation: `write`, `fsync`, `create`, `mkdir`, `unlink`, `rename` |
//! | `lazyfs::torn-op::file=F::parts=N\|parts_bytes=A,B::persist=I,J::occurrence=N` | as in LazyFS; where it kills itself, the power goes |
//! | `lazyfs::torn-seq::op=write::file=F::persist=I,J::occurrence=N` | as in LazyFS; where it kills itself, the power goes |
//! | `lazyfs::help` | prints this list |
//! | `kifa::power-off` | cuts the power: every operation fails from now on |
//! | `kifa::power-on` | switches it on again |
//! | `kifa::cut-at::n=N` | the power goes at the N-th mutating operation from now on |
//! | `kifa::survivors::none`, `::all`, `::mixed=SEED`, `::seed=SEED::grain=512\|4096::names=ordered\|any` | what cuts let through besides what is durable, until told otherwise |
//! | `kifa::fail::class=C::nth=N::kind=K[::times=N][::path=PART]` | plants a fault; see [`crate::OpClass`] and [`crate::FaultKind`] |
//! | `kifa::clear-faults` | removes all planted faults, `cut-at`, `crash` and torn ones as well |
//! | `kifa::space=BYTES\|none`, `kifa::read-only=on\|off`, `kifa::lie=on\|off` | settings |
//! | `kifa::report` | prints power, what is volatile and the counters of operations |
//!
//! A power cut clears planted faults; settings stay.

use std::path::PathBuf;

use regex_lite::Regex;

use crate::content::Grain;
use crate::cut::Survivors;
use crate::fault::{CLASSES, Fault, FaultKind, OpClass};
use crate::names::NameCut;
use crate::torn::{Parts, Torn};
use crate::volume::Volume;

const HELP: &[&str] = &[
    "lazyfs::clear-cache | cache-checkpoint | unsynced-data-report | display-cache-usage | help",
    "lazyfs::crash::timing=before|after::op=write|fsync|create|mkdir|unlink|rename::from_rgx=R[::to_rgx=R]",
    "lazyfs::torn-op::file=F::parts=N|parts_bytes=A,B::persist=I,J::occurrence=N",
    "lazyfs::torn-seq::op=write::file=F::persist=I,J::occurrence=N",
    "kifa::power-off | power-on | clear-faults | report",
    "kifa::cut-at::n=N",
    "kifa::survivors::none | all | mixed=SEED | seed=SEED::grain=512|4096::names=ordered|any",
    "kifa::fail::class=C::nth=N::kind=eio|nospace|short|flip|power-off[::times=N][::path=PART]",
    "kifa::space=BYTES|none, kifa::read-only=on|off, kifa::lie=on|off",
];

/// A line taken apart.
struct Line<'a> {
    name: &'a str,
    /// Of `NAME=VALUE`.
    value: Option<&'a str>,
    arguments: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn get(&self, key: &str) -> Result<&'a str, String> {
        self.find(key).ok_or_else(|| format!("{} needs {key}=", self.name))
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        self.arguments.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        number(key, self.get(key)?)
    }

    fn numbers(&self, key: &str) -> Result<Vec<u64>, String> {
        self.get(key)?.split(',').map(|part| number(key, part.trim())).collect()
    }

    /// A positive number.
    fn count(&self, key: &str) -> Result<u64, String> {
        Some(self.number(key)?).filter(|&count| count > 0).ok_or_else(|| format!("{key} counts from 1"))
    }

    fn switch(&self) -> Result<bool, String> {
        match self.value {
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            _ => Err(format!("{} is on or off", self.name)),
        }
    }

    fn known(&self, keys: &[&str]) -> Result<(), String> {
        match self.arguments.iter().find(|(key, _)| !keys.contains(key)) {
            Some((key, _)) => Err(format!("{} has no argument {key}", self.name)),
            None => Ok(()),
        }
    }
}

fn number(key: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{key} is a number, not {text:?}"))
}

/// What a command came to: lines to print, and the line that answers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What was asked for.
    pub lines: Vec<String>,
    /// `finished::NAME`, or `failed::NAME::REASON`.
    pub end: String,
}

/// Carries a line out.
pub fn run(volume: &mut Volume, line: &str) -> Answer {
    let line = line.trim();
    let (lazyfs, rest) = match (line.strip_prefix("lazyfs::"), line.strip_prefix("kifa::")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => {
            return Answer {
                lines: Vec::new(),
                end: format!("failed::{line}::commands begin with lazyfs:: or kifa::"),
            };
        }
    };
    let mut parts = rest.split("::");
    let first = parts.next().unwrap_or_default();
    let (name, value) = first.split_once('=').map_or((first, None), |(name, value)| (name, Some(value)));
    let arguments = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let line = Line { name, value, arguments };
    let done = if lazyfs { run_lazyfs(volume, &line) } else { run_own(volume, &line) };
    match done {
        Ok(lines) => Answer { lines, end: format!("finished::{name}") },
        Err(why) => Answer { lines: Vec::new(), end: format!("failed::{name}::{why}") },
    }
}

fn run_lazyfs(volume: &mut Volume, line: &Line<'_>) -> Result<Vec<String>, String> {
    let told = |done: std::io::Result<()>| done.map(|()| Vec::new()).map_err(|error| error.to_string());
    match line.name {
        "clear-cache" => {
            line.known(&[])?;
            told(volume.power_off().and_then(|()| volume.power_on()))
        }
        "cache-checkpoint" => told(volume.write_back()),
        "unsynced-data-report" => Ok(volume.unsynced()),
        "display-cache-usage" => {
            Ok(volume.report().into_iter().filter(|line| line.starts_with("volatile_bytes=")).collect())
        }
        "help" => Ok(HELP.iter().map(|line| (*line).to_owned()).collect()),
        "crash" => {
            volume.torn.push(crash(line)?);
            Ok(Vec::new())
        }
        "torn-op" => {
            line.known(&["file", "parts", "parts_bytes", "persist", "occurrence"])?;
            let parts = match line.find("parts_bytes") {
                Some(_) => Parts::Bytes(line.numbers("parts_bytes")?),
                None => Parts::Equal(line.count("parts")?),
            };
            let (file, persist) = (PathBuf::from(line.get("file")?), persist(line)?);
            volume.torn.push(Torn::Op { file, parts, persist, occurrence: line.count("occurrence")? });
            Ok(Vec::new())
        }
        "torn-seq" => {
            line.known(&["op", "file", "persist", "occurrence"])?;
            if line.get("op")? != "write" {
                return Err("torn-seq is for op=write".to_owned());
            }
            let (file, persist) = (PathBuf::from(line.get("file")?), persist(line)?);
            let occurrence = line.count("occurrence")?;
            volume.torn.push(Torn::Sequence { file, persist, occurrence, group: 0, write: 0 });
            Ok(Vec::new())
        }
        name => Err(format!("there is no lazyfs::{name} here")),
    }
}

/// Numbers of parts or writes, ascending, from 1 on.
fn persist(line: &Line<'_>) -> Result<Vec<u64>, String> {
    let mut persist = line.numbers("persist")?;
    persist.sort_unstable();
    if persist.first().is_none_or(|&first| first == 0) { Err("persist counts from 1".to_owned()) } else { Ok(persist) }
}

fn crash(line: &Line<'_>) -> Result<Torn, String> {
    line.known(&["timing", "op", "from_rgx", "to_rgx"])?;
    let pattern = |text: &str| Regex::new(text).map_err(|error| error.to_string());
    let before = match line.get("timing")? {
        "before" => true,
        "after" => false,
        timing => return Err(format!("timing is before or after, not {timing}")),
    };
    let op = line.get("op")?;
    if !["write", "fsync", "create", "mkdir", "unlink", "rename"].contains(&op) {
        return Err(format!("a crash at {op} is not possible here"));
    }
    let to = line.find("to_rgx").map(pattern).transpose()?;
    Ok(Torn::Crash { before, op: op.to_owned(), from: pattern(line.get("from_rgx")?)?, to })
}

fn run_own(volume: &mut Volume, line: &Line<'_>) -> Result<Vec<String>, String> {
    let told = |done: std::io::Result<()>| done.map(|()| Vec::new()).map_err(|error| error.to_string());
    match line.name {
        "power-off" => told(volume.power_off()),
        "power-on" => told(volume.power_on()),
        "cut-at" => {
            line.known(&["n"])?;
            let (class, kind, nth) = (OpClass::Mutating, FaultKind::PowerOff, line.number("n")?);
            volume.plant(Fault { class, kind, nth, times: 1, path: None })?;
            Ok(Vec::new())
        }
        "survivors" => {
            volume.settings().survivors = survivors(line)?;
            Ok(Vec::new())
        }
        "fail" => {
            volume.plant(fault(line)?)?;
            Ok(Vec::new())
        }
        "clear-faults" => {
            volume.clear_faults();
            Ok(Vec::new())
        }
        "space" => {
            volume.settings().space_bytes = match line.value {
                Some("none") => None,
                value => Some(number("space", value.unwrap_or_default())?),
            };
            Ok(Vec::new())
        }
        "read-only" => {
            volume.settings().read_only = line.switch()?;
            Ok(Vec::new())
        }
        "lie" => {
            volume.settings().lie = line.switch()?;
            Ok(Vec::new())
        }
        "report" => Ok(volume.report()),
        name => Err(format!("there is no kifa::{name}")),
    }
}

fn survivors(line: &Line<'_>) -> Result<Survivors, String> {
    line.known(&["none", "all", "mixed", "seed", "grain", "names"])?;
    match line.arguments.first() {
        Some(("none", "")) => Ok(Survivors::None),
        Some(("all", "")) => Ok(Survivors::All),
        Some(("mixed", seed)) => Ok(Survivors::Mixed { seed: number("mixed", seed)? }),
        _ => {
            let grain = match line.get("grain")? {
                "512" => Grain::Sector,
                "4096" => Grain::Block,
                grain => return Err(format!("grain is 512 or 4096, not {grain}")),
            };
            let names = match line.get("names")? {
                "ordered" => NameCut::Ordered,
                "any" => NameCut::Any,
                names => return Err(format!("names is ordered or any, not {names}")),
            };
            Ok(Survivors::Sampled { grain, names, seed: line.number("seed")? })
        }
    }
}

fn fault(line: &Line<'_>) -> Result<Fault, String> {
    line.known(&["class", "nth", "kind", "times", "path"])?;
    let class = line.get("class")?;
    let found = CLASSES.iter().find(|(_, name)| *name == class);
    let kind = match line.get("kind")? {
        "eio" => FaultKind::Eio,
        "nospace" => FaultKind::NoSpace,
        "short" => FaultKind::Short,
        "flip" => FaultKind::Flip,
        "power-off" => FaultKind::PowerOff,
        kind => return Err(format!("there is no fault of kind {kind}")),
    };
    Ok(Fault {
        class: found.ok_or_else(|| format!("there is no class {class}"))?.0,
        kind,
        nth: line.number("nth")?,
        times: line.find("times").map_or(Ok(1), |times| number("times", times))?,
        path: line.find("path").map(str::to_owned),
    })
}
