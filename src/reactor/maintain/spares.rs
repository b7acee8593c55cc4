//! Spare segments and the manifest's reserve: what is prepared ahead, so that neither an append nor a recovery has to find
//! space.
//!
//! Proof: `tests/full_disk.rs` of the reactor, and the crash campaign in `sim`.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::Result;
use crate::manifest::reserve;
use crate::reactor::Core;
use crate::reactor::ops::Ops;
use crate::reactor::segments::{SPARES_KEPT, SPARES_WANTED, prepare, recycle};
use crate::reactor::space::{RETRY, is_no_space, reserve_first, until_space};
use crate::wal::files::Reusable;

impl Core {
    pub(super) fn add_spare(&mut self, spare: Reusable) {
        self.urgent.set(false);
        self.wal.spares.push_back(spare);
        // A segment that was only used again may not be enough: whoever is accepted must not wait for the next one.
        self.maintenance.began_without_space &= !self.has_room();
        self.wal.spares.make_contiguous().sort_by(|a, b| a.path.cmp(&b.path));
    }

    pub(super) fn start_recycle(&mut self) {
        if self.maintenance.recycle.is_some() {
            return;
        }
        let Some(released) = self.maintenance.released.pop_front() else { return };
        let kept = if self.ops.waiting_for_space.get() == 0 { SPARES_KEPT } else { SPARES_WANTED };
        let wanted = self.wal.spares.len() < kept && released.bytes == self.options.segment_bytes;
        let number = wanted.then(|| self.wal.next_number());
        let (ops, vfs) = (Rc::clone(&self.ops), Arc::clone(&self.vfs));
        self.maintenance.recycle =
            Some(Box::pin(
                async move { until_space(&ops, async || recycle(&ops, &*vfs, &released, number).await).await },
            ));
    }

    /// Takes spares that somebody has linked (a backup) out of use: their bytes must not change.
    pub(in crate::reactor) fn discard_linked_spares(&mut self) {
        // Where links are not told, a spare is taken for ours alone: it holds nothing yet.
        let is_linked =
            |spare: &Reusable| cfg!(unix) && self.vfs.metadata(&spare.path).is_ok_and(|metadata| metadata.links > 1);
        let (linked, own) = self.wal.spares.drain(..).partition(is_linked);
        self.wal.spares = own;
        self.maintenance.released.append(&mut { linked });
    }

    /// Whether a file is left for recovery: without it no entry is accepted, or a full disk could keep the log from being
    /// opened after a power cut.
    pub(in crate::reactor) fn has_reserve(&self) -> bool {
        !self.wal.spares.is_empty()
    }

    /// Prepares spares once the log is in use; a log that is only opened costs no space.
    pub(super) fn start_prepare(&mut self) {
        let busy = self.maintenance.prepare.is_some() || self.maintenance.recycle.is_some();
        let in_use = self.wal.active.is_some() && (self.wal.epoch_has_groups || self.urgent.get());
        let wanted = in_use || self.maintenance.began_without_space;
        if busy || !wanted || self.wal.spares.len() >= SPARES_WANTED {
            return;
        }
        let number = self.wal.next_number();
        let (store, segment_bytes) = (self.wal.store, self.options.segment_bytes);
        let (ops, urgent) = (Rc::clone(&self.ops), Rc::clone(&self.urgent));
        self.maintenance.prepare = Some(Box::pin(async move {
            until_space(&ops, async || {
                reserve_first(&ops).await;
                prepare(&ops, store, number, segment_bytes, &urgent).await
            })
            .await
        }));
    }

    /// Makes the manifest's reserve once there are spares enough, and at once when an edit has taken it.
    pub(super) fn start_reserve(&mut self) {
        let is_taken = self.ops.lacks_reserve.get();
        let is_in_use = self.wal.epoch_has_groups && self.wal.spares.len() >= SPARES_WANTED;
        if self.maintenance.reserve.is_some() || !(is_taken || (is_in_use && !self.maintenance.has_reserve)) {
            return;
        }
        let ops = Rc::clone(&self.ops);
        self.maintenance.reserve = Some(Box::pin(async move { make_reserve(&ops).await }));
    }
}

/// Makes the reserve; while there is no room for it, nobody needs to be told.
async fn make_reserve(ops: &Rc<Ops>) -> Result<()> {
    loop {
        match reserve::make(ops).await {
            Err(cause) if is_no_space(&cause) => ops.sleep(RETRY).await,
            made => return made,
        }
    }
}
