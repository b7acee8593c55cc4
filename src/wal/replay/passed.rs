//! What a brief reader passes by: groups that hold nothing it is asked for, as it passes by blocks of tables.
//!
//! The body of a group is left unread, and unchecked, where the group holds no records and
//! - all of its entries are in tables; or
//! - its first entry is later than anything that is asked for: without a record of a clock step, timestamps rise inside a
//!   group; **and** a header further on proves all of it durable. What is not proven may be where the log ends: it is read.
//!
//! Proof: `tests`, and `query::tests`, where every range gets what it would get from a full scan.

use super::{Extent, Walk};
use crate::error::Result;
use crate::format::BLOCK_BYTES;
use crate::format::group::GroupHeader;
use crate::wal::chain::Link;
use crate::wal::reader::{Group, Place, Window, read_first_timestamp, read_header};

impl Walk<'_> {
    /// The group whose header this is, if its body need not be read.
    pub(super) fn pass<'w>(
        &self,
        window: &mut Window,
        place: &Place<'_>,
        header: GroupHeader,
    ) -> Result<Option<Group<'w>>> {
        let Extent::Brief { to_ns } = self.extent else { return Ok(None) };
        let is_plain = header.entry_count > 0 && header.record_count == 0;
        if !is_plain || place.offset + header.unpadded_bytes() as u64 > place.file_bytes {
            return Ok(None);
        }
        if header.last_lsn() <= self.checkpoint_lsn {
            return Ok(Some(Group::passed(header, 0)));
        }
        if header.last_lsn() > self.proven_lsn {
            return Ok(None);
        }
        let begins_ns = read_first_timestamp(window, place, &header)?.filter(|&begins_ns| begins_ns > to_ns);
        Ok(begins_ns.map(|begins_ns| Group::passed(header, begins_ns)))
    }

    /// Hops from header to header to the end of the log, for what they prove durable; not for a reader who has to read
    /// everything behind the tables anyway.
    pub(super) fn look_ahead(&mut self, chain: &[Link]) -> Result<()> {
        if !matches!(self.extent, Extent::Brief { to_ns } if to_ns < u64::MAX) {
            return Ok(());
        }
        let mut window = Window::default();
        for link in chain {
            let segment = &self.files.live[&link.segment];
            self.proven_lsn = self.proven_lsn.max(segment.header.durable_lsn);
            let (mut epoch, mut salt) = (segment.header.epoch, segment.header.salt);
            let mut offset = BLOCK_BYTES as u64;
            // What lies behind a recorded end is dead: there is nothing to learn from it.
            while link.end.is_none_or(|end| offset < end.offset) {
                let Ok(header) = read_header(&mut window, &self.place(segment, offset))? else { break };
                if header.epoch_start && header.epoch > epoch {
                    (epoch, salt) = (header.epoch, header.salt);
                }
                if (header.epoch, header.salt) != (epoch, salt) {
                    break;
                }
                self.proven_lsn = self.proven_lsn.max(header.durable_lsn);
                offset += header.padded_bytes();
            }
        }
        Ok(())
    }
}
