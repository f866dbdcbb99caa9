//! A guest on the model, and a backend that notes what is asked of it.

mod mmio;
mod odd;
mod odd_drivers;
mod odd_mmio;

use super::Devices;
use crate::device::Device;
use crate::kind::{DeviceConfig, Features, Kind};
use crate::layout::Layout;
use crate::registers::Registers;
use crate::resume::{Again, Connector, KeptSession, Notebook, OwnedRegions, Rings, Sessions};
use crate::server::Server;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use xen_eventfd::{Arch, DomId, Host, IoEventAddress, Space, VcpuId, Width, Xen};
use xen_eventfd_ioreq::{Role, RunDir, new_eventfd};
use xen_eventfd_model::{Config, Model, Vcpu};
use xen_eventfd_vhost::{Backend, Error, Inflight, Queue, Region, Result};

const VERSION_1: u64 = 1 << 32;
const RING_RESET: u64 = 1 << 40;
const REGISTERS: u64 = 0xFD00_0000;
/// Where the device's configuration is among its registers.
const DEVICE: u64 = 0x200;
const DOORBELL: u64 = 0xC000;
const NEEDS_RESET: u64 = 64;
/// The vectors of configuration changes and of the queue.
const CONFIG: u8 = 0x40;
const QUEUE: u8 = 0x41;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Accept(u64),
    Start(u16, Queue),
    Stop(u16),
    WriteConfig(u32, Vec<u8>),
    /// The backend gets its notes, of so many queues and descriptors.
    Notes(u16, u16),
    Reset,
    /// Its connection is kept for another process.
    Keep,
    /// It is kept no longer.
    Forget,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// Of the queue that was started last.
    eventfds: Option<(OwnedFd, OwnedFd)>,
    config: Vec<u8>,
    /// The backend says that its configuration has changed, or something that it must not.
    request: Option<Result<bool>>,
    /// The backend cannot start a queue.
    refuses: bool,
    /// What it offers beside VIRTIO_F_VERSION_1.
    features: u64,
    /// The backend notes which requests it has begun, and has its notes here.
    notes_requests: bool,
    notes: Option<File>,
    has_ended: bool,
    /// It does so when its configuration is written.
    ends_at_writes: bool,
    /// A connection of another process is not gone on with yet.
    is_held: bool,
}

#[derive(Debug)]
struct Notes {
    state: Arc<Mutex<State>>,
    /// Readable once the backend has ended, and when it finds a queue broken.
    end: OwnedFd,
    errors: OwnedFd,
    /// Readable once there is a request.
    requests: OwnedFd,
    /// Where its queue was when another process had its connection.
    left_at: Option<u16>,
}

impl Notes {
    fn call(&self, call: Call) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(call);
        state
    }
}

impl Backend for Notes {
    fn features(&self) -> u64 {
        VERSION_1 | self.state.lock().unwrap().features
    }

    fn queues(&self) -> u16 {
        1
    }

