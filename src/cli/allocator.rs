//! glibc's allocator, kept from holding memory for each thread.
//!
//! - It gives every thread an arena of its own, and what one thread frees of another's stays in the other's. The engine's threads
//!   hand memtables and packed chunks to each other all the time: the daemon held 50 MiB under full load, of which it used 28.
//! - It raises the size from which memory is taken from the system, and given back to it, to that of what was freed last. Buffers
//!   of a quarter of a megabyte and more then lie among small pieces, and holes stay between them: 34 to 49 MiB from run to run
//!   with one arena. With the size that it begins with kept, 29 MiB, for a tenth of the speed at full load.
//!
//! Other allocators, such as musl's in the static program, are left alone.
//!
//! Proof: `memory-loaded` of the benches.
#![allow(unsafe_code)]

/// Bytes from which on memory comes from the system and goes back to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 << 10;

/// Has all threads share one arena, and large buffers lie outside it. To be called before there is a second thread.
pub(super) fn hold_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and no pointers, and these parameters only bound how many arenas are made, and say
    // where memory is taken from, from now on; what was given out stays valid. No other thread runs yet that could allocate
    // meanwhile.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}
