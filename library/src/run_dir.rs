//! The directory in which engines record what they hold: the lock and the record of each guest.

use crate::Result;
use std::path::Path;
pub use xen_eventfd_ioreq::run_dir::{DEFAULT, Holder, Orphan};
use xen_eventfd_ioreq::{Role, run_dir};

/// The engines that hold the guests of a run directory, in the order of the guests' numbers; none, if there is
/// no such directory. No engine is disturbed, and what a dead one left behind is not among them.
///
/// # Errors
/// [`Error::RunDir`](crate::Error::RunDir) if the directory or a lock cannot be read.
///
#[doc = example!(r#"
let holders = run_dir::holders(dir.path())?;
assert_eq!((holders.len(), holders[0].dom), (1, dom));
assert_eq!(holders[0].engine(), Some("userspace"));
"#)]
pub fn holders(path: &Path) -> Result<Vec<Holder>> {
    Ok(run_dir::holders(path, Role::Doorbells)?)
}

/// The guests whose engine was killed, or a process that served devices, in the order of their numbers; a guest that
/// lost both is named twice. No file is changed, and no engine disturbed. `xen-eventfd reap`
/// ([`Builder::reap`](crate::Builder::reap)) or the guest's next engine recovers them.
///
/// # Errors
/// [`Error::RunDir`](crate::Error::RunDir) if the directory or a lock cannot be read.
///
#[doc = example!(r#"
// The guest is held by an engine that lives.
assert_eq!(run_dir::orphans(dir.path())?, []);
"#)]
pub fn orphans(path: &Path) -> Result<Vec<Orphan>> {
    let mut orphans = Vec::new();
    for role in Role::ALL {
        orphans.extend(run_dir::orphans(path, role)?);
    }
    orphans.sort_by_key(|orphan| orphan.dom);
    Ok(orphans)
}
