//! Requests to Xen that a toolstack makes: domctl and sysctl, for domain 0 of real Xen.
//!
//! Tests make several for each guest. A process of `xl` for each would cost an emulated machine more than
//! most of the scenarios themselves. The interfaces have a number for each version of Xen, and Xen refuses
//! another one's with EACCES.

use crate::PATIENCE;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};
use xen_eventfd::DomId;

/// `struct privcmd_hypercall`: an operation and five arguments.
type Hypercall = [u64; 6];
/// `IOCTL_PRIVCMD_HYPERCALL`: `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const HYPERCALL: Opcode = 0x0030_5000;
/// `__HYPERVISOR_sysctl` and `__HYPERVISOR_domctl`.
const SYSCTL: u64 = 35;
const DOMCTL: u64 = 36;
/// `XEN_SYSCTL_INTERFACE_VERSION` and `XEN_DOMCTL_INTERFACE_VERSION` of Xen 4.20.
const SYSCTL_VERSION: u32 = 0x15;
const DOMCTL_VERSION: u32 = 0x17;
/// `XEN_SYSCTL_readconsole`, `XEN_SYSCTL_getdomaininfolist`, `XEN_SYSCTL_debug_keys`.
const READ_CONSOLE: u32 = 1;
const LIST_DOMAINS: u32 = 6;
const DEBUG_KEYS: u32 = 7;
/// `XEN_DOMCTL_pausedomain`, `XEN_DOMCTL_unpausedomain`, `XEN_DOMCTL_set_target`.
const PAUSE: u32 = 3;
const UNPAUSE: u32 = 4;
const SET_TARGET: u32 = 46;

/// `struct xen_sysctl` or `struct xen_domctl` in words: a head of one or two, and a union of 16.
type Request = [u64; 18];

/// The interval at which Xen's console is read again.
const TICK: Duration = Duration::from_millis(5);

/// How much of Xen's console is read at once.
const BUFFER: usize = 1 << 14;

/// The device through which the requests go, and a buffer for what they refer to.
#[derive(Debug)]
pub struct Control {
    privcmd: OwnedFd,
    buffer: Box<[u8; BUFFER]>,
}

