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

/// Whether the manifest is older than one that a segment was begun under: somebody has put an old one in place of the
/// newest.
pub(crate) fn is_older(files: &WalFiles, manifest: &Manifest) -> Option<Error> {
    let newest = files.live.values().max_by_key(|segment| segment.header.manifest_generation)?;
    let generation = newest.header.manifest_generation;
    (generation > manifest.generation).then(|| {
        let what = format!("it is an old one: {} was begun under generation {generation}", newest.path);
        Error::corrupt(&crate::manifest::path(manifest.generation), 0, None, what)
    })
}

/// The newest segment that the manifest knows of, if the log behind the checkpoint has one.
pub(crate) fn last_known(manifest: &Manifest) -> Option<u64> {
    match manifest.newest_segment {
        // Not said; but there is no table without a segment behind it.
        0 => (manifest.checkpoint_lsn > Lsn::ZERO).then_some(manifest.first_segment),
        newest => (newest >= manifest.first_segment).then_some(newest),
    }
}

/// The links that can be read, oldest first, and the damage that ends them where a segment is missing.
pub(super) fn chain(files: &WalFiles, manifest: &Manifest) -> (Vec<Link>, Option<Error>) {
    if let Some(damage) = is_older(files, manifest) {
        return (Vec::new(), Some(damage));
    }
    let missing = |number: u64, lsn| {
        let what = "the segment is missing; the manifest knows of it";
        Error::corrupt(&super::path(number), 0, lsn, what)
    };
    let Some((&newest, _)) = files.live.last_key_value() else {
        let due = Some(manifest.checkpoint_lsn.next());
        return (Vec::new(), last_known(manifest).map(|number| missing(number, due)));
    };
    let mut chain = vec![Link { segment: newest, end: None }];
    // Whoever removes the newest segments leaves a chain without a hole.
    let mut damage = (newest < manifest.newest_segment).then(|| missing(manifest.newest_segment, None));
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