    fn maps_guests(&self) -> bool {
        false
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        drop(self.call(Call::Accept(features)));
        Ok(())
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let first = offset as usize;
        bytes.copy_from_slice(&self.state.lock().unwrap().config[first..first + bytes.len()]);
        Ok(())
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let mut state = self.call(Call::WriteConfig(offset, bytes.to_vec()));
        if state.ends_at_writes {
            state.has_ended = true;
            return Err(Error::NoQueue { index: 0, queues: 0 });
        }
        state.config[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_memory(&mut self, _: &[Region<'_>]) -> Result<()> {
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut state = self.call(Call::Start(index, *queue));
        if state.refuses {
            return Err(Error::NoQueue { index, queues: 0 });
        }
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        state.eventfds = Some((copy(kick), copy(call)));
        Ok(())
    }

    fn notes_requests(&self) -> bool {
        self.state.lock().unwrap().notes_requests
    }

    fn new_inflight(&mut self, queues: u16, queue_size: u16) -> Result<Inflight> {
        let file = File::from(memfd_create("notes", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(b"####new!", 0).unwrap();
        Ok(Inflight { file: file.into(), offset: 4, size: 4, queues, queue_size })
    }

    fn set_inflight(&mut self, inflight: &Inflight) -> Result<()> {
        let mut state = self.call(Call::Notes(inflight.queues, inflight.queue_size));
        assert_eq!((inflight.offset, inflight.size), (0, 4));
        state.notes = Some(inflight.file.try_clone().unwrap().into());
        Ok(())
    }

    fn set_kick(&mut self, _: u16, _: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    fn set_call(&mut self, _: u16, _: BorrowedFd<'_>) -> Result<()> {
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16> {
        drop(self.call(Call::Stop(index)));
        Ok(0)
    }

    fn left_at(&mut self, _: u16) -> Result<Option<u16>> {
        Ok(self.left_at)
    }

    fn reset(&mut self) -> Result<()> {
        drop(self.call(Call::Reset));
        Ok(())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.end.as_fd())
    }

    fn check(&self) -> Result<()> {
        match self.state.lock().unwrap().has_ended {
            true => Err(Error::NoQueue { index: 0, queues: 0 }),
            false => Ok(()),
        }
    }

    fn errors(&self) -> BorrowedFd<'_> {
        self.errors.as_fd()
    }

    fn requests(&self) -> Option<BorrowedFd<'_>> {
        Some(self.requests.as_fd())
    }

    fn take_requests(&mut self) -> Result<bool> {
        let request = self.state.lock().unwrap().request.take().unwrap_or(Ok(false));
        let _ = rustix::io::read(&self.requests, &mut [0; 8]);
        request
    }
}

/// A guest with one device of one queue, and 8 bytes of configuration.
struct Bench {
    model: Model,
    vcpu: Vcpu,
    state: Arc<Mutex<State>>,
    devices: Arc<Devices>,
    /// Of the backend's end, of its errors, and of its requests.
    eventfds: [OwnedFd; 3],
    server: Server,
    _dir: tempfile::TempDir,
}

/// What the queue in the guest's memory says.
#[derive(Debug, Default)]
struct Indices {
    used: AtomicU16,
    available: AtomicU16,
    /// There is no memory.
    is_missing: AtomicBool,
}

impl Rings for Indices {
    fn read(&self, addr: u64) -> crate::error::Result<u16> {
        if self.is_missing.load(Ordering::Acquire) {
            let call = xen_eventfd_host::Call::MapMemory(DomId(1), addr);
            return Err(xen_eventfd_host::HostError::new(call, rustix::io::Errno::NOENT).into());
        }
        let index = match addr {
            0x2002 => &self.available,
            0x3002 => &self.used,
            other => panic!("{other:#x} is read"),
        };
        Ok(index.load(Ordering::Acquire))
    }
}

impl Notes {
    /// A connection to the backend, if that is there.
    fn connect(
        state: &Arc<Mutex<State>>,
        left_at: Option<u16>,
    ) -> crate::error::Result<Box<dyn Backend>> {
        if state.lock().unwrap().has_ended {
            return Err(crate::error::Error::NoBackend);
        }
        let [end, errors, requests] = [(); 3].map(|()| new_eventfd().unwrap());
        Ok(Box::new(Self { state: Arc::clone(state), end, errors, requests, left_at }))
    }
}

/// A backend that is there again once `state` says so.
fn again(state: &Arc<Mutex<State>>, indices: &Arc<Indices>, dir: &Path) -> Again {
    let state = Arc::clone(state);
    let connector = Connector::new(move || Notes::connect(&state, None));
    let rings: Arc<dyn Rings> = Arc::<Indices>::clone(indices);
    let run_dir = RunDir::open(dir, Role::Registers).unwrap();
    let notebook = Notebook { run_dir, dom: DomId(1), number: 0 };
    Again { notebook, connector, memory: Arc::new(OwnedRegions::none()), rings, session: None }
}

/// Notes what becomes of the connection, beside what the backend is asked for.
#[derive(Debug)]
struct Order(Arc<Mutex<State>>);

impl Sessions for Order {
    fn keep(&self, _: &str, _: BorrowedFd<'_>) -> xen_eventfd::Result<()> {
        self.0.lock().unwrap().calls.push(Call::Keep);
        Ok(())
    }

    fn forget(&self, _: &str) -> xen_eventfd::Result<()> {
        self.0.lock().unwrap().calls.push(Call::Forget);
        Ok(())
    }
}

impl Bench {
    fn new() -> Self {
        Self::on(Layout::OwnBus)
    }

    fn on(layout: Layout) -> Self {
        Self::of(layout, 2, |_, _| None)
    }

    /// With a device of this type, which connects to its backend again, and its queue running.
    fn connecting_again(device_type: u16) -> (Self, Arc<Indices>) {
        Self::connecting(device_type, false)
    }

    fn connecting(device_type: u16, notes_requests: bool) -> (Self, Arc<Indices>) {
        let indices = Arc::<Indices>::default();
        let again = |state: &_, dir: &_| Some(again(state, &indices, dir));
        let bench = Self::of(Layout::OwnBus, device_type, again);
        bench.state.lock().unwrap().notes_requests = notes_requests;
        bench.start();
        bench.calls();
        (bench, indices)
    }

    /// The device as another process goes on with it, over the connection of its backend, whose queue was here, or
    /// which has ended. It is away until [`Self::go_on`].
    fn taken_over(&self, indices: &Arc<Indices>, left_at: Option<u16>) {
        let mut again = again(&self.state, indices, self._dir.path());
        let notes = Arc::clone(&self.state);
        notes.lock().unwrap().is_held = true;
        again.connector = again.connector.going_on(move || {
            while notes.lock().unwrap().is_held {
                std::thread::sleep(Duration::from_millis(1));
            }
            left_at.ok_or(crate::error::Error::NoBackend)?;
            Notes::connect(&notes, left_at)
        });
        let mut state = self.devices.state();
        let (at, place) = state.places.iter().map(|(at, place)| (*at, *place)).next().unwrap();
        let registers = state.registers.state(place).unwrap();
        let record = state.devices.remove(&at).unwrap().record(registers);
        let (guest, host) = (self.server.guest(), &*self.devices.host);
        let (device, _) = Device::restore(host, guest, &kind(FILES), Some(again), &record).unwrap();
        state.devices.insert(at, device);
    }

    /// The backend of a device that was taken over is there.
    fn go_on(&self) {
        self.state.lock().unwrap().is_held = false;
        self.devices.waker.wake();
        self.until("the device has its backend", || self.devices.away().is_empty());
    }

    /// The backend ends.
    fn end_backend(&self) {
        self.state.lock().unwrap().has_ended = true;
        signal(&self.eventfds[0]);
        self.until("the device has lost its backend", || !self.devices.away().is_empty());
    }

    /// It is started again, and the device has it.
    fn restart_backend(&self) {
        self.state.lock().unwrap().has_ended = false;
        self.until("the device has its backend", || self.devices.away().is_empty());
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < Duration::from_secs(30), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn status(&self) -> u64 {
        self.get(0x14, Width::One)
    }

    fn of(
        layout: Layout,
        device_type: u16,
        again: impl FnOnce(&Arc<Mutex<State>>, &Path) -> Option<Again>,
    ) -> Self {
        Self::offering(&layout, device_type, 0, again)
    }

    /// With a backend that offers these features too, until `again` is called.
    fn with_features(
        device_type: u16,
        features: u64,
        again: impl FnOnce(&Arc<Mutex<State>>, &Path) -> Option<Again>,
    ) -> Self {
        Self::offering(&Layout::OwnBus, device_type, features, again)
    }

    fn offering(
        layout: &Layout,
        device_type: u16,
        features: u64,
        again: impl FnOnce(&Arc<Mutex<State>>, &Path) -> Option<Again>,
    ) -> Self {
        let (arch, place) = match layout {
            Layout::DeviceTree(_) => (Arch::Arm, layout.places()[0]),
            // Beside QEMU as if its firmware had placed the BARs.
            _ => (Arch::X86, Layout::OwnBus.places()[0]),
        };
        let (model, dir) = (Model::on(arch), tempfile::tempdir().unwrap());
        let dom: DomId = model.domain(Config::new("guest"));
        let host: Arc<dyn Host> = model.client("xen-virtio");
        let xen = Xen::builder().run_dir(dir.path()).open_on(Arc::clone(&host)).unwrap();
        let guest = xen.guest(dom).unwrap();
        let config = (0..8).collect();
        let state = Arc::new(Mutex::new(State { config, features, ..State::default() }));
        let [end, errors, requests] = [(); 3].map(|()| new_eventfd().unwrap());
        let eventfds = [&end, &errors, &requests].map(|fd| fd.try_clone().unwrap());
        let backend = Notes { state: Arc::clone(&state), end, errors, requests, left_at: None };
        let kind = kind(device_type);
        let (device, registers) =
            Device::new(&*host, &guest, Box::new(backend), &kind, place, &[]).unwrap();
        let devices = Arc::new(Devices::new(Arc::clone(&host), dom, Registers::new(layout)));
        devices.add(place, device.with_again(again(&state, dir.path())), registers);
        let server = Server::serve(&host, dir.path(), guest, Arc::clone(&devices)).unwrap();
        let vcpu = model.vcpu(dom, VcpuId(0));
        Self { model, vcpu, state, devices, eventfds, server, _dir: dir }
    }

    /// With the queue running.
    fn running() -> Self {
        let bench = Self::new();
        bench.start();
        bench
    }

    fn start(&self) {
        self.set_config(0x04, 7);
        self.set_config(0x40, 0x8000_0000);
        for (entry, vector) in [(0, CONFIG), (1, QUEUE)] {
            for (part, value) in [(0, 0xFEE0_0000), (8, vector.into()), (12, 0)] {
                self.set_entry(entry, part, value);
            }
        }
        for (offset, width, value) in [
            (0x08, Width::Four, 1),
            (0x0C, Width::Four, (VERSION_1 | RING_RESET) >> 32),
            (0x14, Width::One, 3),
            (0x14, Width::One, 11),
            (0x10, Width::Two, 0),
            (0x18, Width::Two, 8),
            (0x1A, Width::Two, 1),
            (0x20, Width::Four, 0x1000),
            (0x28, Width::Four, 0x2000),
            (0x30, Width::Four, 0x3000),
            (0x1C, Width::Two, 1),
            (0x14, Width::One, 15),
        ] {
            self.set(offset, width, value);
        }
    }

    fn set_config(&self, register: u64, value: u64) {
        let address = 1 << 31 | 1 << 11 | register;
        self.vcpu.write(Space::Pio, 0xCF8, Width::Four, address).unwrap();
        self.vcpu.write(Space::Pio, 0xCFC, Width::Four, value).unwrap();
    }

    fn set_entry(&self, entry: u64, part: u64, value: u64) {
        self.set(0x1000 + 16 * entry + part, Width::Four, value);
    }

    fn set(&self, offset: u64, width: Width, value: u64) {
        self.vcpu.write(Space::Mmio, REGISTERS + offset, width, value).unwrap();
    }

    fn get(&self, offset: u64, width: Width) -> u64 {
        self.vcpu.read(Space::Mmio, REGISTERS + offset, width).unwrap()
    }

    fn kick(&self, port: u64) {
        self.vcpu.write(Space::Pio, port, Width::Two, 0).unwrap();
    }

    /// How many kicks the backend finds.
    fn kicks(&self) -> u64 {
        let state = self.state.lock().unwrap();
        kicks_of(&state.eventfds.as_ref().unwrap().0)
    }

    /// The backend has used buffers.
    fn call(&self) {
        let state = self.state.lock().unwrap();
        let (_, call) = state.eventfds.as_ref().unwrap();
        rustix::io::write(call, &1_u64.to_ne_bytes()).unwrap();
    }

    /// Waits for an interrupt, with the model's time limit.
    fn wait(&self, vector: u8) {
        self.vcpu.run(move |vcpu| vcpu.wait_msi(vector)).join().unwrap();
    }

    fn calls(&self) -> Vec<Call> {
        core::mem::take(&mut self.state.lock().unwrap().calls)
    }
}

fn kicks_of(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

fn kind(device_type: u16) -> Kind {
    let (config, features) = (DeviceConfig::of_backend(8), Features::OF_BACKEND);
    Kind { device_type, queues: 1, queue_size: 256, features, config }
}

fn started() -> Call {
    let ring = Queue { size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000, base: 0 };
    Call::Start(0, ring)
}

#[test]
fn a_queue_starts_with_the_features_and_addresses_of_its_driver() {
    // VIRTIO_F_RING_RESET is the function's own.
    assert_eq!(Bench::running().calls(), [Call::Accept(VERSION_1), started()]);
}

#[test]
fn beside_qemu_only_the_devices_functions_are_routed_here() {
    let bench = Bench::on(Layout::BesideQemu);
    let bridge = |port| {
        bench.vcpu.write(Space::Pio, 0xCF8, Width::Four, 1 << 31).unwrap();
        bench.vcpu.read(Space::Pio, port, Width::Four).unwrap()
    };
    assert_eq!([bridge(0xCF8), bridge(0xCFC)], [0xFFFF_FFFF; 2]);
    assert_eq!(bench.devices.requests(), 0);
    bench.start();
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn kicks_and_calls_wake_no_server() {
    let bench = Bench::running();
    let before = bench.devices.requests();
    for _ in 0..3 {
        bench.kick(DOORBELL);
        bench.call();
        bench.wait(QUEUE);
    }
    assert_eq!((bench.kicks(), bench.devices.requests() - before), (3, 0));
}

#[test]
fn kicks_and_interrupts_are_counted_for_each_device_since_its_queues_were_started() {
    let bench = Bench::running();
    let counts = || {
        let registered = bench.server.guest().registered();
        bench
            .devices
            .report(&registered)
            .iter()
            .map(|it| (it.kicks, it.interrupts))
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(), [(0, 0)]);
    for _ in 0..3 {
        bench.kick(DOORBELL);
    }
    bench.call();
    bench.wait(QUEUE);
    assert_eq!(counts(), [(3, 1)]);
    bench.set(0x14, Width::One, 0);
    assert_eq!(counts(), [(0, 0)]);
    bench.start();
    bench.kick(DOORBELL);
    assert_eq!(counts(), [(1, 0)]);
}

#[test]
fn a_call_of_a_masked_vector_is_pending_and_comes_when_it_is_unmasked() {
    let bench = Bench::running();
    let pending = || bench.get(0x1800, Width::Four);
    bench.set_entry(1, 12, 1);
    assert_eq!(pending(), 0);
    bench.call();
    let began = Instant::now();
    while pending() != 1 << 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the call is never pending");
    }
    assert_eq!(bench.vcpu.try_take_msi(QUEUE), Ok(false));
    bench.set_entry(1, 12, 0);
    bench.wait(QUEUE);
    assert_eq!(pending(), 0);
}

#[test]
fn a_vector_that_moves_takes_its_calls_along() {
    let bench = Bench::running();
    bench.set_entry(1, 12, 1);
    bench.set_entry(1, 8, 0x55);
    bench.set_entry(1, 12, 0);
    bench.call();
    bench.wait(0x55);
    assert_eq!(bench.vcpu.try_take_msi(QUEUE), Ok(false));
}

#[test]
fn a_queue_that_starts_masked_is_heard_of_once_it_is_unmasked() {
    let bench = Bench::new();
    bench.start();
    bench.set(0x14, Width::One, 0);
    bench.set_entry(1, 12, 1);
    for (offset, width, value) in [
        (0x08, Width::Four, 1),
        (0x0C, Width::Four, 1),
        (0x14, Width::One, 11),
        (0x1A, Width::Two, 1),
        (0x1C, Width::Two, 1),
        (0x14, Width::One, 15),
    ] {
        bench.set(offset, width, value);
    }
    bench.call();
    bench.set_entry(1, 12, 0);
    bench.wait(QUEUE);
}

#[test]
fn a_message_that_no_processor_takes_is_none_until_the_guest_corrects_it() {
    let bench = Bench::running();
    bench.set_entry(1, 0, 0x1000);
    bench.call();
    assert_eq!(bench.get(0x14, Width::One), 15);
    bench.set_entry(1, 0, 0xFEE0_0000);
    bench.wait(QUEUE);
}

#[test]
fn a_doorbell_follows_its_bar() {
    let bench = Bench::running();
    bench.set_config(0x14, 0xD000);
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 0);
    bench.kick(0xD000);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn registers_follow_their_bar() {
    let bench = Bench::running();
    bench.set_config(0x10, 0xE100_0000);
    let status = |base| bench.vcpu.read(Space::Mmio, base + 0x14, Width::One).unwrap();
    assert_eq!((status(0xE100_0000), status(REGISTERS)), (15, 0xFF));
}

#[test]
fn a_queue_that_is_reset_stops_and_hears_no_kick() {
    let bench = Bench::running();
    bench.calls();
    bench.set(0x3A, Width::Two, 1);
    bench.kick(DOORBELL);
    assert_eq!((bench.calls(), bench.kicks()), (vec![Call::Stop(0)], 0));
}

#[test]
fn a_device_that_is_reset_starts_again() {
    let bench = Bench::running();
    bench.calls();
    bench.set(0x14, Width::One, 0);
    bench.kick(DOORBELL);
    assert_eq!((bench.calls(), bench.kicks()), (vec![Call::Reset], 0));
    bench.start();
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started()]);
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn a_device_whose_backend_refuses_asks_its_driver_for_a_reset() {
    let bench = Bench::new();
    bench.state.lock().unwrap().refuses = true;
    bench.start();
    assert_eq!(bench.get(0x14, Width::One), 15 | NEEDS_RESET);
    bench.wait(CONFIG);
}

#[test]
fn a_device_whose_doorbell_is_taken_names_it_and_starts_once_it_is_free() {
    let bench = Bench::new();
    let (eventfd, port) = (new_eventfd().unwrap(), IoEventAddress::Pio(DOORBELL));
    let taken = bench.server.guest().register_ioevent(&eventfd, &port, 0_u16).unwrap();
    bench.start();
    assert_eq!(bench.get(0x14, Width::One), 15 | NEEDS_RESET);
    let failure = bench.devices.failure().unwrap();
    assert!(failure.contains("0xc000"), "{failure}");
    bench.kick(DOORBELL);
    assert_eq!(kicks_of(&eventfd), 1);
    drop(taken);
    bench.set(0x14, Width::One, 0);
    bench.start();
    bench.kick(DOORBELL);
    assert_eq!((bench.get(0x14, Width::One), bench.kicks()), (15, 1));
}

#[test]
fn a_write_to_the_configuration_is_the_backend_s() {
    let bench = Bench::running();
    bench.calls();
    bench.set(0x202, Width::Two, 0x5566);
    assert_eq!(bench.calls(), [Call::WriteConfig(2, vec![0x66, 0x55])]);
    assert_eq!(bench.get(0x200, Width::Eight), 0x0706_0504_5566_0100);
}

#[test]
fn a_kick_through_the_window_of_the_configuration_space_reaches_the_backend() {
    let bench = Bench::running();
    // The last capability: the BAR, the offset, the length, and the data.
    for (register, value) in [(0x94, 1), (0x98, 0), (0x9C, 2), (0xA0, 0)] {
        bench.set_config(register, value);
    }
    assert_eq!(bench.kicks(), 1);
}

fn signal(fd: &OwnedFd) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

#[test]
fn a_backend_that_ends_leaves_its_device_in_need_of_a_reset() {
    let bench = Bench::running();
    bench.state.lock().unwrap().has_ended = true;
    signal(&bench.eventfds[0]);
    bench.wait(CONFIG);
    assert_eq!(bench.get(0x14, Width::One), NEEDS_RESET | 15);
    assert!(bench.devices.failure().is_some());
}

#[test]
fn a_backend_that_finds_a_queue_broken_leaves_its_device_in_need_of_a_reset() {
    let bench = Bench::running();
    signal(&bench.eventfds[1]);
    bench.wait(CONFIG);
    assert_eq!(bench.get(0x14, Width::One), NEEDS_RESET | 15);
    assert!(bench.devices.failure().unwrap().contains("broken"));
}

#[test]
fn a_backend_that_is_only_readable_is_well() {
    let bench = Bench::running();
    signal(&bench.eventfds[0]);
    bench.call();
    bench.wait(QUEUE);
    assert_eq!((bench.get(0x14, Width::One), bench.devices.failure()), (15, None));
}

impl Bench {
    /// The backend requests something, or what it must not.
    fn request(&self, request: Result<bool>) {
        self.state.lock().unwrap().request = Some(request);
        rustix::io::write(&self.eventfds[2], &1_u64.to_ne_bytes()).unwrap();
    }
}

#[test]
fn a_change_of_the_configuration_that_the_backend_announces_reaches_the_driver() {
    let bench = Bench::running();
    let generation = || bench.get(0x15, Width::One);
    for value in [77, 78] {
        // It is another one once the driver has read the configuration.
        let (before, _) = (generation(), bench.get(DEVICE, Width::Four));
        bench.state.lock().unwrap().config[2] = value;
        assert_ne!(
            bench.get(DEVICE + 2, Width::One),
            u64::from(value),
            "before the backend announces it"
        );
        bench.request(Ok(true));
        bench.wait(CONFIG);
        assert_eq!(bench.get(DEVICE + 2, Width::One), u64::from(value));
        assert_ne!(generation(), before);
    }
    assert_eq!(bench.get(0x14, Width::One), 15);
    assert!(bench.devices.failure().is_none());
}

#[test]
fn a_request_that_is_none_of_a_change_changes_nothing() {
    let bench = Bench::running();
    bench.state.lock().unwrap().config[2] = 77;
    bench.request(Ok(false));
    while bench.state.lock().unwrap().request.is_some() {
        std::thread::yield_now();
    }
    assert_eq!(bench.get(DEVICE + 2, Width::One), 2);
    assert_eq!(bench.vcpu.try_take_msi(CONFIG), Ok(false));
}

#[test]
fn a_backend_that_floods_requests_leaves_its_device_in_need_of_a_reset() {
    let bench = Bench::running();
    bench.request(Err(Error::Flood));
    bench.wait(CONFIG);
    assert_eq!(bench.get(0x14, Width::One), NEEDS_RESET | 15);
    assert!(bench.devices.failure().unwrap().contains("over 64 at once"));
}

/// Virtio's numbers.
const RNG: u16 = 4;
const BLOCK: u16 = 2;
const FILES: u16 = 26;

fn started_at(base: u16) -> Call {
    match started() {
        Call::Start(index, ring) => Call::Start(index, Queue { base, ..ring }),
        other => other,
    }
}

#[test]
fn a_new_connection_is_kept_once_its_queues_are_started() {
    let indices = Arc::<Indices>::default();
    let keeping = |state: &Arc<Mutex<State>>, dir: &Path| {
        let sessions = Arc::new(Order(Arc::clone(state)));
        let session = Some(KeptSession { sessions, name: "1/0".to_owned() });
        Some(Again { session, ..again(state, &indices, dir) })
    };
    let bench = Bench::of(Layout::OwnBus, RNG, keeping);
    bench.start();
    bench.calls();
    bench.end_backend();
    bench.restart_backend();
    let calls = bench.calls();
    let kept = calls.iter().position(|call| *call == Call::Keep).unwrap();
    let started = calls.iter().position(|call| matches!(call, Call::Start(..))).unwrap();
    assert!(calls[0] == Call::Forget && started < kept, "{calls:?}");
}

#[test]
fn a_device_goes_on_with_a_backend_that_is_started_again() {
    let (bench, indices) = Bench::connecting_again(RNG);
    bench.set(0x202, Width::Two, 0x5566);
    indices.used.store(7, Ordering::Release);
    indices.available.store(9, Ordering::Release);
    bench.calls();
    bench.end_backend();
    assert_eq!((bench.status(), bench.devices.failure()), (15, None));
    bench.restart_backend();
    // With what its driver has accepted and written, from where requests are complete.
    let written = Call::WriteConfig(2, vec![0x66, 0x55]);
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), written, started_at(7)]);
    // Of what was used before, the interrupt may have been lost.
    bench.wait(QUEUE);
    bench.kick(DOORBELL);
    assert_eq!((bench.status(), bench.kicks()), (15, 1));
    bench.call();
    bench.wait(QUEUE);
}

#[test]
fn a_write_that_ends_two_connections_is_not_made_again() {
    let (bench, _) = Bench::connecting_again(BLOCK);
    bench.state.lock().unwrap().ends_at_writes = true;
    bench.set(0x202, Width::Two, 0x5566);
    bench.until("the device has lost its backend", || !bench.devices.away().is_empty());
    for _ in 0..2 {
        bench.state.lock().unwrap().has_ended = false;
        bench.until("the backend ends again", || bench.state.lock().unwrap().has_ended);
    }
    bench.restart_backend();
    let [first, second, third] = [(); 3].map(|()| Call::WriteConfig(2, vec![0x66, 0x55]));
    let accepted = || Call::Accept(VERSION_1);
    let calls = [first, accepted(), second, accepted(), third, accepted(), started_at(0)];
    assert_eq!(bench.calls(), calls);
    assert_eq!(bench.status(), 15);
}

#[test]
fn a_write_that_a_backend_did_not_get_is_made_again() {
    let (bench, _) = Bench::connecting_again(BLOCK);
    bench.state.lock().unwrap().ends_at_writes = true;
    bench.set(0x202, Width::Two, 0x5566);
    bench.until("the device has lost its backend", || !bench.devices.away().is_empty());
    bench.state.lock().unwrap().ends_at_writes = false;
    bench.restart_backend();
    let [lost, made] = [(); 2].map(|()| Call::WriteConfig(2, vec![0x66, 0x55]));
    assert_eq!(bench.calls(), [lost, Call::Accept(VERSION_1), made, started_at(0)]);
    assert_eq!(bench.get(DEVICE + 2, Width::Two), 0x5566);
}

#[test]
fn a_kick_while_the_backend_is_away_is_there_when_it_comes() {
    let (bench, _) = Bench::connecting_again(RNG);
    bench.end_backend();
    bench.kick(DOORBELL);
    bench.restart_backend();
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn a_disk_goes_on_if_no_request_was_outstanding() {
    let (bench, indices) = Bench::connecting_again(BLOCK);
    for index in [&indices.used, &indices.available] {
        index.store(9, Ordering::Release);
    }
    bench.end_backend();
    // A new request is none of the backend's that has ended.
    indices.available.store(11, Ordering::Release);
    bench.restart_backend();
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started_at(9)]);
    assert_eq!(bench.status(), 15);
}

#[test]
fn a_disk_with_outstanding_requests_needs_a_reset_and_works_after_it() {
    for device_type in [BLOCK, FILES] {
        let (bench, indices) = Bench::connecting_again(device_type);
        indices.available.store(1, Ordering::Release);
        bench.end_backend();
        bench.wait(CONFIG);
        assert_eq!(bench.status(), NEEDS_RESET | 15);
        bench.restart_backend();
        // No queue is served before the reset.
        assert_eq!(bench.calls(), [Call::Accept(VERSION_1)]);
        bench.set(0x14, Width::One, 0);
        bench.start();
        assert_eq!(bench.calls(), [Call::Reset, Call::Accept(VERSION_1), started()]);
        bench.kick(DOORBELL);
        assert_eq!((bench.status(), bench.kicks()), (15, 1));
    }
}

#[test]
fn a_driver_may_reset_and_start_its_device_while_the_backend_is_away() {
    let (bench, _) = Bench::connecting_again(RNG);
    bench.end_backend();
    bench.set(0x14, Width::One, 0);
    bench.start();
    assert_eq!(bench.status(), 15);
    bench.restart_backend();
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started()]);
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn a_session_goes_on_where_its_queue_was() {
    let (bench, indices) = Bench::connecting_again(FILES);
    bench.taken_over(&indices, Some(7));
    bench.go_on();
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started_at(7)]);
    assert_eq!(bench.status(), 15);
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn a_session_whose_driver_has_reset_the_device_meanwhile_begins_anew() {
    let (bench, indices) = Bench::connecting_again(FILES);
    bench.taken_over(&indices, Some(7));
    bench.set(0x14, Width::One, 0);
    bench.start();
    bench.go_on();
    assert_eq!(bench.calls(), [Call::Reset, Call::Accept(VERSION_1), started_at(0)]);
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1);
}

