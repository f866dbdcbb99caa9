//! Backends that are processes at a Unix socket: vhost-user.
//!
//! A [`Frontend`] is one connection to one backend. Nothing is started before the backend has acknowledged what comes
//! first: many drop a kick that arrives earlier. A backend without acknowledgements (protocol feature
//! REPLY_ACK) is asked for its features instead: as it answers in order, it has done the rest by then.

mod connection;
mod requests;
pub mod wire;

use crate::eventfd::{Signaller, new_eventfd};
use crate::features::{VERSION_1, check_accepted, of_device};
use crate::{Backend, Error, Inflight, Lack, Memory, Needs, Queue, Region, Result, Wrong};
use connection::Connection;
use core::ops::Range;
use core::time::Duration;
use requests::Requests;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use wire::{
    ConfigRange, InflightArea, MAX_CONFIG, MAX_REGIONS, MemoryRegion, PROTOCOL_FEATURES, Payload,
    Request, VRING_INDEX_MASK, VringAddr, VringState, XEN_MMAP_FOREIGN, XenRegion, protocol,
};

/// The protocol features that are negotiated where the backend has them. All others are left alone.
const PROTOCOL: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::BACKEND_REQ
    | protocol::CONFIG
    | protocol::INFLIGHT_SHMFD
    | protocol::RESET_DEVICE
    | protocol::XEN_MMAP;

/// More memory for requests in flight than any backend needs, in bytes.
const MAX_INFLIGHT: u64 = 64 << 20;
/// The most queues that a backend can report, as many as virtio's largest devices.
const MAX_QUEUES_SAID: u64 = 0x8000;
/// The most queues of which a kick or call eventfd can be set.
const MAX_QUEUES: u16 = 256;

/// How long a thread of a backend has to look once more at a queue that it found enabled, of which no reply tells. A vCPU
/// may wait meanwhile.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// A connection to a vhost-user backend.
#[derive(Debug)]
pub struct Frontend {
    connection: Connection,
    /// What the backend offers, with vhost's own bits.
    offered: u64,
    /// What the driver has accepted of it.
    accepted: u64,
    /// The protocol features that both sides have.
    protocol: u64,
    queues: u16,
    running: BTreeSet<u16>,
    /// Whether another process began the session.
    is_anothers: bool,
    /// Where the guest has memory, once that is set.
    memory: Vec<Range<u64>>,
    errors: OwnedFd,
    /// What the backend requests by itself, until it closes that.
    requests: Option<Requests>,
    signaller: Signaller,
}

/// Whose session a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    New,
    /// A process began it that was killed.
    Another,
}

impl Frontend {
    /// Connects to a backend that listens at a path, and negotiates with it. Each exchange with the backend
    /// may take as long as `limit`, now and later.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::Lacks`] if the backend lacks what `needs` has; what can go wrong with a reply.
    pub fn connect(path: &Path, needs: Needs, limit: Duration) -> Result<Self> {
        Self::negotiate(Connection::open(path, limit)?, needs, Session::New)
    }

    /// The same over a socket that is connected.
    ///
    /// # Errors
    /// As [`Frontend::connect`].
    pub fn over(socket: UnixStream, needs: Needs, limit: Duration) -> Result<Self> {
        Self::negotiate(Connection::over(socket.into(), limit), needs, Session::New)
    }

    /// Goes on with the session of a process that was killed, over the socket that it had, whose driver had accepted
    /// these features, or none yet. Whatever the process had requested last, the backend has the features and no queue is
    /// running afterwards, and [`Backend::left_at`] says where each was; its memory is to be set again, as the process may
    /// not have come so far.
    ///
    /// # Errors
    /// As [`Frontend::connect`].
    pub fn go_on(socket: UnixStream, needs: Needs, features: u64, limit: Duration) -> Result<Self> {
        let connection = Connection::over(socket.into(), limit);
        connection.skip_replies()?;
        let mut new = Self::negotiate(connection, needs, Session::Another)?;
        // Before them a queue is not to be disabled.
        new.accept(features & new.features())?;
        let queues = 0..new.queues.min(needs.queues);
        new.disable(queues.clone())?;
        for index in queues {
            new.stop(index)?;
        }
        Ok(new)
    }

    /// Ends the session of a process that was killed, over the socket that it had: once the backend has closed the
    /// connection, it has completed what it had begun, as far as it does that at all. Replies that it owes the process
    /// find a reader until then: some backends complete nothing more after one that did not.
    ///
    /// # Errors
    /// [`Error::Open`] if it does not close the connection within `limit`; [`Error::System`].
    pub fn end(socket: UnixStream, limit: Duration) -> Result<()> {
        Connection::over(socket.into(), limit).end()
    }

