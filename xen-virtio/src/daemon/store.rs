//! What xenstore says of guests: the nodes that libxl makes for `virtio=` lines, and how far libxl is.
//!
//! libxl makes `/libxl/N` with the guest's name before it builds the guest; `backend/virtio/N/D` for each line, shortly
//! before it lets the guest run; then `/libxl/N/device/console/0`; and then it waits until xenconsoled has written
//! `console/tty`. So the lines are complete once there is a console, and a guest without a `tty` has not run.

use crate::error::{Error, Result};
use crate::layout::MmioPlace;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::DomId;
use xen_eventfd_host::xenstore::{Transaction, Xenstore};
use xen_eventfd_host::{Errno, HostError};

/// Where libxl keeps what is about domains, below their numbers.
const LIBXL: &str = "/libxl";
/// Where backends in this domain have their nodes, below the guest's number and the device's.
const BACKENDS: &str = "backend/virtio";
const RELEASE: &str = "@releaseDomain";
/// How often a transaction is tried that others get in the way of.
const TRIES: u32 = 100;

/// The state of a device in xenstore (`enum xenbus_state` of Xen's `public/io/xenbus.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XenbusState(pub(crate) u32);

impl XenbusState {
    /// The backend knows the device.
    pub(crate) const INIT_WAIT: Self = Self(2);
    pub(crate) const CONNECTED: Self = Self(4);
    /// libxl wants it to end.
    pub(crate) const CLOSING: Self = Self(5);
    pub(crate) const CLOSED: Self = Self(6);
}

/// A guest, as xenstore has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) dom: DomId,
    pub(crate) name: String,
    pub(crate) uuid: String,
    /// libxl has written all its lines.
    pub(crate) is_complete: bool,
    /// libxl may have let it run.
    pub(crate) may_run: bool,
    pub(crate) lines: Vec<Line>,
}

/// A line `virtio=` of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The device's number; lines are in their order.
    pub(crate) number: u32,
    /// As it is in the line: `virtio,device02`, of which the digits are hexadecimal.
    pub(crate) device_type: String,
    pub(crate) state: XenbusState,
}

impl Line {
    /// The virtio number of its type.
    pub(crate) fn virtio_number(&self) -> Option<u16> {
        let digits = self.device_type.strip_prefix("virtio,device")?;
        u16::from_str_radix(digits, 16).ok()
    }
}

/// Follows guests in xenstore.
#[derive(Debug)]
pub(crate) struct Store(Box<dyn Xenstore>);

impl Store {
    /// Watches what changes.
    pub(crate) fn follow(mut xenstore: Box<dyn Xenstore>) -> Result<Self> {
        for path in [LIBXL, BACKENDS, RELEASE] {
            xenstore.watch(path, path)?;
        }
        Ok(Self(xenstore))
    }

    /// Readable when something may have changed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// Whether something may have changed since this was asked before.
    pub(crate) fn has_changed(&mut self) -> Result<bool> {
        Ok(!self.0.events()?.is_empty())
    }

    /// The domains that libxl knows, without this one.
    pub(crate) fn guests(&mut self) -> Result<Vec<DomId>> {
        let names = absent(self.0.directory(Transaction::NONE, LIBXL))?.unwrap_or_default();
        let numbers = names.iter().filter_map(|name| name.parse().ok());
        Ok(numbers.filter(|number| *number != 0).map(DomId).collect())
    }

    /// A guest. `None`: it is gone.
    pub(crate) fn guest(&mut self, dom: DomId) -> Result<Option<Seen>> {
        let (libxl, domain) = (format!("{LIBXL}/{}", dom.0), format!("/local/domain/{}", dom.0));
        let (Some(name), Some(vm)) =
            (self.text(&format!("{domain}/name"))?, self.text(&format!("{domain}/vm"))?)
        else {
            return Ok(None);
        };
        if absent(self.0.directory(Transaction::NONE, &libxl))?.is_none() {
            return Ok(None);
        }
        let uuid = vm.strip_prefix("/vm/").unwrap_or(&vm).to_owned();
        let has = |store: &mut Self, path: &str| Ok::<_, Error>(store.text(path)?.is_some());
        // In this order: what is complete now was complete when its lines are read.
        let is_complete = has(self, &format!("{libxl}/device/console"))?;
        let lines = self.lines(dom)?;
        let tty = self.text(&format!("{domain}/console/tty"))?;
        let may_run = tty.is_some_and(|tty| !tty.is_empty());
        Ok(Some(Seen { dom, name, uuid, is_complete, may_run, lines }))
    }

