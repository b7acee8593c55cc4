//! Finds out whether io_uring can be had, by using it, and explains where it cannot.

use std::io;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};

use super::{CQ_ENTRIES, SQ_ENTRIES};

/// The ring that suits us best, or the plain one where the kernel does not know the better.
pub(super) fn best_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(CQ_ENTRIES);
    // One thread submits, and completions are worked off when it asks for them; both save interrupts (Linux 6.1).
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    match builder.build(SQ_ENTRIES) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain_ring(),
        result => result,
    }
}

/// A ring as every kernel since 5.11 makes it.
pub(super) fn plain_ring() -> io::Result<IoUring> {
    IoUring::builder().setup_cqsize(CQ_ENTRIES).build(SQ_ENTRIES)
}

/// Proves that the ring can do what we need; true if it can also rename and unlink.
///
/// Errors: whatever the kernel answers; `Unsupported` if it is too old.
pub(super) fn check(ring: &IoUring) -> io::Result<bool> {
    // Without NODROP a full completion queue loses completions; without EXT_ARG a wait has no timeout.
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than 5.11"));
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let supported = |codes: &[u8]| codes.iter().all(|&code| probe.is_supported(code));
    // The read is the waker's; files are read through the page cache, past the ring.
    if !supported(&[opcode::Write::CODE, opcode::Read::CODE, opcode::Fsync::CODE]) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel lacks operations that it needs"));
    }
    enter_once(ring)?;
    Ok(supported(&[opcode::RenameAt::CODE, opcode::UnlinkAt::CODE]))
}

/// A seccomp profile may allow setting a ring up and refuse entering it: waits for something that cannot come, for no
/// time at all.
fn enter_once(ring: &IoUring) -> io::Result<()> {
    let no_time = Timespec::new();
    match ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&no_time)) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One sentence, without a full stop: why there is no io_uring, and the remedy. `sysctl` is what kernel.io_uring_disabled
/// says, where it exists.
pub(crate) fn unavailable(error: &io::Error, sysctl: Option<&str>) -> String {
    let remedy = match (error.raw_os_error(), sysctl) {
        (Some(libc::EPERM | libc::EACCES), Some(value @ ("1" | "2"))) => {
            format!("the sysctl kernel.io_uring_disabled is {value}; set it to 0")
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp profile or security policy refuses it, as many container runtimes do; allow io_uring_setup, \
             io_uring_enter and io_uring_register"
                .to_owned()
        }
        (Some(libc::ENOSYS), _) => {
            "the kernel was built without it or a seccomp profile hides it; use a kernel with CONFIG_IO_URING, or allow \
             io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned()
        }
        (Some(libc::ENOMEM), _) => "the limit of locked memory is too low; raise RLIMIT_MEMLOCK".to_owned(),
        (Some(libc::EMFILE | libc::ENFILE), _) => "too many files are open; raise RLIMIT_NOFILE".to_owned(),
        _ => "use Linux 5.11 or newer".to_owned(),
    };
    format!("io_uring is not available ({error}): {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_and_what_to_do() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert!(unavailable(&refused, Some("2")).contains("kernel.io_uring_disabled is 2; set it to 0"));
        assert!(unavailable(&refused, Some("0")).contains("seccomp"));
        assert!(unavailable(&refused, None).contains("seccomp"));
        assert!(unavailable(&io::Error::from_raw_os_error(libc::ENOSYS), None).contains("CONFIG_IO_URING"));
        let old = io::Error::new(io::ErrorKind::Unsupported, "the kernel is older than 5.11");
        assert!(unavailable(&old, None).contains("older than 5.11"));
    }
}
