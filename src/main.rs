//! The `kifa` program: everything it does is in [`kifa::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    kifa::cli::run(std::env::args_os())
}
