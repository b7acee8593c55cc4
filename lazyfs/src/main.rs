//! `kifa-lazyfs`: mounts a directory so that what was not synced can be lost; see the library's page.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("kifa-lazyfs runs on Linux only");
    std::process::ExitCode::FAILURE
}
