//! The documentation, run: every command of README and docs, and every screen that they show.
//!
//! - `sh` blocks are run line by line by `sh`, each page in a directory of its own, with the built `kifa` first in PATH.
//!   `cargo run --release --` is that program, too. What would change the machine or takes minutes is not run; a line
//!   must begin with a program of [`RUN`] or [`NOT_RUN`], so that a new kind of command is noticed.
//! - `console` blocks are a command behind `$` and what it prints. They are compared as the reader does: numbers and what
//!   depends on the machine may differ.
//! - Everything in backticks that begins with `kifa`, and every example of `--help`, names a subcommand and options that
//!   exist.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Place, Ran, kifa, make_private_dir, run, wait_until};
use crate::terminal::with_terminal;

/// What is run.
const RUN: [&str; 2] = ["kifa", "printf"];
/// What is not: it changes the machine, needs another, or takes long.
const NOT_RUN: [&str; 18] = [
    "apt",
    "cargo",
    "chown",
    "curl",
    "dnf",
    "docker",
    "dpkg",
    "echo",
    "fuzz/run.sh",
    "git",
    "install",
    "kifa-lazyfs",
    "MIRIFLAGS=-Zmiri-disable-isolation",
    "mkdir",
    "rpm",
    "rustup",
    "sudo",
    "systemctl",
];
/// How long a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A page, and its fenced blocks with their language.
struct Page {
    name: String,
    text: String,
    blocks: Vec<(String, Vec<String>)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut paths = vec![root().join("README.md")];
    paths.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

impl Page {
    fn read(path: &Path) -> Page {
        let text = fs::read_to_string(path).unwrap();
        let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
        let mut is_inside = false;
        for line in text.lines() {
            match line.trim_start().strip_prefix("```") {
                Some(_) if is_inside => is_inside = false,
                Some(language) => {
                    blocks.push((language.to_owned(), Vec::new()));
                    is_inside = true;
                }
                None if is_inside => blocks.last_mut().unwrap().1.push(line.to_owned()),
                None => {}
            }
        }
        Page { name: path.strip_prefix(root()).unwrap().display().to_string(), text, blocks }
    }

    /// Its commands in order, each as one line; of a screen with what is shown.
    fn commands(&self) -> Vec<(String, Option<String>)> {
        let mut commands = Vec::new();
        for (language, lines) in &self.blocks {
            match language.as_str() {
                "sh" => commands.extend(joined(lines).into_iter().map(|line| (line, None))),
                "console" => {
                    for line in lines {
                        match (line.strip_prefix("$ "), commands.last_mut()) {
                            (Some(command), _) => commands.push((command.to_owned(), Some(String::new()))),
                            (None, Some((_, Some(shown)))) => *shown += &format!("{line}\n"),
                            _ => panic!("{}: a screen begins with its command behind $", self.name),
                        }
                    }
                }
                _ => {}
            }
        }
        commands
    }
}

/// Lines without comments, those that go on behind a backslash as one.
fn joined(lines: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in lines {
        let line = line.split(" # ").next().unwrap().trim();
        let (text, goes_on) = line.strip_suffix('\\').map_or((line, false), |text| (text, true));
        match out.last_mut().filter(|_| is_open) {
            Some(last) => *last += text,
            None if text.is_empty() || text.starts_with('#') => {}
            None => out.push(text.to_owned()),
        }
        is_open = goes_on;
    }
    out
}

/// A directory to run a page's commands in.
struct Sandbox {
    place: Place,
    work: PathBuf,
}

impl Sandbox {
    fn new() -> Sandbox {
        let place = Place::new();
        let (bin, work) = (place.beside("bin"), place.beside("work"));
        make_private_dir(&bin);
        make_private_dir(&work);
        symlink(env!("CARGO_BIN_EXE_kifa"), bin.join("kifa")).unwrap();
        Sandbox { place, work }
    }

    /// The store that pages speak of, with what they look for.
    fn fill(&self) {
        let lines = "printf '%s\\n' '{\"txn\":\"TXN-001\",\"amount\":5000,\"status\":\"completed\"}' | \
                     kifa daemon --stdin -d ./data";
        self.sh(lines).expect(0);
    }

    /// The crash test as it was built with these tests, if it was. How each cycle ends is chance.
    fn crash_test(&self, args: &str, shown: &str) {
        let program = Path::new(env!("CARGO_BIN_EXE_kifa")).with_file_name("examples").join("crash-test");
        if !program.exists() {
            eprintln!("SKIPPED: the example crash-test is not built (cargo test --examples builds it)");
            return;
        }
        let mut command = Command::new(program);
        command
            .args(args.split(' '))
            .args(["-d", "crash-test", "--kifa", env!("CARGO_BIN_EXE_kifa")])
            .current_dir(&self.work)
            .stdin(Stdio::null());
        let ran = to_its_end(&mut command).expect(0);
        let without_ends = |text: &str| -> String {
            alike(text).lines().map(|line| line.split(" (").next().unwrap().to_owned() + "\n").collect()
        };
        assert_eq!(without_ends(ran.text()), without_ends(shown));
    }

