//! A stand-in for a VMM: an ioreq server over the devices' whole pages, as QEMU's, and a thread
//! that answers it.

use super::backend::Queues;
use super::machine::{DEVICES, device_page, doorbell};
use crate::failure::Failure;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use xen_eventfd::{DomId, Error, Host, HostError, IoServerId, Space};
use xen_eventfd_core::Request;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_host::{EventChannels, IoreqPage, LocalPort};

/// A VMM at work. Its server goes with the model.
#[derive(Debug)]
pub(super) struct Vmm {
    counts: Arc<Counts>,
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

/// What it has done.
#[derive(Debug, Default)]
struct Counts {
    wakeups: AtomicU64,
    requests: AtomicU64,
}

/// What its thread holds.
struct Work {
    page: Box<dyn IoreqPage>,
    events: Box<dyn EventChannels>,
    slots: HashMap<LocalPort, usize>,
    counts: Arc<Counts>,
    /// Kicks are passed on to these; they do not come when an engine takes them.
    queues_of_devices: Arc<Queues>,
}

impl Vmm {
    /// Takes the devices' pages and begins to answer.
    pub(super) fn start(
        host: &dyn Host,
        dom: DomId,
        queues_of_devices: Arc<Queues>,
    ) -> Result<Self, Failure> {
        let counts = Arc::new(Counts::default());
        let work =
            Work::new(host, dom, Arc::clone(&counts), queues_of_devices).map_err(Error::from)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|errno| Failure::system("make an eventfd", errno))?;
        let stopped =
            stop.try_clone().map_err(|error| Failure::system("share an eventfd", error))?;
        let thread = std::thread::spawn(move || work.until(&stopped));
        Ok(Self { counts, stop, thread })
    }

    /// How often it woke up, and how many requests it answered.
    pub(super) fn so_far(&self) -> (u64, u64) {
        let Counts { wakeups, requests } = &*self.counts;
        (wakeups.load(Ordering::Acquire), requests.load(Ordering::Acquire))
    }

    /// Ends it, when no vCPU waits for it any more.
    pub(super) fn stop(self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let _ = self.thread.join();
    }
}

impl Work {
    fn new(
        host: &dyn Host,
        dom: DomId,
        counts: Arc<Counts>,
        queues_of_devices: Arc<Queues>,
    ) -> Result<Self, HostError> {
        let server: IoServerId = host.create_server(dom)?;
        let page = host.map_page(dom, server)?;
        for (first, last) in (0..DEVICES).map(device_page) {
            if let Ok(bytes) = Bytes::new(Space::Mmio, first, last) {
                host.map_range(dom, server, bytes)?;
            }
        }
        host.set_server_state(dom, server, true)?;
        let events = host.event_channels()?;
        let vcpus = usize::try_from(host.vcpus(dom)?).unwrap_or(0);
        let mut slots = HashMap::new();
        for (vcpu, slot) in page.slots().iter().take(vcpus).enumerate() {
            let port = events.bind(dom, slot.vp_eport())?;
            // A newly bound channel is rung once, for nothing.
            events.pending(&mut Vec::new())?;
            events.eoi(port)?;
            slots.insert(port, vcpu);
        }
        Ok(Self { page, events, slots, counts, queues_of_devices })
    }

    fn until(self, stopped: &OwnedFd) {
        let mut ports = Vec::new();
        loop {
            let events = self.events.fd();
            let mut waiting = [
                PollFd::from_borrowed_fd(events, PollFlags::IN),
                PollFd::new(stopped, PollFlags::IN),
            ];
            let _ = poll(&mut waiting, None);
            let [_, stop] = &waiting;
            if !stop.revents().is_empty() {
                return;
            }
            self.counts.wakeups.fetch_add(1, Ordering::AcqRel);
            ports.clear();
            if self.events.pending(&mut ports).is_err() {
                return;
            }
            ports.iter().for_each(|port| self.answer(*port));
        }
    }

    fn answer(&self, port: LocalPort) {
        let slot = self.slots.get(&port).and_then(|vcpu| self.page.slots().get(*vcpu));
        if slot.and_then(|slot| slot.serve(|request| self.emulate(request))).is_some() {
            self.counts.requests.fetch_add(1, Ordering::AcqRel);
            // Either fails only when the guest is gone.
            let _ = self.events.notify(port);
        }
        let _ = self.events.eoi(port);
    }

    /// A write to a doorbell is passed on; every register reads as 0.
    fn emulate(&self, request: &Request) -> u64 {
        if let Request::Kick(kick) = request {
            let device = (0..DEVICES).find(|device| doorbell(*device) == kick.access.addr);
            let queues = device.and_then(|device| self.queues_of_devices.get(device));
            let queue = usize::try_from(kick.value).ok();
            if let Some(each) = queues.zip(queue).and_then(|(queues, queue)| queues.get(queue)) {
                each.ring();
            }
        }
        0
    }
}
