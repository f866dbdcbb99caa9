//! The handles that a client gets from its host: pages, event channels, watches, a signaller. Each releases
//! its resource when it is dropped, and stops working when its client is killed.

use crate::client::Process;
use crate::event_flag::EventFlag;
use crate::fault::CallKind;
use crate::server::{Slots, fresh_slots};
use crate::world::{Serial, World};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use xen_eventfd_core::slot::Slot;
use xen_eventfd_core::{DomId, Port};
use xen_eventfd_host::{
    Call, EventChannels, HostError, IoreqPage, LocalPort, Releases, Result, Signaller, aio,
};

/// One mapping of an ioreq page.
#[derive(Debug)]
pub(crate) struct Page {
    process: Arc<Process>,
    page: Serial,
    slots: Arc<Slots>,
    /// The memory that a killed client sees, which it shares with no one.
    void: OnceLock<Box<Slots>>,
}

impl Page {
    pub(crate) fn new(process: Arc<Process>, page: Serial, slots: Arc<Slots>) -> Self {
        Self { process, page, slots, void: OnceLock::new() }
    }
}

impl IoreqPage for Page {
    fn slots(&self) -> &[Slot] {
        if self.process.is_killed() {
            return self.void.get_or_init(|| Box::new(fresh_slots())).as_slice();
        }
        self.slots.as_slice()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.process.shared.lock().unmap(self.page);
    }
}

/// One open `/dev/xen/evtchn`.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) process: Arc<Process>,
    pub(crate) set: Serial,
    pub(crate) flag: Arc<EventFlag>,
    /// Wakes the waiting thread. It belongs to the client and works after a kill as well.
    pub(crate) alarm: EventFlag,
}

impl EventChannels for Channels {
    fn fd(&self) -> BorrowedFd<'_> {
        self.flag.fd()
    }

    fn bind(&self, dom: DomId, remote: Port) -> Result<LocalPort> {
        self.process.call(CallKind::Bind, Call::Bind(dom, remote), |world| {
            world.bind(self.set, dom, remote).map(LocalPort)
        })
    }

    fn unbind(&self, port: LocalPort) -> Result<()> {
        self.process.call(CallKind::Unbind, Call::Event, |world| world.unbind(self.set, port.0))
    }

    fn notify(&self, port: LocalPort) -> Result<()> {
        self.process.call(CallKind::Notify, Call::Event, |world| world.notify(self.set, port.0))
    }

    fn pending(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        let queue = self
            .process
            .call(CallKind::Pending, Call::Event, |world| Ok(world.take_events(self.set)))?;
        ports.extend(queue.into_iter().map(LocalPort));
        Ok(())
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        let flags = [self.flag.fd(), self.alarm.fd()];
        let mut fds = flags.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        retry_on_intr(|| poll(&mut fds, None))
            .map_err(|errno| HostError::new(Call::Event, errno))?;
        self.alarm.lower();
        self.pending(ports)
    }

    fn wake(&self) -> Result<()> {
        self.alarm.raise();
        Ok(())
    }

    fn eoi(&self, port: LocalPort) -> Result<()> {
        self.process.call(CallKind::Eoi, Call::Event, |world| {
            world.end_event(self.set, port.0);
            Ok(())
        })
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.process.shared.lock().close_set(self.set);
    }
}

/// One watch on `@releaseDomain`.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) client: Serial,
    pub(crate) news: bool,
    pub(crate) flag: Arc<EventFlag>,
}

impl World {
    /// Notifies all watches that a domain is gone or has stopped.
    pub(crate) fn announce_release(&mut self) {
        for watch in self.watches.values_mut().filter(|watch| !watch.news) {
            watch.news = true;
            watch.flag.raise();
        }
    }
}

/// The client's end of a [`Watch`].
#[derive(Debug)]
pub(crate) struct ReleaseWatch {
    pub(crate) process: Arc<Process>,
    pub(crate) watch: Serial,
    pub(crate) flag: Arc<EventFlag>,
}

impl Releases for ReleaseWatch {
    fn fd(&self) -> BorrowedFd<'_> {
        self.flag.fd()
    }

    fn drain(&mut self) -> Result<bool> {
        let call = Call::Xenstore("@releaseDomain".to_owned());
        self.process.call(CallKind::Drain, call, |world| {
            let watch = world.watches.get_mut(&self.watch);
            let news = watch.is_some_and(|watch| core::mem::take(&mut watch.news));
            if news {
                self.flag.lower();
            }
            Ok(news)
        })
    }
}

impl Drop for ReleaseWatch {
    fn drop(&mut self) {
        self.process.shared.lock().watches.remove(&self.watch);
    }
}

/// The kernel's signal to an eventfd, while the client is not killed.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) process: Arc<Process>,
    pub(crate) context: aio::Context,
}

impl Signaller for Signals {
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()> {
        let context = &mut self.context;
        self.process.call(CallKind::Signal, Call::EventFd, |_| {
            context.signal(eventfd).map_err(|error| error.errno)
        })
    }
}