    fn negotiate(connection: Connection, needs: Needs, session: Session) -> Result<Self> {
        let mut new = Self {
            connection,
            offered: 0,
            accepted: 0,
            protocol: 0,
            queues: 0,
            running: BTreeSet::new(),
            is_anothers: session == Session::Another,
            memory: Vec::new(),
            errors: new_eventfd()?,
            requests: None,
            signaller: Signaller::default(),
        };
        new.offered = new.get_u64(Request::GetFeatures)?;
        let lacks = |lack| Err(Error::Lacks { lack });
        if new.offered & VERSION_1 == 0 {
            return lacks(Lack::Version1);
        }
        if new.offered & PROTOCOL_FEATURES == 0 {
            return lacks(Lack::ProtocolFeatures);
        }
        new.protocol = new.get_u64(Request::GetProtocolFeatures)? & PROTOCOL;
        if !new.has(protocol::CONFIG) {
            // There is nothing else that it could request.
            new.protocol &= !protocol::BACKEND_REQ;
        }
        // Acknowledgements begin once this is done, so it has none itself.
        let payload = new.protocol.emit();
        new.connection.send(Request::SetProtocolFeatures, &payload, &[])?;
        let found = if new.has(protocol::MQ) { Some(new.queues_said()?) } else { None };
        new.queues = match found {
            Some(found) if found >= needs.queues => found,
            None if needs.fixed => needs.queues,
            found => return lacks(Lack::Queues { needed: needs.queues, found }),
        };
        if session == Session::New {
            new.set(Request::SetOwner, &[], &[])?;
        }
        if new.has(protocol::BACKEND_REQ) {
            let (requests, theirs) = Requests::new()?;
            new.set(Request::SetBackendReqFd, &[], &[theirs.as_fd()])?;
            new.requests = Some(requests);
        }
        new.settle()?;
        Ok(new)
    }

    fn has(&self, feature: u64) -> bool {
        self.protocol & feature != 0
    }

    fn queues_said(&self) -> Result<u16> {
        let said = self.get_u64(Request::GetQueueNum)?;
        if !(1..=MAX_QUEUES_SAID).contains(&said) {
            return Err(self.connection.wrong(Request::GetQueueNum, Wrong::Number(said)));
        }
        Ok(u16::try_from(said).unwrap_or(u16::MAX).min(MAX_QUEUES))
    }

    /// A request whose reply is a payload of fixed size.
    fn get<R: Payload>(&self, request: Request, payload: &[u8]) -> Result<R> {
        let sizes = R::SIZE..=R::SIZE;
        let reply = self.connection.exchange(request, false, payload, &[], sizes)?;
        R::parse(&reply).ok_or(Error::Refused { request })
    }

    fn get_u64(&self, request: Request) -> Result<u64> {
        self.get(request, &[])
    }

