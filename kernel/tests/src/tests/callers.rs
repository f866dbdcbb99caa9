//! Callers with random arguments.

use super::calls::{self, Call, Setting};
use super::common::{BASE, DOORBELL, IDLE, Notifier};
use super::kernel_log::LogLength;
use super::leftovers::Before;
use super::random::{self, ERRNOS, Random};
use crate::device::request::{
    ASSIGN_IRQ, ASSIGN_STATUS, CREATE, IRQ_MSI, OF_CONTROL, OF_GUEST, PRIVCMD_IOEVENTFD,
    PRIVCMD_IRQFD, RESTRICT, SET_IRQ,
};
use crate::device::structs::Doorbell;
use crate::device::{Control, GuestFile, issue, issue_at};
use anyhow::{Result, bail, ensure};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use xen_eventfd::{DomId, Space};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd};

const CALLS: u32 = 100_000;

/// One call in this many uses the privcmd ABI.
const PRIVCMD: usize = 3;

/// The errnos of the privcmd ABI.
const PRIVCMD_ERRNOS: [Errno; 8] = [
    Errno::BADF,
    Errno::BUSY,
    Errno::EXIST,
    Errno::FAULT,
    Errno::INVAL,
    Errno::NODEV,
    Errno::OPNOTSUPP,
    Errno::PERM,
];

/// A caller with its arguments.
struct Caller<'a> {
    random: Random,
    setting: &'a Setting,
    calls: Vec<Call>,
    eventfds: Vec<i32>,
    /// Eventfds, other files, and numbers that are not open.
    descriptors: Vec<i32>,
    /// The guest that the privcmd ABI serves.
    shared: DomId,
    /// The memory that its pointers point to, if to any.
    memory: Box<[u8; 512]>,
    /// Used instead of the setting's control file, as it may be confined.
    control: Control,
    /// The file of the free guest, now and then.
    second: Option<OwnedFd>,
    /// The request that was made last, and its struct.
    last: (u32, Vec<u8>),
    /// The number of results by errno, of the native ABI and of the privcmd ABI; 0 is success.
    answers: [BTreeMap<i32, u32>; 2],
}

/// `struct xen_dm_op` of valid interrupts, of lines that the guest lacks, and of other operations:
/// operation, padding, and arguments.
const OPERATIONS: [[u32; 6]; 8] = [
    INJECT_MSI,
    INJECT_MSI,
    INJECT_MSI,
    [19, 0, 33, 1, 0, 0],
    [9, 0, 0x0105, 0, 0, 0],
    [8, 0, 0x0300_0000, 1, 0, 0],
    [14, 0, 0x41, 0, 0xFED0_0000, 0],
    [20, 0, 0, 0, 0, 0],
];
const INJECT_MSI: [u32; 6] = [14, 0, 0x41, 0, 0xFEE0_0000, 0];

