//! A small device model for the tests of Xen's rules.
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::{DomId, IoServerId, Request, Space, VcpuId};
use xen_eventfd_host::{Errno, EventChannels, Host, IoreqPage, LocalPort};
use xen_eventfd_model::{Client, Config, Kind, Model, Vcpu};

pub(crate) const DOORBELL: u64 = 0xFE00_0050;

pub(crate) fn mmio(first: u64, last: u64) -> Bytes {
    Bytes::new(Space::Mmio, first, last).unwrap()
}

pub(crate) fn pio(first: u64, last: u64) -> Bytes {
    Bytes::new(Space::Pio, first, last).unwrap()
}

pub(crate) fn doorbell() -> Bytes {
    mmio(DOORBELL, DOORBELL + 3)
}

/// A machine with one HVM guest of two vCPUs, and one client.
pub(crate) struct Bench {
    pub(crate) model: Model,
    pub(crate) dom: DomId,
    pub(crate) host: Arc<Client>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(Arch::X86)
    }

    pub(crate) fn on(arch: Arch) -> Self {
        let model = Model::on(arch);
        let dom = model.domain(Config::new("guest").vcpus(2).kind(Kind::Hvm));
        let host = model.client("device model");
        Self { model, dom, host }
    }

    pub(crate) fn vcpu(&self, id: u32) -> Vcpu {
        self.model.vcpu(self.dom, VcpuId(id))
    }

    pub(crate) fn server(&self, bytes: Bytes) -> Server {
        Server::new(&self.host, self.dom, &[bytes])
    }

    /// Creates `count` servers, disabled.
    pub(crate) fn servers(&self, count: usize) -> Vec<IoServerId> {
        (0..count).map(|_| self.host.create_server(self.dom).unwrap()).collect()
    }
}

/// An enabled ioreq server with its page mapped and its ports bound.
pub(crate) struct Server {
    pub(crate) id: IoServerId,
    pub(crate) page: Box<dyn IoreqPage>,
    pub(crate) channels: Box<dyn EventChannels>,
    pub(crate) ports: Vec<LocalPort>,
}

impl Server {
    pub(crate) fn new(host: &Arc<Client>, dom: DomId, bytes: &[Bytes]) -> Self {
        let id = host.create_server(dom).unwrap();
        let page = host.map_page(dom, id).unwrap();
        bytes.iter().for_each(|bytes| host.map_range(dom, id, *bytes).unwrap());
        host.set_server_state(dom, id, true).unwrap();
        let channels = host.event_channels().unwrap();
        let vcpus = host.vcpus(dom).unwrap() as usize;
        let bind = |slot: &xen_eventfd_core::slot::Slot| channels.bind(dom, slot.vp_eport());
        let ports = page.slots()[..vcpus].iter().map(|slot| bind(slot).unwrap()).collect();
        Self { id, page, channels, ports }
    }

    /// Answers a vCPU's request and notifies the vCPU.
    pub(crate) fn answer(&self, vcpu: usize, data: u64) -> Option<Request> {
        let served = self.page.slots()[vcpu].serve(|_| data);
        self.notify(vcpu);
        served
    }

    pub(crate) fn notify(&self, vcpu: usize) {
        self.channels.notify(self.ports[vcpu]).unwrap();
    }
}

/// The ports with a pending event.
pub(crate) fn pending(channels: &dyn EventChannels) -> Vec<LocalPort> {
    let mut ports = Vec::new();
    channels.pending(&mut ports).unwrap();
    ports
}

pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).unwrap() == 1
}

pub(crate) fn errno<T: std::fmt::Debug>(result: xen_eventfd_host::Result<T>) -> Errno {
    result.unwrap_err().errno
}