    /// A request without a reply of its own: acknowledged, if the backend can.
    fn set(&self, request: Request, payload: &[u8], files: &[BorrowedFd<'_>]) -> Result<()> {
        if !self.has(protocol::REPLY_ACK) {
            return self.connection.send(request, payload, files);
        }
        let sizes = u64::SIZE..=u64::SIZE;
        let reply = self.connection.exchange(request, true, payload, files, sizes)?;
        match u64::parse(&reply) {
            Some(0) => Ok(()),
            _ => Err(Error::Refused { request }),
        }
    }

    /// Waits until the backend has done what was requested.
    fn settle(&self) -> Result<()> {
        if self.has(protocol::REPLY_ACK) {
            return Ok(());
        }
        let lost = self.accepted & !self.get_u64(Request::GetFeatures)?;
        if lost != 0 {
            return Err(self.connection.wrong(Request::GetFeatures, Wrong::Features(lost)));
        }
        Ok(())
    }

    fn queue(&self, index: u16) -> Result<u32> {
        if index >= self.queues {
            return Err(Error::NoQueue { index, queues: self.queues });
        }
        Ok(u32::from(index))
    }

    /// Has queues not looked at any more when they are kicked, before they are stopped: what is looked at as it stops, or as
    /// it starts and is not ready yet, is more than some backends can bear.
    fn disable(&self, queues: impl IntoIterator<Item = u16>) -> Result<()> {
        for index in queues {
            self.set_number(Request::SetVringEnable, index.into(), 0)?;
        }
        self.settle()?;
        thread::sleep(LAST_LOOK);
        Ok(())
    }

    /// Stops a queue. Returns where it is in the available ring.
    fn stop(&mut self, index: u16) -> Result<u16> {
        let number = self.queue(index)?;
        let request = Request::GetVringBase;
        let asked = VringState { index: number, num: 0 }.emit();
        let state: VringState = self.get(request, &asked)?;
        if state.index != number {
            return Err(self.connection.wrong(request, Wrong::Queue(state.index)));
        }
        self.running.remove(&index);
        u16::try_from(state.num)
            .map_err(|_| self.connection.wrong(request, Wrong::Number(u64::from(state.num))))
    }

    /// Stops a queue, which is then started anew if ever.
    fn stop_for_good(&mut self, index: u16) -> Result<u16> {
        let base = self.stop(index)?;
        // Another process may go on with the session before that, from the queue's beginning.
        self.set_number(Request::SetVringBase, index.into(), 0)?;
        Ok(base)
    }

    fn set_number(&self, request: Request, index: u32, num: u32) -> Result<()> {
        self.set(request, &VringState { index, num }.emit(), &[])
    }

    fn set_eventfd(&self, request: Request, index: u32, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.set(request, &(u64::from(index) & VRING_INDEX_MASK).emit(), &[eventfd])
    }

    /// What is asked for, or set, at this place of the configuration.
    fn config_range(&self, offset: u32, length: usize) -> Result<ConfigRange> {
        if !self.has(protocol::CONFIG) {
            return Err(Error::NoConfiguration);
        }
        let beyond = Error::BeyondConfiguration { offset, length };
        match u32::try_from(length) {
            Ok(size) if (offset as usize).saturating_add(length) <= MAX_CONFIG => {
                Ok(ConfigRange { offset, size, flags: 0 })
            }
            _ => Err(beyond),
        }
    }

    /// A region as the memory table has it, and its file.
    fn region<'a>(
        &self,
        region: &Region<'a>,
    ) -> Result<((MemoryRegion, XenRegion), BorrowedFd<'a>)> {
        let (offset, xen, file) = match region.memory {
            Memory::File { file, offset } => (offset, XenRegion::default(), file),
            Memory::Foreign { .. } if !self.maps_guests() => {
                return Err(Error::Memory {
                    why: "it does not map a guest's memory by itself (protocol feature XEN_MMAP)",
                });
            }
            Memory::Foreign { privcmd, domain } => {
                let domain = u32::from(domain.0);
                (0, XenRegion { flags: XEN_MMAP_FOREIGN, domain }, privcmd)
            }
        };
        let (guest_address, size) = (region.guest_address, region.size);
        let region = MemoryRegion { guest_address, size, user_address: guest_address, offset };
        Ok(((region, xen), file))
    }
}

