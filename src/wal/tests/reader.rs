use std::io;
use std::sync::Mutex;

use crate::format::BLOCK_BYTES;
use crate::io::ReadAt;
use crate::wal::reader::Window;

const FILE_BYTES: u64 = 4 << 20;

/// A file that remembers where the last read ended, and up to where it was let go of.
#[derive(Default)]
struct Watched(Mutex<(u64, u64)>);

impl ReadAt for Watched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buf.len().min((FILE_BYTES - offset) as usize);
        self.0.lock().unwrap().0 = offset + len as u64;
        Ok(len)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(FILE_BYTES)
    }

    fn forget_before(&self, offset: u64) {
        self.0.lock().unwrap().1 = offset;
    }
}

/// Catches a recovery that holds all it has read in the page cache until it is done, and readers who make the next one read
/// from the device again.
#[test]
fn who_reads_once_lets_go_as_it_goes_and_nobody_else_does() {
    for (once, mut window) in [(true, Window::once()), (false, Window::default())] {
        let file = Watched::default();
        for offset in (0..FILE_BYTES).step_by(BLOCK_BYTES) {
            window.get("file", &file, offset, BLOCK_BYTES).unwrap();
            let (read, forgotten) = *file.0.lock().unwrap();
            assert!(read > offset);
            assert_eq!(forgotten, if once { read } else { 0 }, "at {offset}");
        }
    }
}
