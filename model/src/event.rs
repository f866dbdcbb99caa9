//! Event channels between guests and domain 0 (`xen/common/event_channel.c`), and the queues in
//! which Linux passes them to a process (`drivers/xen/evtchn.c`).

use crate::domain::{Domain, Life};
use crate::event_flag::EventFlag;
use crate::world::{DOM0, Key, Serial, World};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use xen_eventfd_core::{DomId, Port, VcpuId};
use xen_eventfd_host::{Binding, LocalPort};

/// The guest's end of an event channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) end: End,
    /// Xen's own port: an event wakes this vCPU from an ioreq.
    pub(crate) waits: Option<VcpuId>,
    pub(crate) pending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Unbound {
        by: DomId,
    },
    /// Bound to this port of domain 0.
    Bound {
        local: u32,
    },
    /// Bound by domain 0's own services.
    Toolstack,
}

impl Channel {
    pub(crate) fn toolstack() -> Self {
        Self { end: End::Toolstack, waits: None, pending: false }
    }

    fn unbound(waits: Option<VcpuId>) -> Self {
        Self { end: End::Unbound { by: DOM0 }, waits, pending: false }
    }
}

/// Domain 0's end.
#[derive(Debug)]
pub(crate) struct LocalEnd {
    pub(crate) set: Serial,
    pub(crate) dom: DomId,
    pub(crate) remote: Port,
    /// Whether the guest's end still exists.
    pub(crate) connected: bool,
    /// An event that is not queued yet, because the last one has not ended.
    pub(crate) pending: bool,
    /// The last event has not ended.
    pub(crate) masked: bool,
}

/// One open `/dev/xen/evtchn`.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) client: Serial,
    /// Events not read yet. As in Linux, an event outlives the binding of its port, and its
    /// number may be bound again.
    pub(crate) queue: VecDeque<u32>,
    pub(crate) flag: Arc<EventFlag>,
}

impl Domain {
    /// The lowest free port: EINVAL in a dying domain, ENOSPC if there is none.
    pub(crate) fn allocate_port(&mut self, waits: Option<VcpuId>) -> Result<Port, Errno> {
        if self.life == Life::Zombie {
            return Err(Errno::INVAL);
        }
        let free = (1..=self.last_port).find(|port| !self.ports.contains_key(port));
        let port = free.ok_or(Errno::NOSPC)?;
        self.ports.insert(port, Channel::unbound(waits));
        Ok(Port(port))
    }
}

impl World {
    /// Opens a set.
    pub(crate) fn open_set(&mut self, client: Serial, flag: Arc<EventFlag>) -> Serial {
        let set = self.serial();
        self.sets.insert(set, Set { client, queue: VecDeque::new(), flag });
        set
    }

    /// Moves a set to a process that has nothing else. Returns its new number.
    pub(crate) fn inherit_set(&mut self, set: Serial) -> Serial {
        let owner = self.serial();
        if let Some(mut kept) = self.sets.remove(&set) {
            kept.client = owner;
            self.sets.insert(owner, kept);
        }
        self.ports.values_mut().filter(|end| end.set == set).for_each(|end| end.set = owner);
        owner
    }

    /// Closes a set as the close of its last file descriptor does: all its ports are unbound.
    pub(crate) fn close_set(&mut self, set: Serial) {
        let ports: Vec<u32> =
            self.ports.iter().filter(|(_, end)| end.set == set).map(|(port, _)| *port).collect();
        for port in ports {
            self.drop_local(port);
        }
        self.sets.remove(&set);
    }

    /// `EVTCHNOP_bind_interdomain`: ESRCH without such a domain; EINVAL unless the port is unbound
    /// and allocated for domain 0. The local end is pending at once, as events to an unbound port are lost.
    pub(crate) fn bind(&mut self, set: Serial, dom: DomId, remote: Port) -> Result<u32, Errno> {
        if dom == DOM0 {
            return Err(Errno::INVAL);
        }
        let local = (1..).find(|port| !self.ports.contains_key(port)).ok_or(Errno::NOSPC)?;
        let domain = self.domains.get_mut(&dom).ok_or(Errno::SRCH)?;
        let channel = domain.ports.get_mut(&remote.0).ok_or(Errno::INVAL)?;
        if channel.end != (End::Unbound { by: DOM0 }) {
            return Err(Errno::INVAL);
        }
        channel.end = End::Bound { local };
        let (connected, pending, masked) = (true, false, false);
        self.ports.insert(local, LocalEnd { set, dom, remote, connected, pending, masked });
        self.set_pending(local);
        Ok(local)
    }

    /// ENOTCONN unless the port belongs to this set.
    fn owned(&mut self, set: Serial, local: u32) -> Result<&mut LocalEnd, Errno> {
        self.ports.get_mut(&local).filter(|end| end.set == set).ok_or(Errno::NOTCONN)
    }

    pub(crate) fn unbind(&mut self, set: Serial, local: u32) -> Result<(), Errno> {
        self.owned(set, local)?;
        self.drop_local(local);
        Ok(())
    }

    /// Closes a port of domain 0; the guest's end can be bound again.
    fn drop_local(&mut self, local: u32) {
        let Some(end) = self.ports.remove(&local).filter(|end| end.connected) else { return };
        let domain = self.domains.get_mut(&end.dom);
        if let Some(channel) = domain.and_then(|domain| domain.ports.get_mut(&end.remote.0)) {
            channel.end = End::Unbound { by: DOM0 };
        }
    }