impl Backend for Frontend {
    fn features(&self) -> u64 {
        of_device(self.offered)
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn maps_guests(&self) -> bool {
        self.has(protocol::XEN_MMAP)
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        check_accepted(features, self.features())?;
        self.set(Request::SetFeatures, &(features | PROTOCOL_FEATURES).emit(), &[])?;
        self.accepted = features;
        self.settle()
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let request = Request::GetConfig;
        let asked = self.config_range(offset, bytes.len())?;
        let mut payload = asked.emit();
        payload.resize(ConfigRange::SIZE + bytes.len(), 0);
        let reply = self.connection.exchange(request, false, &payload, &[], 0..=payload.len())?;
        // Without bytes, or without anything, it is a refusal.
        let Some((range, found)) = reply.split_at_checked(ConfigRange::SIZE) else {
            return Err(Error::Refused { request });
        };
        let range = ConfigRange::parse(range).unwrap_or_default();
        if range.size == 0 && found.is_empty() && !bytes.is_empty() {
            return Err(Error::Refused { request });
        }
        if (range.offset, range.size) != (asked.offset, asked.size) || found.len() != bytes.len() {
            let wrong = Wrong::Configuration { offset: range.offset, size: range.size };
            return Err(self.connection.wrong(request, wrong));
        }
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let mut payload = self.config_range(offset, bytes.len())?.emit();
        payload.extend_from_slice(bytes);
        self.set(Request::SetConfig, &payload, &[])?;
        self.settle()
    }

    fn set_memory(&mut self, regions: &[Region<'_>]) -> Result<()> {
        if !(1..=MAX_REGIONS).contains(&regions.len()) {
            return Err(Error::Memory { why: "a memory table has 1 to 8 regions" });
        }
        let table: Vec<_> =
            regions.iter().map(|region| self.region(region)).collect::<Result<_>>()?;
        let (table, files): (Vec<_>, Vec<_>) = table.into_iter().unzip();
        let payload = wire::memory_table(&table, self.has(protocol::XEN_MMAP));
        self.set(Request::SetMemTable, &payload, &files)?;
        self.memory = regions.iter().map(Region::addresses).collect();
        self.settle()
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()> {
        let number = self.queue(index)?;
        queue.check(&self.memory)?;
        let place = VringAddr {
            index: number,
            flags: 0,
            descriptors: queue.descriptors,
            used: queue.used,
            available: queue.available,
            log: 0,
        };
        self.set_number(Request::SetVringNum, number, u32::from(queue.size))?;
        self.set_number(Request::SetVringBase, number, u32::from(queue.base))?;
        self.set(Request::SetVringAddr, &place.emit(), &[])?;
        self.set_eventfd(Request::SetVringErr, number, self.errors.as_fd())?;
        self.set_eventfd(Request::SetVringCall, number, call)?;
        self.set_eventfd(Request::SetVringKick, number, kick)?;
        self.running.insert(index);
        self.set_number(Request::SetVringEnable, number, 1)?;
        self.settle()?;
        self.signaller.signal(kick)
    }

    fn notes_requests(&self) -> bool {
        self.has(protocol::INFLIGHT_SHMFD)
    }

    fn new_inflight(&mut self, queues: u16, queue_size: u16) -> Result<Inflight> {
        if !self.notes_requests() {
            return Err(Error::NoInflight);
        }
        let request = Request::GetInflightFd;
        let asked = InflightArea { queues, queue_size, ..InflightArea::default() };
        let (reply, file) =
            self.connection.exchange_for_file(request, &asked.emit(), InflightArea::SIZE)?;
        let area = InflightArea::parse(&reply).ok_or(Error::Refused { request })?;
        if !(1..=MAX_INFLIGHT).contains(&area.size) {
            return Err(self.connection.wrong(request, Wrong::Number(area.size)));
        }
        Ok(Inflight { file, offset: area.offset, size: area.size, queues, queue_size })
    }

    fn set_inflight(&mut self, inflight: &Inflight) -> Result<()> {
        if !self.notes_requests() {
            return Err(Error::NoInflight);
        }
        let Inflight { file, offset, size, queues, queue_size } = inflight;
        let (offset, size, queues, queue_size) = (*offset, *size, *queues, *queue_size);
        let area = InflightArea { size, offset, queues, queue_size, padding: 0 };
        self.set(Request::SetInflightFd, &area.emit(), &[file.as_fd()])?;
        self.settle()
    }

    fn left_at(&mut self, index: u16) -> Result<Option<u16>> {
        // Once more: a backend may have completed what it had begun, and more, when the queue was stopped.
        if self.is_anothers && index < self.queues { self.stop(index).map(Some) } else { Ok(None) }
    }

    fn set_kick(&mut self, index: u16, kick: BorrowedFd<'_>) -> Result<()> {
        let number = self.queue(index)?;
        // rust-vmm's backends watch the eventfd that a queue has when it is enabled.
        self.disable([index])?;
        self.set_eventfd(Request::SetVringKick, number, kick)?;
        self.set_number(Request::SetVringEnable, number, 1)?;
        self.settle()?;
        self.signaller.signal(kick)
    }

    fn set_call(&mut self, index: u16, call: BorrowedFd<'_>) -> Result<()> {
        let number = self.queue(index)?;
        self.set_eventfd(Request::SetVringCall, number, call)?;
        self.settle()
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16> {
        self.queue(index)?;
        self.disable([index])?;
        self.stop_for_good(index)
    }

    fn reset(&mut self) -> Result<()> {
        if !self.running.is_empty() {
            self.disable(self.running.iter().copied())?;
        }
        // Also before RESET_DEVICE: only a queue that is stopped is not looked at any more.
        while let Some(index) = self.running.first().copied() {
            self.stop_for_good(index)?;
        }
        self.accepted = 0;
        if self.has(protocol::RESET_DEVICE) {
            self.set(Request::ResetDevice, &[], &[])?;
        }
        self.settle()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.connection.fd())
    }

    fn check(&self) -> Result<()> {
        self.connection.check()
    }

    fn errors(&self) -> BorrowedFd<'_> {
        self.errors.as_fd()
    }

    fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.requests.as_ref().map(Requests::fd)
    }

    fn take_requests(&mut self) -> Result<bool> {
        let Some(requests) = &mut self.requests else { return Ok(false) };
        let (changed, closed) = requests.take()?;
        if closed {
            self.requests = None;
        }
        Ok(changed)
    }
}
