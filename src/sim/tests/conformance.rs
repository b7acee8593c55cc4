//! The simulated disk keeps the contract of the seam, like the real ones.

use std::sync::Arc;

use crate::io::conformance::{Disk, run};
use crate::io::{Backend, Vfs};
use crate::sim::SimDisk;

impl Disk for SimDisk {
    fn backend(&self) -> Box<dyn Backend> {
        SimDisk::backend(self)
    }

    fn vfs(&self) -> Arc<dyn Vfs> {
        SimDisk::vfs(self)
    }
}

#[test]
fn the_simulated_disk_conforms() {
    for seed in 0..20 {
        run(&|| Box::new(SimDisk::new(seed)));
    }
}
