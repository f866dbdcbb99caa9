//! The state of the machine and the lock around it.

use crate::client::ClientState;
use crate::domain::Domain;
use crate::event::{LocalEnd, Set};
use crate::handles::Watch;
use core::ops::{Deref, DerefMut};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::{DomId, IoServerId};

/// The domain in which all clients live.
pub(crate) const DOM0: DomId = DomId(0);

/// A number that is unique for the life of the model.
pub(crate) type Serial = u64;

#[derive(Debug, Default)]
pub(crate) struct World {
    /// All guests, including dead ones of which a page is still mapped.
    pub(crate) domains: BTreeMap<DomId, Domain>,
    pub(crate) next_domain: u16,
    /// Domain 0's ends of event channels, by port.
    pub(crate) ports: BTreeMap<u32, LocalEnd>,
    pub(crate) sets: BTreeMap<Serial, Set>,
    pub(crate) watches: BTreeMap<Serial, Watch>,
    /// Mapped pages: the client that maps it, the guest, and its server.
    pub(crate) pages: BTreeMap<Serial, (Serial, Key, IoServerId)>,
    pub(crate) clients: BTreeMap<Serial, ClientState>,
    pub(crate) host_crash: Option<String>,
    /// `None` is x86.
    pub(crate) arch: Option<Arch>,
    pub(crate) forced_ids: VecDeque<u16>,
    last_serial: Serial,
    /// The number of threads that wait for any change, and the number of changes.
    observers: usize,
    generation: u64,
}

/// Identifies a domain; a later domain with the same id has another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) id: DomId,
    pub(crate) incarnation: Serial,
}

impl World {
    /// The machine's architecture.
    pub(crate) fn arch(&self) -> Arch {
        self.arch.unwrap_or(Arch::X86)
    }

    pub(crate) fn serial(&mut self) -> Serial {
        self.last_serial += 1;
        self.last_serial
    }

    /// The guest, if it still exists.
    pub(crate) fn find(&mut self, key: Key) -> Option<&mut Domain> {
        self.domains.get_mut(&key.id).filter(|domain| domain.key == key)
    }

    /// The guest of a device model operation (`dm_op` in `xen/arch/x86/hvm/dm.c`): ESRCH if there
    /// is none, EPERM for the caller's own domain, EINVAL for a PV guest.
    pub(crate) fn target(&mut self, dom: DomId) -> Result<&mut Domain, Errno> {
        if dom == DOM0 {
            return Err(Errno::PERM);
        }
        let domain = self.domains.get_mut(&dom).ok_or(Errno::SRCH)?;
        if domain.is_pv() { Err(Errno::INVAL) } else { Ok(domain) }
    }

    /// Crashes Xen itself: all vCPUs stop and all calls fail.
    pub(crate) fn crash_host(&mut self, why: String) {
        self.host_crash.get_or_insert(why);
        self.domains.values().for_each(Domain::wake_all_vcpus);
        self.sets.values().for_each(|set| set.flag.raise());
        self.watches.values().for_each(|watch| watch.flag.raise());
    }
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { guard: Some(self.peek()), shared: self }
    }

    /// For reading: work under this lock is not announced as a change.
    pub(crate) fn peek(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a condition holds; checks it after each change. Returns `false` on timeout.
    pub(crate) fn until(&self, patience: Duration, mut so: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        self.peek().observers += 1;
        let mut world;
        let met = loop {
            let generation = self.peek().generation;
            if so() {
                break true;
            }
            world = self.peek();
            while world.generation == generation && Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                world = self
                    .changed
                    .wait_timeout(world, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if Instant::now() >= deadline {
                drop(world);
                break so();
            }
            drop(world);
        };
        self.peek().observers -= 1;
        met
    }
}

/// The world, locked for a change.
pub(crate) struct Locked<'a> {
    /// Always there, except inside [`Locked::wait`].
    guard: Option<MutexGuard<'a, World>>,
    shared: &'a Shared,
}

impl Locked<'_> {
    /// Releases the world until `condvar` is notified. Spurious returns are possible.
    pub(crate) fn wait(&mut self, condvar: &Arc<Condvar>) {
        self.announce();
        if let Some(guard) = self.guard.take() {
            self.guard = Some(condvar.wait(guard).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn announce(&mut self) {
        if let Some(world) = self.guard.as_deref_mut().filter(|world| world.observers > 0) {
            world.generation += 1;
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.announce();
    }
}

impl Deref for Locked<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        self.guard.as_deref().expect("the guard is absent only inside wait()")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut World {
        self.guard.as_deref_mut().expect("the guard is absent only inside wait()")
    }
}
