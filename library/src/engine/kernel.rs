//! The kernel engine: the module serves a guest, and ends with its file.
//!
//! There is no thread, no record and no guardian. What is kept here is what the module does not
//! tell: which registration is whose, and kicks that a dead userspace engine left, which are
//! signalled when their eventfd comes.

use super::doorbells::{Counters, Doorbells, Registered, Registration, Unmatched};
use super::hold::Hold;
use super::{Attachment, Engine, IrqCounts, check_irq, module};
use crate::eventfd::{self, EventFd};
use crate::run_dir::RunDir;
use crate::sync::Mutex;
use crate::{EngineKind, Error, Result, lock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::{DomId, Doorbell, IoServerId, Kick, Port};
use xen_eventfd_host::linux::eventfd::{Control, GuestFile, Stats};
use xen_eventfd_host::{Errno, Host, HostError};

/// The module, as this process uses it.
#[derive(Debug)]
pub(crate) struct KernelEngine {
    host: Arc<dyn Host>,
    run_dir: RunDir,
    control: Control,
}

impl KernelEngine {
    pub(crate) fn new(host: Arc<dyn Host>, run_dir: RunDir, control: Control) -> Self {
        Self { host, run_dir, control }
    }

    /// Signals an eventfd, whatever its backend does.
    fn signal(&self, eventfd: &EventFd) -> bool {
        let signalled =
            self.host.signaller().and_then(|mut signaller| signaller.signal(eventfd.as_fd()));
        signalled.is_ok()
    }
}

impl Engine for KernelEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Kernel
    }

    fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        let hold = Hold::take(&*self.host, &self.run_dir, dom, EngineKind::Kernel)?;
        let gone = eventfd::new()?;
        let create = || self.control.create(dom, gone.as_fd());
        let file = module::take(&self.control, dom, create)?;
        let server = file.stats().map_err(|error| told(dom, error))?.server;
        let mut doorbells = Doorbells::default();
        hold.record.held().for_each(|kick| doorbells.hold(kick));
        let (irqs, channels) = Default::default();
        let open = Open { file, doorbells, irqs, channels, hold };
        Ok(Arc::new(KernelGuest {
            engine: self,
            dom,
            server,
            gone,
            open: Mutex::new(Some(open)),
            counters: Mutex::default(),
            serial: AtomicU64::new(0),
        }))
    }
}

/// What the module's refusal means for a guest that it serves.
fn told(dom: DomId, error: HostError) -> Error {
    if error.errno == Errno::NODEV { Error::GuestDied(dom) } else { error.into() }
}

/// A guest that the module serves for us.
#[derive(Debug)]
struct KernelGuest {
    engine: Arc<KernelEngine>,
    dom: DomId,
    server: IoServerId,
    /// Signalled by the module.
    gone: OwnedFd,
    /// `None` once the guest is let go of or known to be dead.
    open: Mutex<Option<Open>>,
    /// As they were when last asked for: a dead guest has none.
    counters: Mutex<Counters>,
    serial: AtomicU64,
}

/// What is registered, and through what. Dropped from the top: the guest is let go of before others
/// may take it.
#[derive(Debug)]
struct Open {
    file: GuestFile,
    /// As registered in the module. The claims and held kicks are those that matter for kicks that
    /// a dead engine left.
    doorbells: Doorbells,
    irqs: BTreeMap<u64, IrqFd>,
    channels: BTreeMap<Port, EventFd>,
    hold: Hold,
}

#[derive(Debug)]
struct IrqFd {
    irq: Irq,
    eventfd: EventFd,
    counts: Arc<IrqCounts>,
}

impl IrqFd {
    fn count(&self, file: &GuestFile) -> xen_eventfd_host::Result<()> {
        let (raised, failed) = file.irq_counts(&self.irq, self.eventfd.as_fd())?;
        self.counts.raised.store(raised, Ordering::Relaxed);
        self.counts.failed.store(failed, Ordering::Relaxed);
        Ok(())
    }
}

