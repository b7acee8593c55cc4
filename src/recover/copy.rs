//! Good entries into new tables, one block or group in memory at a time.

use std::rc::Rc;
use std::sync::Arc;

use crate::compaction::Step;
use crate::error::{Error, Result};
use crate::format::entry::{self, Entry};
use crate::format::manifest::{Manifest, TableMeta};
use crate::format::table::{Codec, TableFacts};
use crate::format::{Lsn, StoreId};
use crate::io::Vfs;
use crate::reactor::maintain::{Source, write_table};
use crate::reactor::ops::Ops;
use crate::recover::Plan;
use crate::sstable::{BlockBuf, Table, TableBuilder};
use crate::survey::log::Part;
use crate::survey::pieces::place;
use crate::survey::tables::{Checked, open_whole_or_not};
use crate::survey::tolerant::{Tolerant, Unreadable};
use crate::wal::files::WalFiles;
use crate::wal::reader::{Window, read_group};

/// Where tables go.
pub(super) struct Sink<'s> {
    pub(super) ops: &'s Rc<Ops>,
    /// The store they are written to.
    pub(super) vfs: &'s Arc<dyn Vfs>,
    pub(super) store: StoreId,
}

impl Sink<'_> {
    /// Writes the good blocks of a table as table `id`. `None`: it has none.
    pub(super) fn copy_table(
        &self,
        from: &dyn Vfs,
        source: &Manifest,
        (meta, checked): &(TableMeta, Checked),
        id: u64,
        replaces: bool,
        plan: &Plan,
    ) -> Result<Option<TableMeta>> {
        let Some(&(_, last)) = checked.good.last() else { return Ok(None) };
        let tolerant = Tolerant::new(from, Unreadable::default());
        let (path, table) = open_whole_or_not(&tolerant, source.store, meta)?;
        let mut facts = facts_up_to(plan, last, Some(&table));
        if replaces {
            facts.replaces.push(meta.id);
        }
        let good = checked.good.clone();
        let (mut next, mut buf) = (0, BlockBuf::default());
        let feed = move |builder: &mut TableBuilder| {
            while next < table.block_count() {
                let span = table.block_at(next).span;
                next += 1;
                let was_good = good.binary_search(&(span.first_lsn, span.last_lsn)).is_ok();
                match table.read_block(next - 1, &mut buf) {
                    Ok(()) => {
                        buf.entries().for_each(|entry| builder.push(&entry));
                        return Ok(true);
                    }
                    Err(cause) if was_good => return Err(cause.into_error(&path)),
                    Err(_) => {}
                }
            }
            Ok(false)
        };
        self.write(id, facts, feed).map(Some)
    }

    /// Writes what can be read of the log as table `id`. `None`: nothing can.
    pub(super) fn copy_log(
        &self,
        files: WalFiles,
        source: &Manifest,
        parts: Vec<Part>,
        id: u64,
        plan: &Plan,
    ) -> Result<Option<TableMeta>> {
        if parts.is_empty() {
            return Ok(None);
        }
        let facts = facts_up_to(plan, plan.last_lsn, None);
        let (store, checkpoint) = (source.store, source.checkpoint_lsn);
        let (mut parts, mut window) = (parts.into_iter(), Window::default());
        let feed = move |builder: &mut TableBuilder| {
            let Some(part) = parts.next() else { return Ok(false) };
            push_part(builder, &mut window, &files, store, &part, checkpoint).map(|()| true)
        };
        self.write(id, facts, feed).map(Some)
    }

    fn write(
        &self,
        id: u64,
        facts: TableFacts,
        mut feed: impl FnMut(&mut TableBuilder) -> Result<bool> + Send + 'static,
    ) -> Result<TableMeta> {
        let mut builder = Some(TableBuilder::new(self.store, id, Codec::Lz4, Arc::clone(&self.ops.chunks)));
        let source: Source = Box::new(move || {
            let open = builder.as_mut().expect("there is no step behind the last one");
            while feed(open)? {
                if let Some(chunks) = open.take_chunks() {
                    return Ok(Step::Chunks(chunks));
                }
            }
            let (rest, meta) = builder.take().expect("as above").finish(&facts);
            Ok(Step::Done(rest, meta))
        });
        self.ops.block_on(write_table(self.ops, self.vfs, self.store, id, source))
    }
}

fn push_part(
    builder: &mut TableBuilder,
    window: &mut Window,
    files: &WalFiles,
    store: StoreId,
    part: &Part,
    checkpoint: Lsn,
) -> Result<()> {
    let changed = |path: &str, offset, lsn| {
        let what = "it was good a moment ago and fails its checks now; the device may be failing";
        Err(Error::corrupt(path, offset, Some(lsn), what))
    };
    match part {
        Part::Group(group) => {
            let place = place(files, store, group.file, group.segment, group.offset);
            match read_group(window, &place)? {
                Ok(found) if found.header.salt == group.salt => {
                    found.entries().filter(|entry| entry.lsn > checkpoint).for_each(|entry| builder.push(&entry));
                    Ok(())
                }
                _ => changed(place.path, group.offset, group.first_lsn),
            }
        }
        Part::Entry(lone) => {
            let place = place(files, store, lone.file, 0, lone.seed.offset);
            let bytes = window.get(place.path, place.file, lone.seed.offset, lone.bytes)?;
            match entry::decode(bytes, lone.seed) {
                Ok(found @ Entry { lsn, .. }) if lsn == lone.lsn => {
                    builder.push(&found);
                    Ok(())
                }
                _ => changed(place.path, lone.seed.offset, lone.lsn),
            }
        }
    }
}

/// What a table carries for a lost manifest: of the plan what lies at or below `last`; positions as of then.
fn facts_up_to(plan: &Plan, last: Lsn, table: Option<&Table>) -> TableFacts {
    TableFacts {
        gaps: plan.all_gaps().into_iter().filter(|gap| gap.first <= last).collect(),
        checkpoints: table.map_or_else(|| plan.checkpoints.clone(), |table| table.facts().checkpoints.clone()),
        clock_steps: plan.clock_steps.iter().filter(|step| step.lsn <= last).copied().collect(),
        replaces: Vec::new(),
        floor_lsn: plan.floor_lsn,
    }
}
