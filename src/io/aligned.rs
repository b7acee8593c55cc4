//! A buffer that O_DIRECT accepts: its start and capacity are multiples of [`BLOCK_BYTES`].
//!
//! Zeroed at birth and dereferencing to its whole capacity, so uninitialised memory is never visible. Owned by value:
//! it moves into an operation and comes back with the completion; nothing borrows it across the kernel.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::format::BLOCK_BYTES;

/// See the module's page.
pub(crate) struct AlignedBuf {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the buffer owns its allocation exclusively, like a `Box<[u8]>`; nothing in it is tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads bytes, and mutation needs `&mut`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes` (at least one block), rounded up to whole blocks.
    pub(crate) fn zeroed(bytes: usize) -> AlignedBuf {
        let capacity = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = AlignedBuf::layout(capacity);
        // SAFETY: the layout has a size of at least one block, so it is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        AlignedBuf { start, capacity }
    }

    /// A buffer that holds `bytes`, padded with zeros to whole blocks.
    pub(crate) fn from_bytes(bytes: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::zeroed(bytes.len());
        buf[..bytes.len()].copy_from_slice(bytes);
        buf
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a buffer is far smaller than the address space")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.start.as_ptr(), AlignedBuf::layout(self.capacity)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `capacity` initialised bytes (zeroed at birth) that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.capacity) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.capacity) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_ends_on_a_block_and_is_zero() {
        // Miri needs minutes for a million bytes.
        let largest = if cfg!(miri) { 3 * BLOCK_BYTES } else { 1 << 20 };
        for bytes in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, largest] {
            let buf = AlignedBuf::zeroed(bytes);
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buf.len() % BLOCK_BYTES, 0);
            assert!(buf.len() >= bytes.max(1));
            assert!(buf.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn keeps_what_is_written_across_a_move() {
        let mut buf = AlignedBuf::from_bytes(b"receipt");
        buf[BLOCK_BYTES - 1] = 7;
        let moved = std::thread::spawn(move || buf).join().expect("the thread returns the buffer");
        assert_eq!(&moved[..7], b"receipt");
        assert_eq!(moved[BLOCK_BYTES - 1], 7);
    }
}