    /// The guest closed its end: domain 0's stays, connected to nothing.
    pub(crate) fn forget_remote(&mut self, dom: DomId, remote: Port) {
        let mut ends = self.ports.values_mut();
        if let Some(end) = ends.find(|end| (end.dom, end.remote) == (dom, remote) && end.connected)
        {
            end.connected = false;
        }
    }

    /// Closes a guest's port.
    pub(crate) fn close_port(&mut self, dom: DomId, port: Port) {
        if let Some(domain) = self.domains.get_mut(&dom) {
            domain.ports.remove(&port.0);
        }
        self.forget_remote(dom, port);
    }

    /// Notifies the guest's end. An event without a receiver is lost; that is not an error.
    pub(crate) fn notify(&mut self, set: Serial, local: u32) -> Result<(), Errno> {
        self.owned(set, local)?;
        self.notify_port(local)
    }

    /// `EVTCHNOP_send` by any process of domain 0.
    pub(crate) fn notify_port(&mut self, local: u32) -> Result<(), Errno> {
        let (dom, port) = match self.ports.get(&local) {
            None => return Err(Errno::INVAL),
            Some(end) if end.connected => (end.dom, end.remote),
            Some(_) => return Ok(()),
        };
        let Some(domain) = self.domains.get_mut(&dom) else { return Ok(()) };
        let Some(channel) = domain.ports.get_mut(&port.0) else { return Ok(()) };
        if let Some(vcpu) = channel.waits {
            if let Some(vcpu) = domain.vcpus.get_mut(vcpu.0 as usize) {
                vcpu.wake();
            }
        } else {
            channel.pending = true;
            domain.arrive();
        }
        Ok(())
    }

    /// Notifies domain 0's end of a guest's port (`evtchn_send`): EINVAL if the port is Xen's or does not
    /// exist; an event to an unbound port is lost.
    pub(crate) fn send(&mut self, key: Key, port: Port) -> Result<(), Errno> {
        let domain = self.find(key).ok_or(Errno::SRCH)?;
        match domain.ports.get(&port.0) {
            Some(Channel { waits: None, end: End::Bound { local }, .. }) => {
                let local = *local;
                self.set_pending(local);
                Ok(())
            }
            Some(Channel { waits: None, .. }) => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Notifies domain 0 on behalf of Xen (`notify_via_xen_event_channel`): lost if the port is not bound.
    pub(crate) fn notify_from_xen(&mut self, dom: DomId, port: Port) {
        let channel = self.domains.get(&dom).and_then(|domain| domain.ports.get(&port.0));
        if let Some(Channel { end: End::Bound { local }, .. }) = channel {
            let local = *local;
            self.set_pending(local);
        }
    }

    fn set_pending(&mut self, local: u32) {
        if let Some(end) = self.ports.get_mut(&local) {
            end.pending = true;
            self.deliver(local);
        }
    }

    /// Queues a pending event unless the port is masked, and masks the port.
    fn deliver(&mut self, local: u32) {
        let Some(end) = self.ports.get_mut(&local).filter(|end| end.pending && !end.masked) else {
            return;
        };
        (end.pending, end.masked) = (false, true);
        let (set, from) = (end.set, (end.dom, end.remote));
        let Some(set) = self.sets.get_mut(&set) else { return };
        if set.queue.is_empty() {
            set.flag.raise();
        }
        set.queue.push_back(local);
        if let Some(client) = self.clients.get_mut(&set.client) {
            *client.events.entry(from).or_default() += 1;
        }
    }

    /// Takes the queue of a set: each bound port once, in order. Events of other ports are stale and are
    /// dropped.
    pub(crate) fn take_events(&mut self, serial: Serial) -> BTreeSet<u32> {
        let Some(set) = self.sets.get_mut(&serial) else { return BTreeSet::new() };
        if !set.queue.is_empty() {
            set.flag.lower();
        }
        let queued = set.queue.drain(..);
        queued.filter(|port| self.ports.get(port).is_some_and(|end| end.set == serial)).collect()
    }

    /// Ends an event. As a write to `/dev/xen/evtchn` does, it ignores ports of other sets and ports
    /// that are not masked.
    pub(crate) fn end_event(&mut self, set: Serial, local: u32) {
        if let Ok(end) = self.owned(set, local) {
            end.masked = false;
            self.deliver(local);
        }
    }

    /// `EVTCHNOP_status`: ESRCH without such a domain.
    pub(crate) fn binding(&self, dom: DomId, port: Port) -> Result<Binding, Errno> {
        if dom == DOM0 {
            return Ok(match self.ports.get(&port.0) {
                Some(end) if end.connected => {
                    Binding::Bound { by: end.dom, port: LocalPort(end.remote.0) }
                }
                Some(end) => Binding::Unbound { by: end.dom },
                None => Binding::Other,
            });
        }
        let domain = self.domains.get(&dom).ok_or(Errno::SRCH)?;
        Ok(domain.ports.get(&port.0).map_or(Binding::Other, |channel| match channel.end {
            End::Unbound { by } => Binding::Unbound { by },
            End::Bound { local } => Binding::Bound { by: DOM0, port: LocalPort(local) },
            // The domain's own port number: no process of domain 0 has it.
            End::Toolstack => Binding::Bound { by: DOM0, port: LocalPort(u32::MAX) },
        }))
    }
}
