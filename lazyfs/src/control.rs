//! Commands by FIFO, and their answers by another one: see [`crate::command`].
//!
//! Both FIFOs are made if they are missing. They are held open for reading and writing, so that neither side ever waits
//! for the other to open its end; answers that nobody reads are dropped, with a message, once the pipe is full.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::command;
use crate::volume::Volume;

/// Longest line that is taken for a command, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Opens a FIFO, made if it is missing.
fn open(path: &Path, more: OFlags) -> io::Result<File> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(File::from(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | more, Mode::empty())?))
}

/// The two FIFOs, open.
#[derive(Debug)]
pub struct Control {
    commands: File,
    answers: Option<File>,
}

impl Control {
    /// Opens the FIFO for commands, and the one for answers if there is to be one.
    pub fn open(commands: &Path, answers: Option<&Path>) -> io::Result<Control> {
        Ok(Control {
            commands: open(commands, OFlags::empty())?,
            answers: answers.map(|path| open(path, OFlags::NONBLOCK)).transpose()?,
        })
    }

    /// Carries commands out, for ever; results are printed, and answered if there is a FIFO for it.
    pub fn serve(self, volume: &Arc<Mutex<Volume>>) -> io::Result<()> {
        let mut reader = BufReader::new(self.commands);
        loop {
            let mut line = Vec::new();
            io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line);
            if line.trim().is_empty() {
                continue;
            }
            let answer = command::run(&mut volume.lock().unwrap_or_else(PoisonError::into_inner), &line);
            let text: String = answer.lines.iter().chain([&answer.end]).map(|line| format!("{line}\n")).collect();
            eprint!("{text}");
            if let Some(mut answers) = self.answers.as_ref()
                && let Err(error) = answers.write_all(text.as_bytes())
            {
                eprintln!("nobody reads the answers: {error}");
            }
        }
    }
}
