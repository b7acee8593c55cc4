//! glibc's allocator, kept from holding memory for each thread.
//!
//! It gives every thread an arena of its own, and what one thread frees of another's stays in the other's. The engine's threads
//! hand memtables and packed chunks to each other all the time: the daemon held 50 MiB under full load, of which it used 28;
//! with one arena it holds 36, and is no slower. Other allocators, such as musl's in the static program, are left alone.
//!
//! Proof: `memory-loaded` of the benches.
#![allow(unsafe_code)]

/// Has all threads share one arena. To be called before there is a second thread.
pub(super) fn share_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and no pointers, and this parameter only bounds how many arenas are made from now
    // on; memory that was given out stays valid. No other thread runs yet that could allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