    fn lines(&mut self, dom: DomId) -> Result<Vec<Line>> {
        let folder = folder(dom);
        let mut lines = Vec::new();
        for number in numbers(&mut *self.0, dom)? {
            let device_type = self.text(&format!("{folder}/{number}/type"))?;
            let state = self.text(&format!("{folder}/{number}/state"))?;
            let state = state.and_then(|state| state.parse().ok());
            // What has no state is being made, or removed.
            if let (Some(device_type), Some(state)) = (device_type, state) {
                lines.push(Line { number, device_type, state: XenbusState(state) });
            }
        }
        Ok(lines)
    }

    /// Has the state of a guest's devices be this one, but for those that libxl wants closed, which are.
    pub(crate) fn set_states(&mut self, seen: &Seen, wanted: XenbusState) -> Result<()> {
        // Those that have changed since come with an event.
        for line in seen.lines.iter().filter(|line| line.state != wanted) {
            let path = format!("{}/{}/state", folder(seen.dom), line.number);
            self.set_state(&path, wanted)?;
        }
        Ok(())
    }

    /// In a transaction, as libxl may write at the same time.
    fn set_state(&mut self, path: &str, wanted: XenbusState) -> Result<()> {
        for _ in 0..TRIES {
            let transaction = self.0.begin()?;
            let Some(state) = absent(self.0.read(transaction, path))? else {
                return Ok(self.0.abort(transaction)?);
            };
            let state = String::from_utf8_lossy(&state).parse().map(XenbusState);
            let next = match state {
                Ok(XenbusState::CLOSING) => XenbusState::CLOSED,
                Ok(XenbusState::CLOSED) => return Ok(self.0.abort(transaction)?),
                Ok(now) if now == wanted => return Ok(self.0.abort(transaction)?),
                _ => wanted,
            };
            self.0.write(transaction, path, next.0.to_string().as_bytes())?;
            match self.0.commit(transaction) {
                Err(error) if error.errno == Errno::AGAIN => {}
                done => return Ok(done?),
            }
        }
        Ok(())
    }

    fn text(&mut self, path: &str) -> Result<Option<String>> {
        text(&mut *self.0, path)
    }
}

/// Where libxl has put the devices of an Arm guest: the places of its lines, in their order. Each is above the one
/// before, as libxl gives addresses out.
///
/// # Errors
/// A line has none, as without `transport=mmio`, or shares one.
pub(crate) fn places(xenstore: &mut dyn Xenstore, dom: DomId) -> Result<Vec<MmioPlace>> {
    let mut places: Vec<MmioPlace> = Vec::new();
    for number in numbers(xenstore, dom)? {
        let node = format!("{}/{number}", folder(dom));
        let (base, irq) =
            (text(xenstore, &format!("{node}/base"))?, text(xenstore, &format!("{node}/irq"))?);
        let last = places.last().map_or(0, |place| place.base);
        let place = place(base.as_deref(), irq.as_deref()).filter(|place| place.base > last);
        places.push(place.ok_or(Error::NoPlace { number, base, irq })?);
    }
    Ok(places)
}

/// As `libxl_virtio.c` writes them: the one in hexadecimal, the other in decimal digits.
fn place(base: Option<&str>, irq: Option<&str>) -> Option<MmioPlace> {
    let base = u64::from_str_radix(base?.strip_prefix("0x")?, 16).ok()?;
    Some(MmioPlace { base, spi: irq?.parse().ok().filter(|spi| *spi != 0)? })
}

/// Where the devices of a guest are.
fn folder(dom: DomId) -> String {
    format!("{BACKENDS}/{}", dom.0)
}

/// The numbers of its lines, in their order.
fn numbers(xenstore: &mut dyn Xenstore, dom: DomId) -> Result<Vec<u32>> {
    let names = absent(xenstore.directory(Transaction::NONE, &folder(dom)))?.unwrap_or_default();
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn text(xenstore: &mut dyn Xenstore, path: &str) -> Result<Option<String>> {
    let bytes = absent(xenstore.read(Transaction::NONE, path))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A node that is not there is `None`.
fn absent<T>(answer: core::result::Result<T, HostError>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno == Errno::NOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}