impl KernelGuest {
    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, what: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        module::with(self.dom, &self.open, || self.engine.run_dir.remove(self.dom), what)
    }

    /// How many of something the module keeps.
    fn full(&self, limit: u32) -> Error {
        Error::TooMany { dom: self.dom, limit: limit as usize }
    }
}

impl Attachment for KernelGuest {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn server(&self) -> IoServerId {
        self.server
    }

    fn register(
        &self,
        doorbell: Doorbell,
        eventfd: EventFd,
        unmatched: Option<Arc<Mutex<Unmatched>>>,
    ) -> Result<u64> {
        self.with(|open| {
            open.doorbells.check(self.dom, &doorbell)?;
            open.file.assign(&doorbell, eventfd.as_fd()).map_err(|error| match error.errno {
                Errno::NOSPC => self.full(self.engine.control.info().max_doorbells),
                _ => error.into(),
            })?;
            let serial = self.serial();
            let eventfd = Arc::new(eventfd);
            let new = Registration { doorbell, eventfd, serial, unmatched, kicks: 0 };
            // To map the bytes was the module's to do.
            let _ = open.doorbells.claim(doorbell.bytes());
            open.doorbells.add(new, &mut |eventfd| self.engine.signal(eventfd))?;
            Ok(serial)
        })
    }

    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()> {
        self.with(|open| {
            let addr = doorbell.bytes().first();
            let found = open.doorbells.find(doorbell, eventfd, serial);
            let found = found.ok_or(Error::NotRegistered { addr })?;
            open.file.deassign(doorbell, found.eventfd.as_fd())?;
            open.doorbells.remove(doorbell, eventfd, serial);
            for piece in open.doorbells.unclaim(doorbell.bytes()) {
                open.doorbells.forget(piece);
            }
            Ok(())
        })
    }

