//! What patterns match: new files are followed as they come.
//!
//! Proof: the property test of `set`, and `tests/it/tail.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Set, is_inside};
use crate::source::file::generations;
use crate::source::file::glob::Found;
use crate::source::file::outlet::Outlet;
use crate::source::file::position;
use crate::source::file::report::Report;

impl Set {
    /// Follows what patterns match now and did not before.
    pub(super) fn expand_patterns(&mut self, outlet: &mut dyn Outlet) {
        self.directories.clear();
        let parents = self.followers.iter().filter(|follower| !follower.is_pattern);
        self.directories.extend(parents.filter_map(|follower| follower.path.parent().map(Path::to_owned)));
        let mut matched = BTreeSet::new();
        let mut over = None;
        for index in 0..self.patterns.len() {
            // A directory that cannot be listed now may be there later; at start it is an error.
            let Found { paths, directories } = self.patterns[index].pattern.expand().unwrap_or_default();
            self.directories.extend(directories);
            for path in paths {
                if !self.follow_match(index, &path, outlet) {
                    over.get_or_insert(path.clone());
                }
                matched.insert(path);
            }
        }
        let was_full = std::mem::replace(&mut self.is_full, over.is_some());
        if let Some(path) = over.filter(|_| !was_full && !self.is_start) {
            self.reports.push((None, Report::TooMany { path, max: self.files_max }));
        }
        self.left_alone.retain(|path| matched.contains(path));
    }

    /// Follows a match if it is a file and new. Returns false where there are too many already.
    pub(super) fn follow_match(&mut self, index: usize, path: &Path, outlet: &mut dyn Outlet) -> bool {
        if self.followed.contains(&position::key(path)) || self.left_alone.contains(path) {
            return true;
        }
        let Ok(metadata) = std::fs::metadata(path) else { return true };
        if metadata.is_dir() {
            return true;
        }
        let why = match () {
            () if is_inside(path, &self.data_dir) => Some("it lies in the data directory"),
            () if !metadata.is_file() => Some("it is not a regular file"),
            () if generations::is_compressed(path.file_name().unwrap_or_default()) => Some("it is compressed"),
            () => None,
        };
        if let Some(why) = why {
            self.left_alone.insert(path.to_owned());
            self.reports.push((None, Report::LeftAlone { path: path.to_owned(), why }));
            return true;
        }
        let has_room = self.followers.len() < self.files_max;
        if has_room {
            self.follow_as(index, path, outlet);
        }
        has_room
    }

    /// Follows a match under a name of its own or, where the store has no name left for it, under that of its pattern.
    pub(super) fn follow_as(&mut self, index: usize, path: &Path, outlet: &mut dyn Outlet) {
        let config = self.patterns[index].config.clone();
        let name = outlet
            .source(&config.source_name(&path.to_string_lossy()))
            .or_else(|_| outlet.source(&config.source_name(&config.path.to_string_lossy())));
        match name {
            Ok(name) => self.follow(path.to_owned(), name, &config),
            Err(what) => {
                self.left_alone.insert(path.to_owned());
                self.reports.push((None, Report::Failing { path: path.to_owned(), what }));
            }
        }
    }

    /// At start: follows paths of an earlier run that a pattern matches and that are not there, in case their files are
    /// beside them.
    pub(super) fn follow_parked(&mut self, index: usize, outlet: &mut dyn Outlet) {
        let pattern = &self.patterns[index].pattern;
        let paths = self.parked.keys().filter_map(|key| position::path(key)).filter(|path| pattern.matches(path));
        for path in paths.map(Path::to_owned).collect::<Vec<_>>() {
            if self.followers.len() < self.files_max {
                self.follow_as(index, &path, outlet);
            }
        }
    }
}