impl Control {
    /// Opens the device.
    ///
    /// # Errors
    /// This is not a domain 0.
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let privcmd = open("/dev/xen/privcmd", flags, Mode::empty());
        let privcmd = privcmd.context("opening /dev/xen/privcmd")?;
        // Written, so that there are pages which Xen can write to.
        Ok(Self { privcmd, buffer: Box::new([1; BUFFER]) })
    }

    /// Stops a domain's vCPUs.
    ///
    /// # Errors
    /// There is no such domain.
    pub fn pause(&mut self, dom: DomId) -> Result<()> {
        self.domctl(PAUSE, dom, 0).with_context(|| format!("pausing {dom}"))
    }

    /// Lets a paused domain run.
    ///
    /// # Errors
    /// There is no such domain.
    pub fn unpause(&mut self, dom: DomId) -> Result<()> {
        self.domctl(UNPAUSE, dom, 0).with_context(|| format!("unpausing {dom}"))
    }

    /// Lets a domain control another one, as libxl lets stub domains.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn set_target(&mut self, dom: DomId, target: DomId) -> Result<()> {
        let target = u64::from(target.0);
        self.domctl(SET_TARGET, dom, target).with_context(|| format!("a target for {dom}"))
    }

    /// All guests, including those that are dead and still there because a page of theirs is mapped.
    ///
    /// # Errors
    /// Xen refuses to list them.
    pub fn guests(&mut self) -> Result<Vec<DomId>> {
        let mut found = Vec::new();
        let mut next = 1;
        loop {
            // One by one: the size of what Xen says of a domain is another in each of its versions.
            let words = [next | 1 << 32, self.address(), 0];
            let [.., listed] = self.sysctl(LIST_DOMAINS, words).context("listing the domains")?;
            if low(listed) == 0 {
                return Ok(found);
            }
            let [first, second, ..] = *self.buffer;
            let dom = u16::from_le_bytes([first, second]);
            found.push(DomId(dom));
            next = u64::from(dom) + 1;
        }
    }

    /// The device, for other requests.
    ///
    /// # Errors
    /// This process has no descriptor left.
    pub fn device(&self) -> Result<OwnedFd> {
        self.privcmd.try_clone().context("the device once more")
    }

    /// What Xen prints on its console when a key is pressed that makes it print its state.
    ///
    /// # Errors
    /// Xen refuses it, or does not print it.
    pub fn printed(&mut self, key: u8) -> Result<String> {
        self.take_console()?;
        self.press(key)?;
        // `h` prints its own name first: once that line was read, all output of `key` was.
        self.press(b'h')?;
        let (since, mut text) = (Instant::now(), String::new());
        // The console output follows the keys with a delay.
        loop {
            text.push_str(&self.take_console()?);
            if text.contains("'h' pressed") {
                return Ok(text);
            }
            ensure!(since.elapsed() < PATIENCE, "Xen does not print its state: {text}");
            sleep(TICK);
        }
    }

    fn press(&mut self, key: u8) -> Result<()> {
        let [first, ..] = &mut *self.buffer;
        *first = key;
        let words = [self.address(), 1, 0];
        let pressed = self.sysctl(DEBUG_KEYS, words).map(drop);
        pressed.with_context(|| format!("Xen's debug key {}", char::from(key)))
    }

    /// Takes what Xen has printed on its console since it was taken last.
    ///
    /// # Errors
    /// Xen refuses to say.
    pub fn take_console(&mut self) -> Result<String> {
        let mut text = Vec::new();
        loop {
            let words = [1, self.address(), BUFFER as u64];
            let [.., count] = self.sysctl(READ_CONSOLE, words).context("reading Xen's console")?;
            let taken = usize::try_from(low(count)).ok().and_then(|end| self.buffer.get(..end));
            let taken = taken.context("Xen's console is longer than Xen was asked for")?;
            text.extend_from_slice(taken);
            if taken.len() < BUFFER {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
        }
    }

    fn address(&mut self) -> u64 {
        self.buffer.as_mut_ptr().expose_provenance() as u64
    }

    /// The union's first three words, and what Xen makes of them.
    fn sysctl(&mut self, command: u32, words: [u64; 3]) -> Result<[u64; 3], Errno> {
        let [one, two, three] = words;
        let mut request = [0; 18];
        let [head, first, second, third, ..] = &mut request;
        *head = head_of(command, SYSCTL_VERSION);
        (*first, *second, *third) = (one, two, three);
        self.call(SYSCTL, &mut request)?;
        let [_, first, second, third, ..] = request;
        Ok([first, second, third])
    }

    fn domctl(&mut self, command: u32, dom: DomId, word: u64) -> Result<(), Errno> {
        let mut request = [0; 18];
        let [head, domain, first, ..] = &mut request;
        *head = head_of(command, DOMCTL_VERSION);
        (*domain, *first) = (u64::from(dom.0), word);
        self.call(DOMCTL, &mut request)
    }

    fn call(&mut self, operation: u64, request: &mut Request) -> Result<(), Errno> {
        let request = request.as_mut_ptr().expose_provenance() as u64;
        let mut arguments = [operation, request, 0, 0, 0, 0];
        let call = Call(&mut arguments);
        // SAFETY: the request lives until the call returns, and so does the buffer that it refers to. Xen
        // writes no more than the one, and of the other what the request says.
        unsafe { rustix::ioctl::ioctl(&self.privcmd, call) }
    }
}

/// The command and the interface's version: the first two fields of both structs.
fn head_of(command: u32, version: u32) -> u64 {
    u64::from(command) | u64::from(version) << 32
}

/// The first 32-bit field of a word.
fn low(word: u64) -> u64 {
    word & u64::from(u32::MAX)
}

struct Call<'a>(&'a mut Hypercall);

// SAFETY: the number is that of `IOCTL_PRIVCMD_HYPERCALL`, whose argument is this struct.
unsafe impl Ioctl for Call<'_> {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        HYPERCALL
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}
