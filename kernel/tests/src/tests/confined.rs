//! A caller whose file is confined to one guest makes requests on other guests, while other processes take
//! and release its own guest, which is then destroyed.

use super::common::{BASE, DOORBELL, Notifier, two_queues};
use super::kernel_log::LogLength;
use super::leftovers::{self, Before};
use super::random::{self, ERRNOS, Random};
use crate::device::request::{
    ASSIGN, ASSIGN_CHANNEL, ASSIGN_IRQ, CREATE, CREATE_OWN, CREATE_RESERVE, CREATE_SHARE, DEASSIGN,
    DEASSIGN_CHANNEL, DEASSIGN_IRQ, LOWER, MEMORY, OWNER, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD, QUERY,
    RESTRICT,
};
use crate::device::structs::{Channel, Create, Doorbell, Irq, Memory, Owner};
use crate::device::{Control, GuestFile, issue};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;
use xen_eventfd::{DomId, Port};
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd, signal, take_count};
use xen_eventfd_scenarios::{PATIENCE, TestContext};

/// In all.
const CALLS: u32 = 50_000;
/// Kicks of each vCPU, more than the test has time for.
const MANY: u64 = 1_000_000_000;
/// Guests that the caller is confined to, one after the other.
const GUESTS: u32 = 8;

/// `struct xen_dm_op` of an MSI that the other guest would count: operation 14, data, address.
const INJECT_MSI: [u64; 3] = [14, 0x41, 0xFEE0_0000];

/// The caller.
struct Caller<'a> {
    random: Random,
    control: &'a Control,
    /// The guest that it may serve.
    own: DomId,
    /// Another guest, which it may not serve.
    other: DomId,
    /// The file of its own guest, while it holds the guest.
    file: Option<OwnedFd>,
    eventfds: Vec<OwnedFd>,
    /// The number of results by errno; 0 is success.
    answers: BTreeMap<i32, u32>,
}

