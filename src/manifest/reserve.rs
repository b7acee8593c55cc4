//! The reserve: a file whose blocks a manifest takes over on a full disk.
//!
//! Retention frees a full disk by a manifest edit, and an edit needs room for a new file. So a file of zeros lies ready
//! in the store. It is not removed to make room, which any other program on the disk could take: it is renamed to the
//! new manifest's temporary name and written over in place.
//!
//! - What takes the reserve's place is written to its whole length: whatever an interrupted edit has left in it is gone.
//! - A cut between the renaming and the manifest's own rename leaves an unfinished manifest, which the next open removes,
//!   or the reserve under its own name with other bytes in it, which is as good as new.
//! - A store without a reserve is whole: it is made in the background, once the log is in use and when there is room.
//!
//! Not here: room for tables. A flush or a merge that finds none waits, and retention makes it.
//!
//! Proof: `reactor::tests::retention` (a disk without a free byte), and the crash campaign in `sim`.

use std::io;
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::io::{AlignedBuf, Durability};
use crate::reactor::ops::Ops;
use crate::reactor::space::is_no_space;

/// Its name in the store's directory.
pub(crate) const NAME: &str = "RESERVE";
/// The name under which it is made.
pub(crate) const TEMPORARY: &str = "RESERVE.tmp";
/// Its length. A manifest that is longer (a thousand tables, or as many numbering producers) waits for space.
pub(crate) const BYTES: usize = 128 << 10;

/// Renames the reserve to `to`; `false` if there is none, or if not even that is possible.
pub(super) async fn take(ops: &Rc<Ops>, to: &str) -> Result<bool> {
    match ops.rename(NAME, to).await {
        Ok(()) => Ok(true),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) if is_no_space(&cause) => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Makes the reserve, durably.
pub(crate) async fn make(ops: &Rc<Ops>) -> Result<()> {
    ops.unlink(TEMPORARY).await?;
    let file = ops.create(TEMPORARY).await?;
    let filled = async {
        ops.write((file, TEMPORARY), 0, AlignedBuf::zeroed(BYTES), BYTES, Durability::None).await?;
        ops.sync_data((file, TEMPORARY)).await
    };
    let filled = filled.await;
    ops.close(file).await;
    if filled.is_err() {
        // Gives the space back; what stays is removed at the next open.
        let _ = ops.unlink(TEMPORARY).await;
    }
    filled?;
    ops.rename(TEMPORARY, NAME).await?;
    ops.sync_dir("").await
}
