//! Callers who pass anything.

use super::calls::{self, Call, Setting};
use super::common::{Bell, DOORBELL, IDLE};
use super::kernel_log;
use super::left::Before;
use super::random::{self, ERRNOS, Random};
use crate::device::request::{
    ASSIGN_IRQ, CREATE, IRQ_MSI, OF_CONTROL, OF_GUEST, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD, RESTRICT,
};
use crate::device::structs::Doorbell;
use crate::device::{Control, GuestFile, ask, ask_at};
use anyhow::{Result, bail, ensure};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use xen_eventfd_scenarios::Play;
use xen_eventfd_scenarios::play::{await_count, new_eventfd};

const CALLS: u32 = 100_000;

/// Lines that all of this may add to the kernel's log.
const LOGGED: usize = 50;

/// A caller and what it has to call with.
struct Caller<'a> {
    random: Random,
    setting: &'a Setting,
    calls: Vec<Call>,
    /// Eventfds, other files, and numbers that are not open.
    descriptors: Vec<i32>,
    /// To ask through instead of the setting's: it may be confined.
    control: Control,
    /// Of the guest that is nobody's, now and then.
    second: Option<GuestFile>,
    /// How often each errno came; 0 is success.
    answers: BTreeMap<i32, u32>,
}

impl Caller<'_> {
    /// A struct that is like a good one.
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
        // For requests that take more than this one.
        bytes.resize(bytes.len().max(64), 0);
        bytes
    }

    /// A guest that runs is to get through it: it can take any vector from 0x20 on, and no NMI.
    fn tame(request: u32, bytes: &mut [u8]) {
        if request == ASSIGN_IRQ && bytes[8..12] == IRQ_MSI.to_ne_bytes() {
            bytes[28..32].copy_from_slice(&0x41_u32.to_ne_bytes());
            bytes[32..40].copy_from_slice(&0xFEE0_0000_u64.to_ne_bytes());
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

    /// One call, of whatever kind.
    fn call(&mut self) -> Result<()> {
        if self.random.once_in(1000) {
            self.control = Control::open()?;
        }
        if self.random.once_in(200) {
            self.second = None;
        }
        let answer = match self.random.below(50) {
            0 => self.privcmd(),
            _ => self.native(),
        };
        let errno = match answer {
            Ok(file) => {
                self.second = file.or_else(|| self.second.take());
                0
            }
            Err(errno) if ERRNOS.contains(&errno) => errno.raw_os_error(),
            Err(errno) => bail!("an errno that nothing speaks of: {errno:?}"),
        };
        *self.answers.entry(errno).or_default() += 1;
        Ok(())
    }

    fn native(&mut self) -> Result<Option<GuestFile>, Errno> {
        let mut chosen = self.random.below(self.calls.len());
        // To take a guest is a hundred times the work of anything else.
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
            // Not into memory of ours.
            usize::try_from(address | 1 << 63).unwrap_or(usize::MAX)
        });
        let (other, to_second) = (self.random.once_in(20), self.random.once_in(3));
        let file: BorrowedFd<'_> = match &self.second {
            _ if OF_CONTROL.contains(&request) != other => self.control.as_fd(),
            Some(second) if to_second => second.as_fd(),
            _ => self.setting.file.as_fd(),
        };
        match anywhere {
            Some(address) => ask_at(file, request, address),
            None => ask(file, request, &mut bytes),
        }
    }

    /// A request of privcmd, for the guest that is nobody's or for none.
    fn privcmd(&mut self) -> Result<Option<GuestFile>, Errno> {
        let free = self.setting.free.dom().0;
        let dom = if self.random.once_in(4) {
            u16::from_le_bytes([self.random.byte(), self.random.byte()])
        } else {
            free
        };
        let request = *self.random.one_of(&[PRIVCMD_IOEVENTFD, PRIVCMD_IOEVENTFD, PRIVCMD_IRQFD]);
        if self.random.once_in(50) {
            return ask(&self.control, RESTRICT, &mut dom.to_ne_bytes());
        }
        // What the pointers point to, if anything.
        let there: Vec<u8> = (0..64).map(|_| self.random.byte()).collect();
        let place = there.as_ptr().expose_provenance() as u64;
        let pointer = |random: &mut Random| if random.once_in(3) { random.next() } else { place };
        let mut bytes = Vec::new();
        bytes.extend(pointer(&mut self.random).to_ne_bytes());
        if request == PRIVCMD_IOEVENTFD {
            bytes.extend(pointer(&mut self.random).to_ne_bytes());
            bytes.extend((DOORBELL & !0xFF).to_ne_bytes());
            bytes.extend(self.random.word(&[0, 1, 2, 3, 4, 8, u32::MAX]));
            bytes.extend(self.random.one_of(&self.descriptors).to_ne_bytes());
            bytes.extend(self.random.word(&[0, 1, 1, 1, 2, 4096, 4097]));
            bytes.extend(self.random.word(&[0, 1, 2, u32::MAX]));
        } else {
            bytes.extend(self.random.word(&[0, 8, 16, 24, 32, u32::MAX]));
            bytes.extend(self.random.one_of(&self.descriptors).to_ne_bytes());
        }
        bytes.extend(self.random.word(&[0, 0, 0, 1, 1, 2, u32::MAX]));
        bytes.extend(dom.to_ne_bytes());
        bytes.extend([0, 0]);
        ask(&self.control, request, &mut bytes)
    }
}

