// SPDX-License-Identifier: GPL-2.0

//! Which guests are served, for whom, and what happens when one dies.

use crate::death::Watch;
use crate::eventfd::EventFd;
use crate::guest::{Guest, Life};
use crate::protocol::DomId;
use crate::{bindings, debugfs, server};
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::{global_lock, Arc};
use kernel::task::Task;

/// By which interface a guest was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// Our own: a guest's file is its only user.
    Native,
    /// The seed ABI: any number of control files share a guest, as its frontends do.
    Seed,
    /// Kept for an engine in userspace.
    Reserved,
}

/// The process that took a guest.
pub(crate) struct Owner {
    process: ARef<Task>,
    name: [u8; 16],
}

impl Owner {
    fn this() -> Self {
        let mut name = [0; 16];
        // SAFETY: It writes TASK_COMM_LEN bytes, which is 16.
        unsafe { bindings::shim_current_comm(name.as_mut_ptr()) };
        Self { process: kernel::current!().group_leader().into(), name }
    }

    /// Its number as the caller knows it; 0 if it is not there.
    pub(crate) fn pid(&self) -> i32 {
        self.process.tgid_nr_ns(None)
    }

    /// Its number as the initial domain's own processes know it.
    pub(crate) fn initial_pid(&self) -> i32 {
        self.process.tgid()
    }

    /// Its name, filled with zeros.
    pub(crate) fn name(&self) -> &[u8; 16] {
        &self.name
    }
}

/// A guest that is taken.
pub(crate) struct Taken {
    pub(crate) guest: Arc<Guest>,
    pub(crate) interface: Interface,
    pub(crate) owner: Owner,
}

struct Listed {
    taken: Arc<Taken>,
    /// Files that use it; 0 once it is being let go of.
    members: usize,
    shown: Option<debugfs::File>,
}

/// Every guest that is taken, and the watch that tells of their deaths.
struct Guests {
    listed: KVec<Listed>,
    /// Set with the first guest: xenstore runs by then.
    watch: Option<Watch>,
    folder: Option<debugfs::Folder>,
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static GUESTS: Mutex<Guests> =
        Guests { listed: KVec::new(), watch: None, folder: None };
}

/// The right to take guests. Dropped once no file is open any more.
pub(crate) struct Reception;

impl Reception {
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn open() -> Self {
        // SAFETY: The caller's promise.
        unsafe { GUESTS.init() };
        GUESTS.lock().folder = Some(debugfs::Folder::new(c"xen-eventfd"));
        Self
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let mut guests = GUESTS.lock();
        let (watch, folder) = (guests.watch.take(), guests.folder.take());
        let listed = core::mem::replace(&mut guests.listed, KVec::new());
        drop(guests);
        // Its callback takes the lock.
        drop(watch);
        drop(listed);
        drop(folder);
    }
}

/// Takes a guest, for one more file.
pub(crate) fn take(
    dom: DomId,
    interface: Interface,
    gone: Option<EventFd>,
) -> Result<Arc<Taken>> {
    let mut guests = GUESTS.lock();
    if let Some(listed) = guests.listed.iter_mut().find(|listed| listed.is(dom)) {
        let shared = listed.taken.interface == Interface::Seed && listed.members > 0;
        if !shared || interface != Interface::Seed {
            return Err(EBUSY);
        }
        listed.members = listed.members.saturating_add(1);
        return Ok(listed.taken.clone());
    }
    guests.listed.reserve(1, GFP_KERNEL_ACCOUNT)?;
    if guests.watch.is_none() {
        guests.watch = Some(Watch::set()?);
    }
    let life = match interface {
        Interface::Reserved => {
            server::vcpus(dom)?;
            Life::Reserved
        }
        Interface::Native | Interface::Seed => Life::Apart,
    };
    let guest = Guest::new(dom, gone, life)?;
    let taken = Arc::new(Taken { guest, interface, owner: Owner::this() }, GFP_KERNEL_ACCOUNT)?;
    if interface != Interface::Reserved {
        taken.guest.begin()?;
    }
    // Without one it is served all the same.
    let shown = guests.folder.as_ref().and_then(|folder| folder.show(&taken).ok());
    let listed = Listed { taken: taken.clone(), members: 1, shown };
    if guests.listed.push_within_capacity(listed).is_err() {
        drop(guests);
        taken.guest.close();
        return Err(ENOMEM);
    }
    Ok(taken)
}

/// One file less uses a guest; the last lets go of it.
pub(crate) fn leave(taken: &Taken) {
    let mut guests = GUESTS.lock();
    if let Some(listed) = guests.listed.iter_mut().find(|listed| listed.is_of(taken)) {
        listed.members = listed.members.saturating_sub(1);
        if listed.members > 0 {
            return;
        }
    }
    drop(guests);
    taken.guest.close();
    strike(taken);
}

/// Takes a guest off the list.
fn strike(taken: &Taken) {
    let mut guests = GUESTS.lock();
    let listed = guests.listed.iter_mut().find(|listed| listed.is_of(taken));
    let shown = listed.and_then(|listed| listed.shown.take());
    drop(guests);
    // Not under the lock: this waits for whoever reads about the guest. And first: whoever takes the
    // guest next shows it under the same name.
    drop(shown);
    let mut guests = GUESTS.lock();
    let index = guests.listed.iter().position(|listed| listed.is_of(taken));
    let struck = index.and_then(|index| guests.listed.remove(index).ok());
    drop(guests);
    drop(struck);
}

/// Tells who holds a guest.
pub(crate) fn with_owner<T>(dom: DomId, tell: impl FnOnce(&Owner) -> T) -> Option<T> {
    let guests = GUESTS.lock();
    let taken = guests.listed.iter().find(|listed| listed.is(dom))?.taken.clone();
    drop(guests);
    Some(tell(&taken.owner))
}

/// Some domain went. Looks at each of ours once.
pub(crate) fn bury_the_dead() {
    let mut next = 0;
    loop {
        let guests = GUESTS.lock();
        let later = guests.listed.iter().filter(|listed| listed.number() >= next);
        let Some(listed) = later.min_by_key(|listed| listed.number()) else { return };
        let taken = listed.taken.clone();
        drop(guests);
        next = u32::from(taken.guest.dom().0).saturating_add(1);
        if taken.guest.bury_if_dead() {
            strike(&taken);
        }
    }
}

impl Listed {
    fn number(&self) -> u32 {
        u32::from(self.taken.guest.dom().0)
    }

    fn is(&self, dom: DomId) -> bool {
        self.taken.guest.dom() == dom
    }

    fn is_of(&self, taken: &Taken) -> bool {
        core::ptr::eq(&*self.taken, taken)
    }
}