    fn collect(&self, fallback: &Doorbell, serial: u64, unmatched: &Mutex<Unmatched>) {
        let collected = self.with(|open| {
            let Some(found) = open.doorbells.find(fallback, None, Some(serial)) else {
                return Ok(());
            };
            // A guest that goes on kicking does not keep us here.
            for _ in 0..=self.engine.control.info().max_missed {
                let missed = open.file.missed(fallback, found.eventfd.as_fd())?;
                let mut unmatched = lock(unmatched);
                unmatched.overflowed += missed.overflowed;
                let Some((kick, times)) = missed.kick else { break };
                *unmatched.kicks.entry(kick).or_default() += times;
            }
            Ok(())
        });
        if let Err(error) = collected {
            tracing::debug!(%error, dom = %self.dom, "a fallback was not asked");
        }
    }

    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)> {
        check_irq(&*self.engine.host, self.dom, &irq)?;
        self.with(|open| {
            open.file.assign_irq(&irq, eventfd.as_fd()).map_err(|error| match error.errno {
                Errno::BUSY => Error::Busy { what: "an interrupt for this eventfd".to_owned() },
                Errno::NOSPC => self.full(self.engine.control.info().max_irqs),
                _ => error.into(),
            })?;
            let (serial, counts) = (self.serial(), Arc::new(IrqCounts::default()));
            let irqfd = IrqFd { irq, eventfd, counts: Arc::clone(&counts) };
            open.irqs.insert(serial, irqfd);
            Ok((serial, counts))
        })
    }

    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Option<u64> {
        let open = lock(&self.open);
        let same = |irqfd: &IrqFd| irqfd.eventfd.is(eventfd) && irqfd.irq == *irq;
        open.as_ref()?.irqs.iter().find_map(|(serial, irqfd)| same(irqfd).then_some(*serial))
    }

    fn unregister_irq(&self, serial: u64) {
        let ended = self.with(|open| {
            let Some(irqfd) = open.irqs.remove(&serial) else { return Ok(()) };
            irqfd.count(&open.file)?;
            Ok(open.file.deassign_irq(&irqfd.irq, irqfd.eventfd.as_fd())?)
        });
        if let Err(error) = ended {
            tracing::debug!(%error, dom = %self.dom, "an irqfd was not ended");
        }
    }

    fn count_irqs(&self, serial: u64) {
        let counted = self.with(|open| match open.irqs.get(&serial) {
            Some(irqfd) => Ok(irqfd.count(&open.file)?),
            None => Ok(()),
        });
        if let Err(error) = counted {
            tracing::debug!(%error, dom = %self.dom, "an irqfd was not asked");
        }
    }

    fn lower(&self, serial: u64, irq: &Irq) -> Result<()> {
        self.with(|open| match open.irqs.get(&serial) {
            Some(irqfd) => Ok(open.file.lower(irq, irqfd.eventfd.as_fd())?),
            None => Err(Error::NotRegistered { addr: 0 }),
        })
    }

    fn listen(&self, eventfd: EventFd, port: Port) -> Result<()> {
        Irq::EventChannel(port).check()?;
        self.with(|open| {
            open.file.assign_channel(port, eventfd.as_fd()).map_err(|error| match error.errno {
                Errno::BUSY => Error::Busy { what: format!("an eventfd for {port}") },
                Errno::NOSPC => self.full(self.engine.control.info().max_irqs),
                _ => error.into(),
            })?;
            open.channels.insert(port, eventfd);
            Ok(())
        })
    }

    fn stop_listening(&self, port: Port) {
        let stopped = self.with(|open| match open.channels.remove(&port) {
            Some(eventfd) => Ok(open.file.deassign_channel(port, eventfd.as_fd())?),
            None => Ok(()),
        });
        if let Err(error) = stopped {
            tracing::debug!(%error, dom = %self.dom, "an event channel was not let go of");
        }
    }

    fn close(&self) -> Result<()> {
        // The last counts, and whether it is dead.
        self.counters();
        let Some(open) = lock(&self.open).take() else { return Ok(()) };
        let Open { file, doorbells, mut hold, .. } = open;
        // No vCPU waits for us after this.
        drop(file);
        hold.settle(&*self.engine.host, &self.engine.run_dir, doorbells.inherited())
    }

    fn counters(&self) -> Counters {
        let asked = self.with(|open| {
            let stats = open.file.stats()?;
            Ok(counters(&stats, &open.doorbells.counters))
        });
        let mut last = lock(&self.counters);
        if let Ok(counters) = asked {
            *last = counters;
        }
        *last
    }

    fn registered(&self) -> Vec<Registered> {
        let listed = self.with(|open| {
            let kicks: HashMap<_, _> = open.file.assigned()?.into_iter().collect();
            let show = |ours: &Registration| {
                let delivered = kicks.get(&ours.doorbell).copied().unwrap_or(0);
                // Ours are those that a dead engine left.
                Registered { doorbell: ours.doorbell, kicks: ours.kicks + delivered }
            };
            Ok(open.doorbells.table().iter().map(show).collect())
        });
        listed.unwrap_or_default()
    }

    fn held(&self) -> Vec<Kick> {
        let held = self.with(|open| {
            let all: BTreeSet<Kick> =
                open.file.held()?.into_iter().chain(open.doorbells.held().to_vec()).collect();
            Ok(all.into_iter().collect())
        });
        held.unwrap_or_default()
    }

    /// The module wakes vCPUs by a call that does not fail.
    fn last_error(&self) -> Option<HostError> {
        None
    }

    fn gone(&self) -> BorrowedFd<'_> {
        self.gone.as_fd()
    }

    fn is_served(&self) -> bool {
        self.with(|open| Ok(open.file.stats()?)).is_ok()
    }
}

impl Drop for KernelGuest {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, dom = %self.dom, "a guest was not let go of cleanly");
        }
    }
}

/// What the module counted, and what we signalled for a dead engine.
fn counters(stats: &Stats, ours: &Counters) -> Counters {
    Counters {
        delivered: stats.delivered,
        held: stats.held,
        redelivered: stats.redelivered + ours.redelivered,
        late: stats.late,
        reads: stats.reads,
        broadcasts: stats.broadcasts,
        odd: stats.odd,
        spurious: stats.spurious,
        failed: ours.failed,
    }
}