impl Caller<'_> {
    /// Its own guest as often as any other; but taking it takes a hundred times as long as being refused.
    fn dom(&mut self, takes: bool) -> u16 {
        let (own, other) = (self.own.0, self.other.0);
        // This domain, by its id and as DOMID_SELF; Xen's own; an unused id.
        let any = u16::from_le_bytes([self.random.byte(), self.random.byte()]);
        let own = if takes && !self.random.once_in(20) { other } else { own };
        *self.random.one_of(&[own, own, own, own, other, other, 0, 0x7FF0, 0x7FF2, any])
    }

    fn eventfd(&mut self) -> i32 {
        let one = self.random.one_of(&self.eventfds).as_raw_fd();
        if self.random.once_in(20) { *self.random.one_of(&[-1, 0, i32::MAX]) } else { one }
    }

    /// A valid struct, except for the domain, and sometimes for a byte.
    fn request(&mut self) -> (u32, Vec<u8>) {
        let takes = [CREATE, CREATE, MEMORY, PRIVCMD_IOEVENTFD, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD];
        let queries = [QUERY, OWNER, OWNER, RESTRICT];
        let takes = self.random.once_in(2).then(|| *self.random.one_of(&takes));
        let request = takes.unwrap_or_else(|| *self.random.one_of(&queries));
        let dom = self.dom(takes.is_some());
        let mut bytes = match request {
            CREATE => {
                let flags = *self.random.one_of(&[0, 0, CREATE_RESERVE, CREATE_SHARE, CREATE_OWN]);
                let gone = if self.random.once_in(3) { self.eventfd() } else { -1 };
                Create { flags, dom, gone }.bytes()
            }
            MEMORY => Memory { flags: 0, dom, guest_address: 0, length: 0x1000 }.bytes(),
            OWNER => Owner::of(DomId(dom)),
            RESTRICT => dom.to_ne_bytes().to_vec(),
            PRIVCMD_IOEVENTFD => self.ioeventfd(dom),
            PRIVCMD_IRQFD => self.irqfd(dom),
            _ => vec![0; 64],
        };
        if self.random.once_in(5) {
            let at = self.random.below(bytes.len());
            bytes[at] = self.random.byte();
        }
        (request, bytes)
    }

    fn ioeventfd(&mut self, dom: u16) -> Vec<u8> {
        let key = INJECT_MSI.as_ptr().expose_provenance() as u64;
        let mut bytes = Vec::new();
        bytes.extend(key.to_ne_bytes());
        bytes.extend(key.to_ne_bytes());
        bytes.extend(BASE.to_ne_bytes());
        bytes.extend(4_u32.to_ne_bytes());
        bytes.extend(self.eventfd().to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(self.random.word(&[0, 1, 2]));
        bytes.extend(self.random.word(&[0, 0, 1]));
        bytes.extend(dom.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    fn irqfd(&mut self, dom: u16) -> Vec<u8> {
        let operation = INJECT_MSI.as_ptr().expose_provenance() as u64;
        let mut bytes = Vec::new();
        bytes.extend(operation.to_ne_bytes());
        bytes.extend(24_u32.to_ne_bytes());
        bytes.extend(self.eventfd().to_ne_bytes());
        bytes.extend(self.random.word(&[0, 0, 1]));
        bytes.extend(dom.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    /// A request on its own guest, through the guest's file.
    fn of_guest(&mut self) -> (u32, Vec<u8>) {
        let kinds =
            [ASSIGN, DEASSIGN, ASSIGN_IRQ, DEASSIGN_IRQ, LOWER, ASSIGN_CHANNEL, DEASSIGN_CHANNEL];
        let request = *self.random.one_of(&kinds);
        let value = u64::from(self.random.byte() % 4);
        let port = Port(u32::from(self.random.byte() % 16));
        let eventfd = self.random.one_of(&self.eventfds);
        let bytes = match request {
            ASSIGN | DEASSIGN => Doorbell::value(DOORBELL, 4, value, eventfd).bytes(),
            ASSIGN_CHANNEL | DEASSIGN_CHANNEL => Channel::new(port, eventfd).bytes(),
            _ if value == 0 => Irq::channel(port, eventfd).bytes(),
            _ => Irq::of_vector(0x41, eventfd).bytes(),
        };
        (request, bytes)
    }

    fn call(&mut self) -> Result<()> {
        if self.random.once_in(300) {
            self.file = None;
        }
        // Signals an eventfd: raises an interrupt if it has one.
        signal(self.random.one_of(&self.eventfds)).ok();
        let through_guest = self.file.is_some() && self.random.once_in(2);
        let (request, mut bytes) = if through_guest { self.of_guest() } else { self.request() };
        let named = named(request, &bytes);
        let answer = match &self.file {
            Some(file) if through_guest => issue(file.as_fd(), request, &mut bytes),
            _ => issue(self.control, request, &mut bytes),
        };
        let errno = match answer {
            Ok(file) => {
                ensure!(
                    named.is_none_or(|named| named == self.own),
                    "request {request:#x} about {named:?} succeeded, confined to {}",
                    self.own
                );
                // Of memory, an object is let go of at once.
                let guest = file.filter(|_| request == CREATE);
                self.file = guest.or_else(|| self.file.take());
                0
            }
            Err(errno) => {
                ensure!(ERRNOS.contains(&errno), "an undocumented errno: {errno:?}");
                errno.raw_os_error()
            }
        };
        *self.answers.entry(errno).or_default() += 1;
        Ok(())
    }
}

/// The domain that a request on a control file names.
fn named(request: u32, bytes: &[u8]) -> Option<DomId> {
    let at = match request {
        CREATE | MEMORY => 8,
        OWNER => 4,
        RESTRICT => 0,
        PRIVCMD_IOEVENTFD => 44,
        PRIVCMD_IRQFD => 20,
        _ => return None,
    };
    let dom = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(DomId(u16::from_ne_bytes(dom)))
}

pub(super) fn caller(test: &mut TestContext<'_>) -> Result<()> {
    let seed = random::seed()?;
    let mut other = test.guest(&format!(
        "listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; pause 5000; end; say over | \
         listen msi 0x41 touched; wait touched; say touched"
    ))?;
    let before = Before::look(test, other.dom())?;
    let log = LogLength::now()?;
    let (file, kick) = (GuestFile::of(other.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    other.start()?;
    let stop = Notifier::to(test, &mut other, "stop")?;
    let bound = leftovers::interrupts()?;
    let mut answers = BTreeMap::new();
    for nth in 0..GUESTS {
        let seed = seed.wrapping_add(nth.into());
        for (errno, count) in attack(test, other.dom(), seed).with_context(|| {
            format!("guest {nth} of KERNEL_TEST_SEED={}", seed.wrapping_sub(nth.into()))
        })? {
            *answers.entry(errno).or_insert(0) += count;
        }
        test.no_zombies()?;
        ensure!(leftovers::interrupts()? == bound, "interrupts of a destroyed guest are left");
    }
    println!("{CALLS} calls while {GUESTS} guests died, by errno: {answers:?}");
    ensure!(answers.values().sum::<u32>() == CALLS);
    let many = |errno: i32| answers.get(&errno).is_some_and(|count| *count > CALLS / 50);
    ensure!(many(0) && many(Errno::PERM.raw_os_error()), "too little variety: {answers:?}");
    // The other guest's file, its doorbell and its interrupts are unchanged.
    ensure!(file.stats()?.doorbells == 1);
    ensure!(!other.has_message(1, "touched")?, "the other guest was interrupted");
    let call = new_eventfd()?;
    file.assign_irq(&Irq::of_vector(0x41, &call))?;
    signal(&call)?;
    other.await_message(1, "touched")?;
    stop.notify()?;
    other.finish()?;
    let (count, rounds) = (take_count(&kick)?, other.rounds("stop"));
    ensure!(count == rounds && rounds > 0, "{count} of {rounds} kicks of the other guest");
    drop((file, stop));
    before.nothing_is_left(test)?;
    log.stayed_short()
}

/// The calls of one caller that is confined to a new guest, which other threads take and release
/// meanwhile, and which is destroyed half-way. Returns the number of results by errno.
fn attack(test: &TestContext<'_>, other: DomId, seed: u64) -> Result<BTreeMap<i32, u32>> {
    const EACH: u32 = CALLS / GUESTS;
    // Endless, and not until it is stopped: the caller may notify any of its event channels.
    let mut guest = test.guest(&format!(
        "meet; repeat {MANY}; write mmio:{DOORBELL:#x} 4 0; end | \
         meet; repeat {MANY}; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let own = guest.dom();
    guest.start()?;
    let (control, free) = (Control::open()?, Control::open()?);
    control.restrict(own)?;
    let eventfds = (0..4).map(|_| new_eventfd()).collect::<Result<Vec<_>>>()?;
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        let calls = scope.spawn(|| -> Result<BTreeMap<i32, u32>> {
            let (random, file, answers) = (Random::new(seed), None, BTreeMap::new());
            let mut caller =
                Caller { random, control: &control, own, other, file, eventfds, answers };
            for nth in 0..EACH {
                made.store(nth, Ordering::Relaxed);
                caller.call().with_context(|| format!("call {nth}"))?;
            }
            Ok(caller.answers)
        });
        let (since, mut served) = (Instant::now(), 0);
        while made.load(Ordering::Relaxed) < EACH / 2 && !calls.is_finished() {
            ensure!(since.elapsed() < PATIENCE, "the calls do not end");
            match free.create(&Create::of(own)) {
                Ok(file) => {
                    let queues = two_queues(&file)?;
                    queues.iter().try_for_each(|queue| await_count(queue, 1).map(drop))?;
                    served += 1;
                }
                // The caller holds it.
                Err(Errno::BUSY) => thread::yield_now(),
                Err(errno) => return Err(errno).context("taking the guest"),
            }
        }
        guest.destroy()?;
        let answers = calls.join().map_err(|_| anyhow!("the caller panicked"))??;
        ensure!(served > 0 || answers.contains_key(&0), "the guest was never taken");
        Ok(answers)
    })
}
