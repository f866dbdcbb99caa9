// SPDX-License-Identifier: GPL-2.0

//! Which guests are taken, and what happens when one dies.
//!
//! The list is under a spinlock, so the one that holds it goes on, and no lock is held for what may take
//! long: a guest is put on the list before it is set up, and taken off it after it is let go of. A
//! domain's end is reported in a thread that all of xenstore's watches share. There it only has each guest
//! looked at, by a work item of its own: a guest whose locks are held for long delays no other's end.

use crate::debugfs;
use crate::irqs::MemberId;
use crate::protocol::status::Interface;
use crate::protocol::DomId;
use crate::taken::{Owner, Taken};
use crate::workqueue::WorkQueue;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::{global_lock, Arc};
use kernel::workqueue::WorkItem;

/// Guests that are looked at at once when a domain went; the others wait for these.
const LOOKS_AT_ONCE: c_int = 256;

/// A guest on the list.
struct Listed {
    taken: Arc<Taken>,
    shown: Option<debugfs::File>,
}

/// What is there as long as the module is.
struct Guests {
    listed: RBTree<u16, Listed>,
    folder: Arc<debugfs::Folder>,
    looks: WorkQueue,
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static GUESTS: SpinLock<Option<Guests>> = None;
}

/// The right to take guests. Dropped once no file is open any more, and no watch is set.
pub(crate) struct Registry;

impl Registry {
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn open() -> Result<Self> {
        // SAFETY: The caller's promise.
        unsafe { GUESTS.init() };
        let guests = Guests {
            listed: RBTree::new(),
            folder: Arc::new(debugfs::Folder::new(c"xen-eventfd"), GFP_KERNEL)?,
            looks: WorkQueue::new(c"xen-eventfd", LOOKS_AT_ONCE)?,
        };
        *GUESTS.lock() = Some(guests);
        Ok(Self)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let guests = GUESTS.lock().take();
        // Not under the lock: it waits for looks that are under way.
        drop(guests);
    }
}

impl Guests {
    fn of(&mut self, taken: &Taken) -> Option<&mut Listed> {
        let listed = self.listed.get_mut(&taken.guest.dom().0)?;
        core::ptr::eq(&*listed.taken, taken).then_some(listed)
    }
}

/// Takes a guest for one more file, or waits until it is known that this cannot be. [`leave`] undoes it.
///
/// # Errors
/// `EBUSY` if another file holds it, `ERESTARTSYS` if a signal came first, and those of the set-up.
pub(crate) fn take(dom: DomId, interface: Interface) -> Result<Arc<Taken>> {
    loop {
        if let Some(taken) = find(dom) {
            if taken.join(interface)? {
                return Ok(taken);
            }
            // Its place is free now.
            continue;
        }
        let taken = Taken::new(dom, interface)?;
        let listed = Listed { taken: taken.clone(), shown: None };
        let node = RBTreeNode::new(dom.0, listed, GFP_KERNEL_ACCOUNT)?;
        // Another may have been faster.
        if insert(node, dom) {
            set_up(&taken)?;
            return Ok(taken);
        }
    }
}

fn find(dom: DomId) -> Option<Arc<Taken>> {
    let guests = GUESTS.lock();
    guests.as_ref()?.listed.get(&dom.0).map(|listed| listed.taken.clone())
}

/// Puts a guest on the list, if there is none of its number yet.
fn insert(node: RBTreeNode<u16, Listed>, dom: DomId) -> bool {
    let mut guests = GUESTS.lock();
    match guests.as_mut() {
        Some(guests) if guests.listed.get(&dom.0).is_none() => {
            guests.listed.insert(node);
            true
        }
        _ => {
            // Not under the lock: what it holds is freed.
            drop(guests);
            drop(node);
            false
        }
    }
}