impl Caller<'_> {
    /// A struct that is similar to a valid one.
    fn bytes(&mut self, call: usize) -> Vec<u8> {
        let Self { random, calls, descriptors, .. } = self;
        let call = &calls[call];
        let mut bytes = call.good.clone();
        if let Some(at) = call.eventfd
            && !random.once_in(4)
        {
            bytes[at..at + 4].copy_from_slice(&random.one_of(descriptors).to_ne_bytes());
        }
        for field in &call.fields {
            if random.once_in(6) {
                let edges: Vec<u64> = field.edges(&call.good).into_iter().collect();
                let value = if random.once_in(3) { random.next() } else { *random.one_of(&edges) };
                bytes[field.at..field.at + field.width]
                    .copy_from_slice(&value.to_le_bytes()[..field.width]);
            }
        }
        if random.once_in(30) {
            let from = 4 * random.below(2);
            bytes[from..].fill_with(|| random.byte());
        }
        if random.once_in(30) {
            let size = *random.one_of(&[0, 1, 8, 64, 100, 4096, 4097, u32::MAX]);
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
        }
        // For requests that are longer than this one.
        bytes.resize(bytes.len().max(72), 0);
        bytes
    }

    /// Keeps the running guest alive: it can take any vector from 0x20 on, and no NMI.
    fn tame(request: u32, bytes: &mut [u8]) {
        // Where the struct has the kind, and a message's data and address.
        let [kind, data, addr] = match request {
            ASSIGN_IRQ => [8, 28, 32],
            ASSIGN_STATUS => [8, 24, 32],
            SET_IRQ => [40, 56, 64],
            _ => return,
        };
        if bytes[kind..kind + 4] == IRQ_MSI.to_ne_bytes() {
            bytes[data..data + 4].copy_from_slice(&0x41_u32.to_ne_bytes());
            bytes[addr..addr + 8].copy_from_slice(&0xFEE0_0000_u64.to_ne_bytes());
        }
    }

    fn request(&mut self, call: &Call) -> u32 {
        match self.random.below(40) {
            0 => 0xEF00 | u32::from(self.random.byte()),
            1 => *self.random.one_of(&OF_GUEST),
            2 => *self.random.one_of(&OF_CONTROL),
            _ => call.request,
        }
    }

    /// One call of a random kind.
    fn call(&mut self) -> Result<()> {
        if self.random.once_in(400) {
            self.control = Control::open()?;
        }
        if self.random.once_in(200) {
            self.second = None;
        }
        let privcmd = self.random.once_in(PRIVCMD);
        let answer = if privcmd { self.privcmd() } else { self.native() };
        let errno = match answer {
            Ok(file) => {
                self.second = file.or_else(|| self.second.take());
                0
            }
            Err(errno) if ERRNOS.contains(&errno) => errno.raw_os_error(),
            Err(errno) => {
                let ((request, bytes), memory) = (&self.last, &self.memory[..24]);
                bail!(
                    "an undocumented errno: {errno:?}, of {request:#x} with {bytes:02x?}, {memory:02x?}"
                )
            }
        };
        *self.answers[usize::from(privcmd)].entry(errno).or_default() += 1;
        Ok(())
    }

    fn native(&mut self) -> Result<Option<OwnedFd>, Errno> {
        let mut chosen = self.random.below(self.calls.len());
        // Taking a guest takes a hundred times as long as any other call.
        if self.calls[chosen].request == CREATE && !self.random.once_in(5) {
            chosen = self.random.below(self.calls.len());
        }
        let mut bytes = self.bytes(chosen);
        let call = self.calls.swap_remove(chosen);
        let request = self.request(&call);
        self.calls.push(call);
        Self::tame(request, &mut bytes);
        let anywhere = self.random.once_in(50).then(|| {
            let address = self.random.next() << self.random.below(64);
            // Not into memory of this process.
            usize::try_from(address | 1 << 63).unwrap_or(usize::MAX)
        });
        let (other, to_second) = (self.random.once_in(20), self.random.once_in(3));
        let file: BorrowedFd<'_> = match &self.second {
            _ if OF_CONTROL.contains(&request) != other => self.control.as_fd(),
            Some(second) if to_second => second.as_fd(),
            _ => self.setting.file.as_fd(),
        };
        self.last = (request, bytes.clone());
        let made = match anywhere {
            Some(address) => issue_at(file, request, address),
            None => issue(file, request, &mut bytes),
        };
        // Of memory, an object is let go of at once.
        made.map(|file| file.filter(|_| request == CREATE))
    }

    /// A request of the privcmd ABI that is similar to a valid one: on a guest, on a reserved one, on none.
    fn privcmd(&mut self) -> Result<Option<OwnedFd>, Errno> {
        let dom = match self.random.below(30) {
            0 => self.setting.guest.dom().0,
            1 => self.setting.free.dom().0,
            2 => u16::from_le_bytes([self.random.byte(), self.random.byte()]),
            _ => self.shared.0,
        };
        if self.random.once_in(300) {
            self.last = (RESTRICT, dom.to_ne_bytes().to_vec());
            return issue(&self.control, RESTRICT, &mut dom.to_ne_bytes());
        }
        let request = *self.random.one_of(&[PRIVCMD_IOEVENTFD, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD]);
        let mut bytes = if request == PRIVCMD_IRQFD { self.irqfd() } else { self.ioeventfd() };
        bytes.extend(self.random.word(&[0, 0, 0, 0, 1, 1, 1, 1, 2, u32::MAX]));
        bytes.extend(dom.to_ne_bytes());
        bytes.extend([0, 0]);
        self.last = (request, bytes.clone());
        issue(&self.control, request, &mut bytes)
    }

    /// A pointer to this offset in the caller's memory, or anywhere.
    fn pointer(&mut self, offset: usize) -> [u8; 8] {
        let place = self.memory.as_ptr().expose_provenance() + offset;
        let pointer = if self.random.once_in(20) { self.random.next() } else { place as u64 };
        pointer.to_ne_bytes()
    }

    fn eventfd(&mut self) -> [u8; 4] {
        let any = self.random.once_in(8);
        self.random.one_of(if any { &self.descriptors } else { &self.eventfds }).to_ne_bytes()
    }

    /// `struct privcmd_ioeventfd`, up to its flags.
    fn ioeventfd(&mut self) -> Vec<u8> {
        let key = 64 * self.random.below(3);
        let (ioreq, ports) = (self.pointer(key), self.pointer(key));
        let device = BASE + 0x1000 * u64::from(self.random.byte() % 2);
        let last = u64::MAX - u64::from(self.random.byte());
        let addr = if self.random.once_in(20) { last } else { device };
        [
            &ioreq[..],
            &ports,
            &addr.to_ne_bytes(),
            &self.random.word(&[4, 4, 4, 4, 4, 1, 2, 8, 0, 3, u32::MAX]),
            &self.eventfd(),
            &self.random.word(&[1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 4096, 4097]),
            &self.random.word(&[0, 0, 1, 1, 2, 2, 3, 3, 0xFFFF, 0x1_0000]),
        ]
        .concat()
    }

    /// `struct privcmd_irqfd`, up to its flags. The guest can take the vector if the interrupt is raised.
    fn irqfd(&mut self) -> Vec<u8> {
        let operation = *self.random.one_of(&OPERATIONS);
        for (place, word) in self.memory.chunks_exact_mut(4).zip(operation) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        if self.random.once_in(10) {
            // Another operation, or invalid padding.
            self.memory[self.random.below(8)] = self.random.byte();
        }
        let dm_op = self.pointer(0);
        let size = self.random.word(&[24, 24, 24, 24, 32, 256, 257, 23, 16, 0, u32::MAX]);
        [&dm_op[..], &size, &self.eventfd()].concat()
    }
}