#[test]
fn a_session_that_has_ended_meanwhile_needs_a_reset() {
    let (bench, indices) = Bench::connecting_again(FILES);
    bench.taken_over(&indices, None);
    bench.go_on();
    bench.wait(CONFIG);
    assert_eq!(bench.status(), NEEDS_RESET | 15);
}

#[test]
fn a_backend_that_is_away_at_the_end_is_connected_to_for_the_next_guest() {
    let (bench, _) = Bench::connecting_again(RNG);
    bench.end_backend();
    bench.state.lock().unwrap().has_ended = false;
    assert!(bench.server.stop().unwrap().iter().all(core::result::Result::is_ok));
}

#[test]
fn a_backend_that_notes_requests_goes_on_with_its_notes() {
    for device_type in [BLOCK, FILES] {
        let (bench, indices) = Bench::connecting(device_type, true);
        let notes = || {
            let mut bytes = [0; 4];
            bench
                .state
                .lock()
                .unwrap()
                .notes
                .as_ref()
                .unwrap()
                .read_exact_at(&mut bytes, 0)
                .unwrap();
            bytes
        };
        assert_eq!(&notes(), b"new!");
        let write =
            |bytes| bench.state.lock().unwrap().notes.take().unwrap().write_all_at(bytes, 0);
        write(b"1, 3").unwrap();
        indices.available.store(3, Ordering::Release);
        indices.used.store(1, Ordering::Release);
        bench.end_backend();
        assert_eq!(bench.status(), 15);
        bench.restart_backend();
        let accepted = Call::Accept(VERSION_1);
        assert_eq!(bench.calls(), [accepted.clone(), Call::Notes(1, 256), started_at(1)]);
        assert_eq!(&notes(), b"1, 3");
        // After a reset there is nothing to be made again.
        bench.set(0x14, Width::One, 0);
        bench.start();
        assert_eq!(bench.calls(), [Call::Reset, accepted, Call::Notes(1, 256), started()]);
        assert_eq!(&notes(), b"new!");
    }
}

