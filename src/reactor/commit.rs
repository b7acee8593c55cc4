//! When a group is submitted, and with which sync: the group-commit policy. Pure.
//!
//! - At most two groups are in flight; a second one only once it is large ([`OVERLAP_BYTES_MIN`]): while one sync runs,
//!   everything that arrives becomes the next group.
//! - Cautious and emergency: every group carries its own sync.
//! - Normal: a group goes without a sync as long as fewer than 25 entries ([`SYNC_ENTRIES`]) and at most 1 MiB are then
//!   at risk, and a durable group of this epoch says `normal`. Otherwise it carries a sync that covers the file, for which
//!   it waits until no other write to the log is in flight; so does a group of records alone, an operator's decision.

use crate::format::FlushMode;
use crate::io::Durability;
use crate::reactor::stage::OVERLAP_BYTES_MIN;
use crate::wal::writer::{AT_RISK_BYTES_MAX, AT_RISK_ENTRIES_MAX};

/// Entries at risk that make the next group carry a sync: half of what may be at risk, so that producers may go on while
/// the sync runs.
const SYNC_ENTRIES: u64 = 25;
const _: () = assert!(SYNC_ENTRIES <= AT_RISK_ENTRIES_MAX);

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) mode: FlushMode,
    /// Groups in flight.
    pub(crate) in_flight: usize,
    /// Bytes and entries of the open group.
    pub(crate) open_bytes: usize,
    pub(crate) open_entries: u64,
    /// Entries and bytes written without a sync, those in flight included.
    pub(crate) at_risk_entries: u64,
    pub(crate) at_risk_bytes: u64,
    pub(crate) normal_declared: bool,
}

/// How the open group is to be submitted now, or `None` to wait.
pub(crate) fn decide(view: &View) -> Option<Durability> {
    let room = view.in_flight == 0 || (view.in_flight == 1 && view.open_bytes >= OVERLAP_BYTES_MIN);
    if !room {
        return None;
    }
    if view.mode != FlushMode::Normal {
        return Some(Durability::Own);
    }
    let may_risk = view.normal_declared
        && view.open_entries > 0
        && view.at_risk_entries + view.open_entries < SYNC_ENTRIES
        && view.at_risk_bytes + view.open_bytes as u64 <= AT_RISK_BYTES_MAX;
    match may_risk {
        true => Some(Durability::None),
        false => (view.in_flight == 0).then_some(Durability::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(mode: FlushMode) -> View {
        View {
            mode,
            in_flight: 0,
            open_bytes: 100,
            open_entries: 1,
            at_risk_entries: 0,
            at_risk_bytes: 0,
            normal_declared: true,
        }
    }

    #[test]
    fn cautious_and_emergency_always_sync() {
        for mode in [FlushMode::Cautious, FlushMode::Emergency] {
            assert_eq!(decide(&view(mode)), Some(Durability::Own));
        }
    }

    #[test]
    fn small_groups_wait_for_the_one_in_flight_and_a_third_always_waits() {
        let one = View { in_flight: 1, ..view(FlushMode::Cautious) };
        assert_eq!(decide(&one), None);
        assert_eq!(decide(&View { open_bytes: OVERLAP_BYTES_MIN, ..one }), Some(Durability::Own));
        assert_eq!(decide(&View { in_flight: 2, open_bytes: OVERLAP_BYTES_MIN, ..one }), None);
    }

    #[test]
    fn normal_syncs_when_half_of_what_may_be_at_risk_is() {
        let normal = view(FlushMode::Normal);
        assert_eq!(decide(&View { at_risk_entries: 23, ..normal }), Some(Durability::None));
        assert_eq!(decide(&View { at_risk_entries: 24, ..normal }), Some(Durability::File));
        assert_eq!(decide(&View { open_entries: 24, ..normal }), Some(Durability::None));
        assert_eq!(decide(&View { open_entries: 25, ..normal }), Some(Durability::File));
        assert_eq!(decide(&View { at_risk_bytes: AT_RISK_BYTES_MAX, ..normal }), Some(Durability::File));
    }

    #[test]
    fn records_alone_are_synced_in_normal_mode_too() {
        assert_eq!(decide(&View { open_entries: 0, ..view(FlushMode::Normal) }), Some(Durability::File));
    }

    #[test]
    fn normal_declares_itself_durably_first() {
        let undeclared = View { normal_declared: false, ..view(FlushMode::Normal) };
        assert_eq!(decide(&undeclared), Some(Durability::File));
    }

    #[test]
    fn a_sync_of_the_file_waits_until_no_other_write_is_in_flight() {
        let busy = View { in_flight: 1, at_risk_entries: 49, open_bytes: OVERLAP_BYTES_MIN, ..view(FlushMode::Normal) };
        assert_eq!(decide(&busy), None);
    }
}