pub(super) fn random(play: &mut Play<'_>) -> Result<()> {
    let rings = format!(
        "repeat 4; write mmio:{DOORBELL:#x} 4 i; end; write pio:0xc050 2 1; \
         write mmio:{DOORBELL:#x} 2 1; read mmio:{DOORBELL:#x} 4; pause 5000"
    );
    let mut guest = play.guest(&format!(
        "listen evtchn call; listen evtchn stop; meet; until stop; {rings}; end | \
         listen evtchn halt; meet; until halt; {rings}; end"
    ))?;
    let free = play.guest(IDLE)?;
    guest.start()?;
    let bells = [Bell::to(play, &mut guest, "stop")?, Bell::to(play, &mut guest, "halt")?];
    let before = [Before::look(play, guest.dom())?, Before::look(play, free.dom())?];
    let setting = Setting::of(guest, free)?;
    let seed = random::seed()?;
    let logged = kernel_log::lines()?.len();
    let eventfds = (0..8).map(|_| new_eventfd()).collect::<Result<Vec<OwnedFd>>>()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let mut descriptors: Vec<i32> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
    let others = [reader.as_raw_fd(), writer.as_raw_fd(), setting.file.number()];
    descriptors.extend(others.into_iter().chain([-1, i32::MIN, i32::MAX, 1 << 20]));
    let mut caller = Caller {
        random: Random::new(seed),
        setting: &setting,
        calls: calls::all(&setting),
        descriptors,
        control: Control::open()?,
        second: None,
        answers: BTreeMap::new(),
    };
    for nth in 0..CALLS {
        if let Err(error) = caller.call() {
            bail!("call {nth} of KERNEL_TEST_SEED={seed}: {error:#}");
        }
    }
    let Caller { answers, control, second, .. } = caller;
    println!("{CALLS} calls, by errno: {answers:?}");
    let few = [0, Errno::INVAL.raw_os_error(), Errno::NOENT.raw_os_error()];
    ensure!(
        few.iter().all(|answer| answers.get(answer).is_some_and(|count| *count > 1000)),
        "these calls were too much alike: {answers:?}"
    );
    ensure!(answers.values().sum::<u32>() == CALLS);
    let Setting { control: first, file, mut guest, free: _free, .. } = setting;
    drop((control, second, first, file, eventfds));
    before.iter().try_for_each(|before| before.nothing_is_left(play))?;
    let logged = kernel_log::lines()?.len() - logged;
    ensure!(logged < LOGGED, "{logged} lines in the kernel's log");
    // The guest is served as ever.
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 3, &kick))?;
    await_count(&kick, 20)?;
    bells.iter().try_for_each(Bell::ring)?;
    guest.finish()
}
