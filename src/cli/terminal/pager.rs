//! Standard output, through a pager where it is a terminal.
//!
//! - The pager is `$KIFA_PAGER`, else `$PAGER`, else `less` with the options that journalctl gives it; words are split at
//!   spaces, no shell is asked. None if that is empty or `cat`, or if the terminal is dumb. A `less` that is not installed
//!   is not missed; another pager that cannot be started is told of, and the output goes to the terminal.
//! - When the pager ends before the output does, the command ends at once, with code 0 (130 after SIGINT), also while it has
//!   nothing to print. It is only used by commands that change nothing.
//! - SIGINT is the pager's to act upon. Messages wait until it has ended: it owns the screen.
//! - Under sudo `less` may not start other programs (LESSSECURE).
//!
//! Proof: `tests/it/terminal.rs`.
// A thread waits for the pager's end, which no other wait of these commands could see.
#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, StdoutLock, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::PagerArgs;
use crate::cli::{complain, output, variable};

/// What `less` is told where `LESS` says nothing: quit if it fits the screen, show colours, cut long lines, leave the text
/// there, say where it is, end with SIGINT.
const LESS: &str = "FRSXMK";

/// Messages that wait for the end of the pager; `None`: there is none.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Standard output.
pub(crate) enum Screen {
    Direct(StdoutLock<'static>),
    Paged(Pager),
}

impl Screen {
    /// Starts the pager if there is to be one.
    pub(crate) fn open(args: PagerArgs) -> Screen {
        match if args.no_pager { None } else { Pager::start() } {
            Some(pager) => Screen::Paged(pager),
            None => Screen::Direct(output::stdout()),
        }
    }

    /// Prints a text and waits until it was read.
    pub(crate) fn print(args: PagerArgs, text: &str) -> io::Result<()> {
        let mut screen = Screen::open(args);
        // The command's exit code is known: nobody who leaves the pager early changes it.
        if let Screen::Paged(pager) = &screen {
            pager.is_complete.store(true, Ordering::SeqCst);
        }
        screen.write_all(text.as_bytes())?;
        screen.flush()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Screen::Direct(stdout) => stdout.write(bytes),
            Screen::Paged(pager) => pager.input()?.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Screen::Direct(stdout) => stdout.flush(),
            Screen::Paged(pager) => pager.input()?.flush(),
        }
    }
}

/// Keeps a message back while a pager owns the screen; whether it did.
pub(crate) fn hold(message: &str) -> bool {
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(held) => {
            held.push(message.to_owned());
            true
        }
        None => false,
    }
}

/// Prints what was kept back; from now on nothing is.
fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.into_iter().flatten().for_each(complain);
}

/// A running pager; dropping it waits for its end.
pub(crate) struct Pager {
    input: Option<ChildStdin>,
    /// Everything was written: the pager's end ends nothing else.
    is_complete: Arc<AtomicBool>,
    waiter: Option<JoinHandle<()>>,
    interrupt: Interrupt,
}

impl Pager {
    fn start() -> Option<Pager> {
        if !io::stdout().is_terminal() || super::is_dumb() {
            return None;
        }
        let named = ["KIFA_PAGER", "PAGER"].into_iter().find_map(variable);
        let text = named.clone().unwrap_or_else(|| "less".into());
        let mut child = match command(&text)?.stdin(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => {
                if named.is_some() {
                    let text = output::escaped(&text.to_string_lossy());
                    complain(format_args!("note: the pager \"{text}\" cannot be started: {error}"));
                }
                return None;
            }
        };
        let input = child.stdin.take();
        let is_complete = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt::catch();
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        let (complete, was_interrupted) = (Arc::clone(&is_complete), Arc::clone(&interrupt.came));
        let waiter = std::thread::Builder::new()
            .name("kifa-pager".to_owned())
            .spawn(move || wait(child, &complete, &was_interrupted));
        // Without a thread nobody waits; the pager then ends by itself when its input does.
        Some(Pager { input, is_complete, waiter: waiter.ok(), interrupt })
    }

    fn input(&mut self) -> io::Result<&mut ChildStdin> {
        self.input.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Waits for the pager. If it ends while there is more to read, nobody wants more.
fn wait(mut child: Child, is_complete: &AtomicBool, was_interrupted: &AtomicBool) {
    let _ = child.wait();
    if !is_complete.load(Ordering::SeqCst) {
        release();
        std::process::exit(if was_interrupted.load(Ordering::SeqCst) { 130 } else { 0 });
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.is_complete.store(true, Ordering::SeqCst);
        drop(self.input.take());
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
        self.interrupt.release();
        release();
    }
}

/// The command, with what it is told; `None` where there is to be no pager.
fn command(text: &OsString) -> Option<Command> {
    // A pager whose name is not UTF-8 is nobody's.
    let text = text.to_string_lossy();
    let mut words = text.split_ascii_whitespace();
    let program = words.next().filter(|program| *program != "cat")?;
    let mut command = Command::new(program);
    command.args(words);
    if variable("LESS").is_none() {
        command.env("LESS", LESS);
    }
    if variable("LESSCHARSET").is_none() {
        command.env("LESSCHARSET", "utf-8");
    }
    if variable("SUDO_UID").is_some() {
        command.env("LESSSECURE", "1");
    }
    Some(command)
}

/// SIGINT, taken note of and otherwise ignored, as long as there is a pager.
struct Interrupt {
    came: Arc<AtomicBool>,
    #[cfg(unix)]
    id: Option<signal_hook::SigId>,
}

impl Interrupt {
    fn catch() -> Interrupt {
        let came = Arc::new(AtomicBool::new(false));
        #[cfg(unix)]
        let id = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&came)).ok();
        Interrupt {
            came,
            #[cfg(unix)]
            id,
        }
    }

    fn release(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.id.take() {
            signal_hook::low_level::unregister(id);
        }
    }
}