    fn sh(&self, line: &str) -> Ran {
        let line = line.replace("cargo run --release -- ", "kifa ").replace("/var/lib/kifa", "./data");
        // Any port will do, so that two runs of these tests do not meet.
        let line = line.replace("127.0.0.1:7000", "127.0.0.1:0").replace("127.0.0.1:9464", "127.0.0.1:0");
        // The shell gets the environment without the tester's own settings from here.
        let cleared = kifa(&[]);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(&self.work).stdin(Stdio::null());
        for (name, value) in cleared.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.place.beside("bin").display()));
        if line.contains("tail ") && line.contains(" -f") {
            until_it_prints(&mut command, false)
        } else if line.starts_with("kifa daemon ") && !line.contains("--stdin") {
            until_it_prints(&mut command, true)
        } else {
            to_its_end(&mut command)
        }
    }
}

#[track_caller]
fn to_its_end(command: &mut Command) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ran { code: status.code(), stdout: out.join().unwrap().unwrap(), stderr: err.join().unwrap().unwrap() }
}

/// For what goes on for ever: it is stopped when it has printed something (a daemon on standard error), which is a success.
#[track_caller]
fn until_it_prints(command: &mut Command, is_daemon: bool) -> Ran {
    let path = tempfile::NamedTempFile::new().unwrap();
    // In the shell's place, so that a signal reaches the program.
    let line = format!("exec {}", command.get_args().nth(1).unwrap().to_str().unwrap());
    let mut exec = Command::new("sh");
    exec.args(["-c", &line]).current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => exec.env(name, value),
            None => exec.env_remove(name),
        };
    }
    let (printed, other) = (path.reopen().unwrap(), Stdio::null());
    let exec = match is_daemon {
        true => exec.stdout(other).stderr(printed),
        false => exec.stdout(printed).stderr(other),
    };
    let mut child = exec.spawn().unwrap();
    wait_until("something is printed", || path.as_file().metadata().unwrap().len() > 0);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{line}");
    Ran { code: Some(0), stdout: fs::read(path.path()).unwrap(), stderr: String::new() }
}

/// What a reader compares: numbers, times, and what depends on the machine look alike.
fn alike(text: &str) -> String {
    let mut out = String::new();
    // Whether a prepared segment was finished in time is told in a note.
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("Note: ")) {
        let mut line = line.to_owned();
        for (one, other) in [
            ("portable", "io_uring"),
            ("linked", "dsync"),
            ("Direct I/O: no", "Direct I/O: yes"),
            ("through the system's cache, which may hide damage on the device", "from the device, past the page cache"),
            (
                "from the device, as far as the system dropped its page cache when asked",
                "from the device, past the page cache",
            ),
        ] {
            line = line.replace(one, other);
        }
        let mut was_digit = false;
        for character in line.trim_end().chars() {
            let is_digit = character.is_ascii_digit();
            if !(is_digit && was_digit) {
                out.push(if is_digit { '0' } else { character });
            }
            was_digit = is_digit;
        }
        out.push('\n');
    }
    out
}

/// Of doctor's report only what was looked at: what was found is the machine's.
fn subjects(report: &str) -> Vec<String> {
    let levels = ["ok ", "note ", "warning ", "problem "];
    let findings = report.lines().filter(|line| levels.iter().any(|level| line.starts_with(level)));
    let mut subjects: Vec<String> = findings.map(|line| line.get(9..22).unwrap_or(line).trim().to_owned()).collect();
    subjects.dedup();
    subjects
}

#[test]
fn every_command_of_the_documentation_runs_and_prints_what_is_shown() {
    for page in pages() {
        let sandbox = Sandbox::new();
        if page.name != "README.md" {
            sandbox.fill();
        }
        for (line, shown) in page.commands() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_kifa = line.starts_with("cargo run --release -- ") || line.contains("| cargo run --release -- ");
            let program = if is_kifa { "kifa" } else { words[0] };
            if let (Some(args), Some(shown)) = (line.strip_prefix("cargo ct "), &shown) {
                sandbox.crash_test(args, shown);
                continue;
            }
            if NOT_RUN.contains(&program) || line.contains("cargo run --release --example") {
                exists(&page, &words);
                continue;
            }
            assert!(RUN.contains(&program), "{}: is this to be run or not? {line}", page.name);
            let ran = sandbox.sh(&line);
            let doctor = words.get(1) == Some(&"doctor");
            let is_good = ran.code == Some(0) || doctor && ran.code == Some(1);
            assert!(is_good, "{}: {line}: {:?} {}", page.name, ran.code, ran.stderr);
            match shown {
                Some(shown) if doctor => assert_eq!(subjects(ran.text()), subjects(&shown), "{}: {line}", page.name),
                Some(shown) => assert_eq!(alike(ran.text()), alike(&shown), "{}: {line}", page.name),
                None => {}
            }
        }
    }
}