#[test]
fn a_backend_that_lacks_what_the_guest_was_offered_is_not_taken_and_tried_again() {
    for is_only_one in [false, true] {
        let indices = Arc::<Indices>::default();
        let again = |state: &Arc<Mutex<State>>, dir: &Path| {
            // Of what the first one offered, the next one lacks a feature.
            state.lock().unwrap().features = 0;
            let mut again = again(state, &indices, dir);
            if is_only_one {
                again.connector = Connector::once(Notes::connect(state, None).unwrap());
            }
            Some(again)
        };
        let bench = Bench::with_features(RNG, 1, again);
        bench.start();
        bench.end_backend();
        bench.calls();
        bench.state.lock().unwrap().has_ended = false;
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!((bench.devices.away().len(), bench.calls()), (1, vec![]));
        bench.state.lock().unwrap().features = 1;
        bench.restart_backend();
        assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started()]);
    }
}

#[test]
fn a_driver_whose_queue_is_in_no_memory_has_to_reset_its_device() {
    let (bench, indices) = Bench::connecting_again(RNG);
    bench.end_backend();
    indices.is_missing.store(true, Ordering::Release);
    bench.restart_backend();
    bench.wait(CONFIG);
    assert_eq!(bench.status(), NEEDS_RESET | 15);
}
