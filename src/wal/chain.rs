//! Which segments make up the log: from the newest header backward over its links to the first live segment.
//!
//! The headers alone decide; no group is read here. See [`super::replay`].

use crate::error::Error;
use crate::format::Lsn;
use crate::format::manifest::Manifest;
use crate::format::record::LogEnd;
use crate::wal::files::WalFiles;

/// One segment of the chain, with its end where a later header records it.
pub(super) struct Link {
    pub(super) segment: u64,
    pub(super) end: Option<LogEnd>,
}

/// The links that can be read, oldest first, and the damage that ends them where a segment is missing.
pub(super) fn chain(files: &WalFiles, manifest: &Manifest) -> (Vec<Link>, Option<Error>) {
    let Some((&newest, _)) = files.live.last_key_value() else {
        let path = super::path(manifest.first_segment);
        let missing = || Error::corrupt(&path, 0, Some(manifest.checkpoint_lsn.next()), "the segment is missing");
        return (Vec::new(), (manifest.checkpoint_lsn > Lsn::ZERO).then(missing));
    };
    let mut chain = vec![Link { segment: newest, end: None }];
    let mut damage = None;
    let mut segment = &files.live[&newest];
    while segment.header.prev_end.segment >= manifest.first_segment {
        let end = segment.header.prev_end;
        let number = segment.header.segment;
        if let Some(before) = files.live.get(&end.segment).filter(|_| end.segment < number) {
            chain.push(Link { segment: end.segment, end: Some(end) });
            segment = before;
            continue;
        }
        // What lies behind the hole is out of reach; what lies before it is still good.
        let what = format!("the segment is missing; segment {number} goes on behind it");
        damage = Some(Error::corrupt(&super::path(end.segment), 0, None, what));
        chain.clear();
        let Some((&before, found)) = files.live.range(..end.segment.min(number)).next_back() else { break };
        chain.push(Link { segment: before, end: None });
        segment = found;
    }
    chain.reverse();
    (chain, damage)
}