/// Has a guest come that is on the list.
fn set_up(taken: &Arc<Taken>) -> Result {
    let set_up = match taken.interface {
        Interface::Reserved => taken.guest.reserve(),
        Interface::Native | Interface::Privcmd => taken.guest.begin(),
    };
    if let Err(error) = set_up {
        remove(taken);
        return Err(error);
    }
    show(taken);
    if taken.arrive() {
        look_at(taken);
    }
    Ok(())
}

/// Shows a guest in debugfs. Without that it is served all the same.
fn show(taken: &Arc<Taken>) {
    let folder = GUESTS.lock().as_ref().map(|guests| guests.folder.clone());
    let shown = folder.and_then(|folder| folder.show(taken).ok());
    let mut guests = GUESTS.lock();
    if let Some(listed) = guests.as_mut().and_then(|guests| guests.of(taken)) {
        listed.shown = shown;
    }
}

/// One file less uses a guest; the last lets go of it.
pub(crate) fn leave(taken: &Taken, member: MemberId) {
    if taken.part() {
        taken.guest.close();
        remove(taken);
    } else {
        taken.guest.end_of(member);
    }
}

/// Takes a guest off the list, by the one that set it up in vain or lets go of it.
fn remove(taken: &Taken) {
    let mut guests = GUESTS.lock();
    let shown = guests.as_mut().and_then(|guests| guests.of(taken)?.shown.take());
    drop(guests);
    // Not under the lock: this waits for the one that reads about the guest. And first: the one that takes the
    // guest next shows it under the same name.
    drop(shown);
    let mut guests = GUESTS.lock();
    let removed = guests.as_mut().and_then(|guests| {
        guests.of(taken)?;
        guests.listed.remove_node(&taken.guest.dom().0)
    });
    drop(guests);
    drop(removed);
    taken.vanish();
}

/// Reports who holds a guest.
pub(crate) fn with_owner<T>(dom: DomId, tell: impl FnOnce(&Owner) -> T) -> Option<T> {
    let taken = find(dom).filter(|taken| taken.is_held())?;
    Some(tell(&taken.owner))
}

/// Some domain went: has each of ours looked at. It waits for nothing.
pub(crate) fn look_at_all() {
    let guests = GUESTS.lock();
    let Some(guests) = guests.as_ref() else { return };
    for listed in guests.listed.values() {
        // One that is queued already will be looked at.
        let _ = guests.looks.queue().enqueue(listed.taken.clone());
    }
}

fn look_at(taken: &Arc<Taken>) {
    let guests = GUESTS.lock();
    if let Some(guests) = guests.as_ref() {
        let _ = guests.looks.queue().enqueue(taken.clone());
    }
}

impl WorkItem for Taken {
    type Pointer = Arc<Self>;

    fn run(taken: Arc<Self>) {
        reap_if_dead(&taken);
    }
}

/// Looks whether a guest lives, and drops everything of one that does not.
fn reap_if_dead(taken: &Taken) {
    if taken.is_here() && taken.guest.is_dying() {
        let_go_of(taken);
    }
}

/// Lets go of all guests, which are gone for those who have them. No process runs that could take one again.
pub(crate) fn let_go_of_all() {
    let mut last = None;
    while let Some(taken) = after(last) {
        last = Some(taken.guest.dom().0);
        if taken.is_here() {
            let_go_of(&taken);
        }
    }
}

/// The one on the list with the lowest number above that.
fn after(last: Option<u16>) -> Option<Arc<Taken>> {
    let guests = GUESTS.lock();
    let mut listed = guests.as_ref()?.listed.iter();
    let (_, next) = listed.find(|(dom, _)| last.is_none_or(|last| **dom > last))?;
    Some(next.taken.clone())
}

/// Drops everything of a guest, which is gone for those who have it.
fn let_go_of(taken: &Taken) {
    let Some(gone) = taken.guest.die() else { return };
    let last = taken.die();
    // A process that is notified can take it at once.
    gone.iter().for_each(|(_, eventfd)| eventfd.signal());
    if last {
        remove(taken);
    }
}
