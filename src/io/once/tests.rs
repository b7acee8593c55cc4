use std::sync::{Arc, Mutex};

use super::*;

const FILE_BYTES: u64 = 4 << 20;

/// A file that remembers where the last read ended, and up to where it was let go of.
#[derive(Clone, Default)]
struct Watched(Arc<Mutex<(u64, u64)>>);

impl ReadAt for Watched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buf.len().min((FILE_BYTES - offset) as usize);
        self.0.lock().unwrap().0 = offset + len as u64;
        Ok(len)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(FILE_BYTES)
    }

    fn forget(&self) {
        self.0.lock().unwrap().1 = u64::MAX;
    }

    fn forget_before(&self, offset: u64) {
        self.0.lock().unwrap().1 = offset;
    }
}

/// Catches one that holds all it has read until it is done, or what was read ahead for longer; a table's footer, which is
/// read first, must not be taken for progress.
#[test]
fn what_was_read_is_let_go_of_on_the_way_and_the_rest_at_the_end() {
    let watched = Watched::default();
    let file = OnceFile { file: Box::new(watched.clone()), forgotten: Cell::new(0) };
    file.read_at(&mut [0; 4096], FILE_BYTES - 4096).unwrap();
    let mut buf = vec![0; 50_000];
    for offset in (0..FILE_BYTES).step_by(buf.len()) {
        file.read_at(&mut buf, offset).unwrap();
        let (read, forgotten) = *watched.0.lock().unwrap();
        let kept = if offset < STEP_BYTES { 0 } else { read - forgotten };
        assert!(kept < STEP_BYTES, "{kept} bytes are kept at {offset}");
    }
    drop(file);
    assert_eq!(watched.0.lock().unwrap().1, u64::MAX);
}