#[test]
fn progress_looks_as_it_is_shown() {
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
    let place = Place::with_lines(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let file = place.beside("all.jsonl");
    let mut command = place.command("export", &["-o", file.to_str().unwrap()]);
    command.env("TERM", "xterm");
    let (ran, screen) = with_terminal(&mut command, |command, terminal| command.stdout(Stdio::null()).stderr(terminal));
    ran.expect(0);
    let shape = |line: &str| alike(&line.replace(['█', '▓', '▒', '░'], "#").replace(',', ""));
    let is_bar = |line: &&str| line.contains(" entries, ");
    let drawn = screen.split(['\r', '\n']).map(|line| line.trim_start_matches("\x1b[2K")).find(is_bar);
    let drawn = drawn.unwrap_or_else(|| panic!("no progress is shown: {screen:?}"));
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown = readme.lines().find(|line| line.starts_with('█')).expect("README shows a bar");
    assert_eq!(shape(drawn), shape(shown));
}

/// What a command that is not run names of this repository: an example, an alias, a file.
fn exists(page: &Page, words: &[&str]) {
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        match *word {
            "--example" => {
                let examples = root().join("examples");
                let is_there =
                    examples.join(format!("{next}.rs")).exists() || examples.join(next).join("main.rs").exists();
                assert!(is_there, "{}: there is no example {next}", page.name);
            }
            "cargo" if ["fc", "cw", "tw", "twdoc", "bp", "ct"].contains(&next) => {
                let aliases = fs::read_to_string(root().join(".cargo/config.toml")).unwrap();
                assert!(aliases.contains(&format!("\n{next} = ")), "{}: there is no alias {next}", page.name);
            }
            file if ["systemd/", "fuzz/", "lazyfs/", "examples/"].iter().any(|dir| file.starts_with(dir)) => {
                assert!(root().join(file).exists(), "{}: there is no {file}", page.name);
            }
            _ => {}
        }
    }
}

/// The subcommands, the names of those below them included: `config check`.
fn known(name: &str, below: Option<&str>) -> Option<String> {
    let args: Vec<&str> = [name].into_iter().chain(below).chain(["--help"]).collect();
    let help = run(&args);
    (help.code == Some(0)).then(|| help.text().to_owned())
}

/// Checks `kifa SUB [SUB] --option …`; a word in capitals stands for something.
fn check_mention(place: &str, mention: &str) {
    let words: Vec<&str> = mention.split_whitespace().collect();
    let Some(name) = words.get(1).filter(|name| name.chars().all(|c| c.is_ascii_lowercase())) else { return };
    let help = known(name, None).unwrap_or_else(|| panic!("{place}: there is no kifa {name}: {mention}"));
    let below = words.get(2).filter(|word| help.contains(&format!("\n  {word} ")) && matches!(*name, "config" | "ctl"));
    let help = below.and_then(|below| known(name, Some(below))).unwrap_or(help);
    // What belongs to another program, or is a value, comes behind these.
    let own = words.iter().skip(2).take_while(|word| !["|", "&&", ";", ">", "<", "--"].contains(word));
    for option in own.map(|word| word.trim_matches(['`', ',', '.'])).filter(|word| word.starts_with("--")) {
        let option = option.split('=').next().unwrap();
        assert!(help.contains(option), "{place}: kifa {name} has no {option}: {mention}");
    }
}

#[test]
fn everything_in_backticks_exists() {
    for page in pages() {
        let mut prose = String::new();
        let mut is_inside = false;
        for line in page.text.lines() {
            if line.trim_start().starts_with("```") {
                is_inside = !is_inside;
            } else if !is_inside {
                prose += line;
                prose.push(' ');
            }
        }
        for mention in prose.split('`').skip(1).step_by(2).filter(|span| span.starts_with("kifa ")) {
            check_mention(&page.name, mention);
        }
    }
}

#[test]
fn every_example_of_the_help_exists() {
    let help = run(&["--help"]).expect(0);
    let commands: Vec<&str> = help
        .text()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        let help = known(command, None).unwrap();
        let examples = help.split("Examples:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(examples.contains("kifa "), "{command}");
        for line in examples.lines() {
            for part in line.split("kifa ").skip(1) {
                check_mention(command, &format!("kifa {part}"));
            }
        }
    }
}

#[test]
fn every_exit_code_is_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let help = run(&["--help"]).expect(0);
    let mut rows: Vec<String> = Vec::new();
    for line in help.text().split("Exit codes:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty()) {
        match (line.trim_start().starts_with(|first: char| first.is_ascii_digit()), rows.last_mut()) {
            // Long lines go on in the next.
            (false, Some(row)) => *row += &format!(" {}", line.trim()),
            _ => rows.push(line.to_owned()),
        }
    }
    for row in rows {
        let (code, rest) = row.trim().split_once(' ').unwrap();
        let (meaning, commands) = rest.trim().rsplit_once(" [").unwrap();
        let row = readme.lines().find(|line| line.starts_with(&format!("| {code} |")) && line.contains(meaning));
        let row = row.unwrap_or_else(|| panic!("README has no row for {code}: {meaning}"));
        for command in commands.trim_end_matches(']').split(", ") {
            assert!(row.contains("| all |") || row.contains(command), "README: {code} is also of {command}");
        }
    }
}
