//! A disk that loses power: a `kifa-lazyfs` of our own, or a LazyFS that somebody has mounted; both take commands by FIFO.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module's page.
pub(crate) struct Disk {
    point: PathBuf,
    commands: PathBuf,
    answers: Receiver<String>,
    own: Option<(Child, Option<ChildStdin>)>,
}

fn why<T>(what: &str, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

impl Disk {
    /// Starts a file system of our own in `dir`.
    pub(crate) fn start(program: &Path, dir: &Path) -> Result<Disk, String> {
        let place = |name: &str| dir.join(name);
        for name in ["backing", "mount"] {
            why(name, fs::create_dir_all(place(name)))?;
        }
        let mut command = Command::new(program);
        command.arg("--root").arg(place("backing")).arg("--mount").arg(place("mount"));
        command.arg("--fifo").arg(place("fifo")).arg("--fifo-completed").arg(place("completed"));
        let log = why("lazyfs.log", File::create(place("lazyfs.log")))?;
        command.arg("--until-stdin-ends").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = why(&program.display().to_string(), command.spawn())?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it was asked for");
        let read = BufReader::new(stdout).read_line(&mut line);
        let mut disk =
            Disk { point: place("mount"), commands: place("fifo"), answers: channel().1, own: Some((child, stdin)) };
        why("kifa-lazyfs", read)?;
        if line.trim() != "mounted" {
            let log = fs::read_to_string(place("lazyfs.log")).unwrap_or_default();
            return Err(format!("the power-loss file system does not start: {}", log.trim()));
        }
        disk.answers = listen(&place("completed"))?;
        Ok(disk)
    }

    /// Takes one that is mounted already.
    pub(crate) fn mounted(point: &Path, fifo: &Path, completed: &Path) -> Result<Disk, String> {
        Ok(Disk { point: point.to_owned(), commands: fifo.to_owned(), answers: listen(completed)?, own: None })
    }

    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    /// Whether it is ours, and knows more than LazyFS.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Carries a command out and waits until it is done; what it printed.
    pub(crate) fn command(&self, line: &str) -> Result<Vec<String>, String> {
        let mut fifo = why("command FIFO", File::options().write(true).open(&self.commands))?;
        why("command FIFO", fifo.write_all(format!("{line}\n").as_bytes()))?;
        let mut lines = Vec::new();
        loop {
            let answer = self.answers.recv_timeout(PATIENCE).map_err(|_| format!("nobody answers to {line}"))?;
            match answer.split_once("::") {
                Some(("finished", _)) => return Ok(lines),
                Some(("failed", _)) => return Err(answer),
                _ => lines.push(answer),
            }
        }
    }

    /// A line of its report.
    pub(crate) fn report(&self, name: &str) -> Result<String, String> {
        let lines = self.command("kifa::report")?;
        let found = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).ok_or_else(|| format!("the report has no {name}"))
    }
}

/// Reads answers as they come. The FIFO may be made by whoever answers, a moment later than we look.
fn listen(path: &Path) -> Result<Receiver<String>, String> {
    // For writing as well, so that opening never waits and the end never comes.
    let fifo = why(&path.display().to_string(), File::options().read(true).write(true).open(path))?;
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in BufReader::new(fifo).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    Ok(told)
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.own.take() {
            drop(stdin);
            // It ends when its input does.
            child.wait().ok();
        }
    }
}
