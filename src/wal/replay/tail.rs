//! The end of the newest segment: whether the log was torn there, ended there, or is damaged.

use super::{Newest, Tail, Walk};
use crate::error::{Error, Result};
use crate::format::group::GroupHeader;
use crate::format::{BLOCK_BYTES, FormatError, Lsn};
use crate::planted::{Bug, planted};
use crate::wal::files::Segment;
use crate::wal::reader::{Place, read_header, search_headers};

impl Walk<'_> {
    /// The decision table of [`replay`](super)'s page, at the end of the newest segment.
    pub(super) fn decide_tail(&mut self, segment: &Segment, failure: FormatError) -> Result<()> {
        // An entry that follows a gap has the LSN behind it; what the gap skipped was never there to be durable.
        let gap = self.pending_gap.filter(|gap| gap.first == self.out.next_lsn);
        let hole_lsn = gap.map_or(self.out.next_lsn, |gap| gap.last.next());
        if hole_lsn <= self.out.durable_lsn {
            let what =
                format!("a group fails its checks ({failure}), and a table or header proves that it was durable");
            return Err(self.corrupt(segment, what));
        }
        let (bytes, prepared) = (segment.bytes, segment.header.segment_bytes);
        if bytes < prepared {
            // No power cut takes away what was synced before the segment was used.
            return Err(
                self.corrupt(segment, format!("it is {bytes} bytes long, and was {prepared} when it was prepared"))
            );
        }
        let torn_end = self.search_behind(segment, hole_lsn, failure)?;
        self.search_headless((segment.header.segment, self.run.epoch), hole_lsn)?;
        let header_here = self.place(segment, self.run.offset);
        let begun = read_header(&mut self.window, &header_here)?.is_ok_and(|header| self.is_ours(&header));
        self.out.tail = match torn_end {
            Some(end) => Tail::Torn { bytes: end - self.run.offset },
            None if begun => Tail::Torn { bytes: BLOCK_BYTES as u64 },
            None if self.run.marker.is_some() => Tail::Clean,
            None => Tail::Open,
        };
        self.out.normal_at_end &= self.run.epoch_has_groups;
        self.consume_gap();
        self.out.end.last_lsn = self.out.next_lsn.prev();
        self.out.newest = Some(Newest {
            segment: segment.header.segment,
            path: segment.path.clone(),
            salt: self.run.salt,
            epoch: self.run.epoch,
            offset: self.run.offset,
            segment_bytes: segment.header.segment_bytes,
            prev_end: segment.header.prev_end,
            gap: segment.header.gap,
            has_groups: self.run.segment_has_groups,
            written_by: segment.header.written_by,
        });
        Ok(())
    }

    fn is_ours(&self, header: &GroupHeader) -> bool {
        header.epoch > self.run.epoch || (header.epoch == self.run.epoch && header.salt == self.run.salt)
    }

    /// Looks behind the hole in the newest segment; returns the end of the last group of ours that lies there.
    fn search_behind(&mut self, segment: &Segment, hole_lsn: Lsn, failure: FormatError) -> Result<Option<u64>> {
        let mut window = std::mem::take(&mut self.window);
        let behind = self.place(segment, self.run.offset + BLOCK_BYTES as u64);
        let (mut end, mut epoch_max) = (None, self.out.epoch_max);
        let proven = search_headers(&mut window, &behind, self.extent.search_bytes(), |header| {
            if header.segment != segment.header.segment || !self.is_ours(header) {
                return false;
            }
            epoch_max = epoch_max.max(header.epoch);
            end = Some(header.offset + header.padded_bytes());
            !planted(Bug::WatermarkIgnored) && header.durable_lsn >= hole_lsn
                || (header.clean_close && header.epoch == self.run.epoch)
        })?;
        self.window = window;
        self.out.epoch_max = epoch_max;
        if proven {
            let what = format!("a group fails its checks ({failure}), and a later group proves that it was durable");
            return Err(self.corrupt(segment, what));
        }
        Ok(end)
    }

    /// Looks into files without a valid header of ours: one of them may be where the log goes on. A segment's header is
    /// durable before its first group is written, but for the copies that recovery makes, which lie below the hole.
    pub(super) fn search_headless(&mut self, (segment, epoch): (u64, u64), hole_lsn: Lsn) -> Result<()> {
        for headless in &self.files.headless {
            let place = Place {
                store: self.store,
                path: &headless.path,
                file: &*headless.file,
                file_bytes: headless.bytes,
                segment: 0,
                offset: BLOCK_BYTES as u64,
            };
            let mut epoch_max = self.out.epoch_max;
            let proven = search_headers(&mut self.window, &place, self.extent.search_bytes(), |header| {
                let later = header.segment > segment && header.epoch >= epoch;
                if later {
                    epoch_max = epoch_max.max(header.epoch);
                }
                later && header.first_lsn.max(header.durable_lsn) >= hole_lsn
            })?;
            self.out.epoch_max = epoch_max;
            if proven {
                let what = "its header fails its checks, and a group in it proves that it was durable";
                return Err(Error::corrupt(&headless.path, 0, Some(hole_lsn), what));
            }
        }
        Ok(())
    }
}