pub(super) fn random(test: &mut TestContext<'_>) -> Result<()> {
    let port = if test.arch().has_space(Space::Pio) { "write pio:0xc050 2 1; " } else { "" };
    let writes = format!(
        "repeat 4; write mmio:{DOORBELL:#x} 4 i; end; {port}write mmio:{DOORBELL:#x} 2 1; \
         read mmio:{DOORBELL:#x} 4; pause 5000"
    );
    let mut guest = test.guest(&format!(
        "listen evtchn call; listen evtchn stop; meet; until stop; {writes}; end | \
         listen evtchn halt; meet; until halt; {writes}; end"
    ))?;
    let (free, shared) = (test.guest(IDLE)?, test.guest(IDLE)?);
    guest.start()?;
    let notifiers =
        [Notifier::to(test, &mut guest, "stop")?, Notifier::to(test, &mut guest, "halt")?];
    let before = [guest.dom(), free.dom(), shared.dom()]
        .into_iter()
        .map(|dom| Before::look(test, dom))
        .collect::<Result<Vec<_>>>()?;
    let setting = Setting::of(guest, free)?;
    let seed = random::seed()?;
    let log = LogLength::now()?;
    let eventfds = (0..8).map(|_| new_eventfd()).collect::<Result<Vec<OwnedFd>>>()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let numbers: Vec<i32> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut descriptors = numbers.clone();
    let others = [reader.as_raw_fd(), writer.as_raw_fd(), setting.file.number()];
    descriptors.extend(others.into_iter().chain([-1, i32::MIN, i32::MAX, 1 << 20]));
    let mut caller = Caller {
        random: Random::new(seed),
        setting: &setting,
        calls: calls::all(&setting),
        eventfds: numbers,
        descriptors,
        shared: shared.dom(),
        memory: Box::new([0; 512]),
        control: Control::open()?,
        second: None,
        last: Default::default(),
        answers: Default::default(),
    };
    for nth in 0..CALLS {
        if let Err(error) = caller.call() {
            bail!("call {nth} of KERNEL_TEST_SEED={seed}: {error:#}");
        }
    }
    let Caller { answers, control, second, .. } = caller;
    let [native, privcmd] = &answers;
    let [calls, privcmd_calls] = [native, privcmd].map(|answers| answers.values().sum::<u32>());
    println!("{calls} calls by the native ABI, by errno: {native:?}");
    println!("{privcmd_calls} calls by the privcmd ABI, by errno: {privcmd:?}");
    let often = |answers: &BTreeMap<i32, u32>, wanted: &[Errno], times| {
        let wanted = wanted.iter().map(|errno| errno.raw_os_error());
        wanted.chain([0]).all(|errno| answers.get(&errno).is_some_and(|count| *count > times))
    };
    ensure!(often(native, &[Errno::INVAL, Errno::NOENT], 1000), "too little variety: {native:?}");
    ensure!(often(privcmd, &PRIVCMD_ERRNOS, 100), "too little variety: {privcmd:?}");
    ensure!(calls + privcmd_calls == CALLS && privcmd_calls > CALLS / 4);
    let Setting { control: first, file, mut guest, free: _free, .. } = setting;
    drop((control, second, first, file, eventfds));
    before.iter().try_for_each(|before| before.nothing_is_left(test))?;
    log.stayed_short()?;
    // The guest is still served.
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 3, &kick))?;
    await_count(&kick, 20)?;
    notifiers.iter().try_for_each(Notifier::notify)?;
    guest.finish()
}
