//! A place in the log from which reading goes on: behind a group that was read, in a segment or its successor.
//!
//! A group continues the log if it has the run's salt and epoch, or begins the epoch that names this very end
//! ([`LogEnd`]); a segment does if its header names this very end. These are the links that replay follows, so a walk
//! never enters what replay would call dead. Where neither is found the walk stays where it is.

use std::rc::Rc;

use crate::error::Result;
use crate::format::group::GroupHeader;
use crate::format::record::{LogEnd, Record};
use crate::format::{BLOCK_BYTES, FormatError, Lsn, StoreId};
use crate::io::Vfs;
use crate::query::view::View;
use crate::survey::log::{GroupRef, Part};
use crate::survey::pieces::FileKey;
use crate::wal::files::{Segment, WalFiles};
use crate::wal::reader::{Group, Place, Window, read_group};

/// See the module's page.
pub(super) struct Walk {
    pub(super) segment: Rc<Segment>,
    salt: u64,
    /// 0 until the first group has told it.
    epoch: u64,
    /// Of the group to come.
    offset: u64,
    /// The end of the log here, as a later header would record it: before the marker of a clean close.
    end: LogEnd,
    /// LSN of the first entry of the group to come.
    next_lsn: Lsn,
}

impl Walk {
    /// Where reading goes on behind what a look returned, up to `from`: at a group that may hold `from` itself. Takes the
    /// segment out of the look. `None` where the log is empty, or cannot be read.
    pub(super) fn behind(view: &mut View, from: Lsn) -> Option<Walk> {
        let groups: Vec<&GroupRef> = view.parts.iter().filter_map(Part::group).collect();
        let returned = groups.partition_point(|group| group.first_lsn < from);
        let group = groups.get(returned.saturating_sub(1)).map(|group| **group).or(view.beyond);
        if let Some(group) = group {
            if group.file != FileKey::Live(group.segment) {
                // Its header is lost: a damaged log is not walked along.
                return None;
            }
            let segment = Rc::new(view.files.live.remove(&group.segment)?);
            return Some(Walk::at(segment, &group));
        }
        let replay = view.replay.as_ref()?;
        let newest = replay.newest.as_ref()?;
        let segment = Rc::new(view.files.live.remove(&newest.segment)?);
        Some(Walk {
            segment,
            salt: newest.salt,
            epoch: newest.epoch,
            offset: newest.offset,
            end: replay.end,
            next_lsn: replay.next_lsn,
        })
    }

    /// In front of this group.
    fn at(segment: Rc<Segment>, group: &GroupRef) -> Walk {
        let GroupRef { segment: number, salt, offset, first_lsn, .. } = *group;
        let end = LogEnd { segment: number, salt, offset, last_lsn: first_lsn.prev() };
        Walk { segment, salt, epoch: 0, offset, end, next_lsn: first_lsn }
    }

    /// At the first group of a segment.
    fn enter(segment: Segment) -> Walk {
        let header = &segment.header;
        let (salt, epoch, next_lsn) = (header.salt, header.epoch, header.first_lsn);
        let end =
            LogEnd { segment: header.segment, salt, offset: BLOCK_BYTES as u64, last_lsn: header.first_lsn.prev() };
        Walk { segment: Rc::new(segment), salt, epoch, offset: end.offset, end, next_lsn }
    }

    /// Reads the next group, if it is there and continues the log.
    pub(super) fn read<'w>(&self, window: &'w mut Window, store: StoreId) -> Result<Option<Group<'w>>> {
        let found = read_at(window, store, &self.segment, self.offset)?;
        Ok(found.ok().filter(|group| self.is_continued_by(group)))
    }

    fn is_continued_by(&self, group: &Group<'_>) -> bool {
        let header = &group.header;
        let same_run = header.salt == self.salt && (header.epoch == self.epoch || self.epoch == 0);
        let has_marker = self.end.offset != self.offset;
        header.first_lsn == self.next_lsn && ((same_run && !has_marker) || self.is_end_of_epoch_before(group))
    }

    fn is_end_of_epoch_before(&self, group: &Group<'_>) -> bool {
        group.header.epoch_start
            && group.header.epoch > self.epoch
            && matches!(group.records().first(), Some(Record::EpochStart { prev_end, .. }) if *prev_end == self.end)
    }

    /// Moves behind this group.
    pub(super) fn pass(&mut self, header: &GroupHeader) {
        self.salt = header.salt;
        self.epoch = header.epoch;
        self.offset += header.padded_bytes();
        self.next_lsn = header.last_lsn().next();
        let offset = if header.clean_close { header.offset } else { self.offset };
        self.end = LogEnd { segment: header.segment, salt: header.salt, offset, last_lsn: header.last_lsn() };
    }

    /// The segment that goes on behind this place. One that carries a gap is for a whole look.
    pub(super) fn successor(&self, vfs: &dyn Vfs, store: StoreId) -> Result<Option<Walk>> {
        let files = WalFiles::scan(vfs, store, self.end.segment)?;
        let continues = |segment: &Segment| {
            let header = &segment.header;
            header.segment > self.end.segment && header.prev_end == self.end && header.gap.is_none()
        };
        Ok(files.live.into_values().find(continues).map(Walk::enter))
    }
}

/// Reads the group at `offset` of a segment that may grow.
pub(super) fn read_at<'w>(
    window: &'w mut Window,
    store: StoreId,
    segment: &Segment,
    offset: u64,
) -> Result<Result<Group<'w>, FormatError>> {
    let place = Place {
        store,
        path: &segment.path,
        file: &*segment.file,
        file_bytes: segment.file.bytes().map_err(|cause| crate::error::Error::io("read", &segment.path, cause))?,
        segment: segment.header.segment,
        offset,
    };
    read_group(window, &place)
}
