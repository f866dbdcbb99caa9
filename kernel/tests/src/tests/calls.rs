//! Every request, with a valid struct, and the expected result for each field.

use crate::device::request::{
    ANY, ASSIGN, ASSIGN_CHANNEL, ASSIGN_IRQ, ASSIGN_STATUS, CHANGE_STATUS, CREATE, DEASSIGN,
    DEASSIGN_CHANNEL, DEASSIGN_IRQ, DEASSIGN_STATUS, IRQ_CHANNEL, IRQ_INTX, IRQ_ISA, IRQ_MSI,
    IRQ_SPI, IRQ_STATE, IRQ_STATS, IRQ_STATUS, LIST, LIST_DOORBELLS, LOWER, MASK_IRQ, MEMORY,
    MISSED, MMIO, OF_CONTROL, OWNER, PIO, QUERY, SET_IRQ, STATS, UNMASK_IRQ, VALUE, WIDTH,
};
use crate::device::structs::{
    Channel, Create, Doorbell, Entry, Irq, Memory, Missed, Owner, Query, Stats, Status,
};
use crate::device::{Control, GuestFile, issue, issue_at};
use crate::tests::common::{BASE, DOORBELL, IDLE};
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen_eventfd::{Arch, DomId, Port};
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{Guest, new_eventfd};

/// Where the device has InterruptStatus.
const STATUS: u64 = BASE + 0x60;

/// The expected result of a request.
pub(super) type Verdict = Result<(), Errno>;

/// The guests and files of the calls.
pub(super) struct Setting {
    pub(super) control: Control,
    /// The file of a guest that runs and does nothing.
    pub(super) file: GuestFile,
    pub(super) guest: Guest,
    /// A guest that is not taken.
    pub(super) free: Guest,
    pub(super) eventfd: OwnedFd,
    /// An event channel of `guest` that is allocated for this domain, and not bound.
    pub(super) port: Port,
}

/// One field, and the expected result for each of its values.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) rule: Box<dyn Fn(u64) -> Verdict>,
}

/// One request.
pub(super) struct Call {
    pub(super) name: String,
    pub(super) request: u32,
    pub(super) good: Vec<u8>,
    /// The expected result.
    pub(super) verdict: Verdict,
    /// The request that undoes it if it succeeds.
    undo: Option<u32>,
    /// The offset of its eventfd.
    pub(super) eventfd: Option<usize>,
    pub(super) fields: Vec<Field>,
}

impl Setting {
    pub(super) fn new(test: &TestContext<'_>) -> Result<Self> {
        let (mut guest, free) = (test.guest("listen evtchn call; wait call")?, test.guest(IDLE)?);
        guest.start()?;
        Self::of(guest, free)
    }

    /// The same with other guests. The first runs and listens to an event channel `call`.
    pub(super) fn of(mut guest: Guest, free: Guest) -> Result<Self> {
        let port = guest.port("call")?;
        let (control, file) = (Control::open()?, GuestFile::of(guest.dom())?);
        Ok(Self { control, file, guest, free, eventfd: new_eventfd()?, port })
    }

    /// The file that a request belongs to.
    pub(super) fn place(&self, request: u32) -> BorrowedFd<'_> {
        if OF_CONTROL.contains(&request) { self.control.as_fd() } else { self.file.as_fd() }
    }
}

impl Call {
    /// Makes the call with these bytes, and undoes it.
    pub(super) fn make(&self, setting: &Setting, bytes: &[u8]) -> Result<Verdict> {
        let made = issue(setting.place(self.request), self.request, &mut bytes.to_vec()).map(drop);
        self.undo(setting, bytes, made)
    }

    /// The same with the memory at an address; undone by these bytes.
    pub(super) fn make_at(&self, setting: &Setting, at: usize, bytes: &[u8]) -> Result<Verdict> {
        let made = issue_at(setting.place(self.request), self.request, at).map(drop);
        self.undo(setting, bytes, made)
    }

    fn undo(&self, setting: &Setting, bytes: &[u8], made: Verdict) -> Result<Verdict> {
        if let (Ok(()), Some(undo)) = (made, self.undo) {
            issue(&setting.file, undo, &mut bytes.to_vec())
                .with_context(|| format!("{}: cannot be undone", self.name))?;
        }
        Ok(made)
    }

    /// The valid struct with another value in one field.
    pub(super) fn with(&self, at: usize, width: usize, value: u64) -> Vec<u8> {
        let mut bytes = self.good.clone();
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        bytes
    }
}

impl Field {
    /// The values at which an error is likely: around 0, around the end, each bit, and around
    /// the valid value.
    pub(super) fn edges(&self, good: &[u8]) -> BTreeSet<u64> {
        let mut there = [0; 8];
        there[..self.width].copy_from_slice(&good[self.at..self.at + self.width]);
        let (there, max) = (u64::from_le_bytes(there), u64::MAX >> (64 - 8 * self.width));
        let bits = (0..8 * self.width).map(|bit| 1 << bit);
        bits.flat_map(|bit: u64| [bit - 1, bit, bit + 1])
            .chain([0, max, max - 1, there, !there, there.wrapping_add(1), there.wrapping_sub(1)])
            .map(|value| value & max)
            .collect()
    }
}

fn field(
    name: &'static str,
    at: usize,
    width: usize,
    rule: impl Fn(u64) -> Verdict + 'static,
) -> Field {
    Field { name, at, width, rule: Box::new(rule) }
}

/// A field of which only some values are valid.
fn only(
    name: &'static str,
    at: usize,
    width: usize,
    verdict: Verdict,
    can_be: impl Fn(u64) -> bool + 'static,
) -> Field {
    field(name, at, width, move |value| if can_be(value) { verdict } else { Err(Errno::INVAL) })
}

fn zero(name: &'static str, at: usize, width: usize, verdict: Verdict) -> Field {
    only(name, at, width, verdict, |value| value == 0)
}

/// All requests; those with several kinds of struct, once for each kind.
pub(super) fn all(setting: &Setting) -> Vec<Call> {
    let mut calls = of_control(setting);
    calls.extend(of_doorbells(setting));
    calls.extend(of_irqs(setting));
    calls.extend(of_channels(setting));
    calls.extend(of_statuses(setting));
    calls
}

/// Each request once.
pub(super) fn each(setting: &Setting) -> Vec<Call> {
    let mut calls = all(setting);
    let mut seen = BTreeSet::new();
    calls.retain(|call| seen.insert(call.request));
    calls
}

fn of_control(setting: &Setting) -> Vec<Call> {
    let (free, taken) = (u64::from(setting.free.dom().0), u64::from(setting.guest.dom().0));
    let reserved = |dom| !u16::try_from(dom).is_ok_and(|dom| DomId(dom).is_guest());
    let end = end_of_memory();
    vec![
        Call {
            name: "QUERY".to_owned(),
            request: QUERY,
            good: Query::empty(),
            verdict: Ok(()),
            undo: None,
            eventfd: None,
            fields: vec![],
        },
        Call {
            name: "CREATE".to_owned(),
            request: CREATE,
            good: Create::of(setting.free.dom()).bytes(),
            verdict: Ok(()),
            undo: None,
            eventfd: Some(12),
            fields: vec![
                only("flags", 4, 4, Ok(()), |flags| flags <= 6 && flags & 3 != 3),
                field("dom", 8, 2, move |dom| match dom {
                    _ if reserved(dom) => Err(Errno::INVAL),
                    0 => Err(Errno::PERM),
                    _ if dom == taken => Err(Errno::BUSY),
                    _ if dom == free => Ok(()),
                    _ => Err(Errno::NODEV),
                }),
                zero("pad", 10, 2, Ok(())),
            ],
        },
        Call {
            name: "OWNER".to_owned(),
            request: OWNER,
            good: Owner::of(setting.guest.dom()),
            verdict: Ok(()),
            undo: None,
            eventfd: None,
            fields: vec![
                field("dom", 4, 2, move |dom| match dom {
                    _ if reserved(dom) => Err(Errno::INVAL),
                    _ if dom == taken => Ok(()),
                    _ => Err(Errno::NOENT),
                }),
                zero("pad", 6, 2, Ok(())),
            ],
        },
        Call {
            name: "MEMORY".to_owned(),
            request: MEMORY,
            good: Memory { flags: 0, dom: setting.free.dom().0, guest_address: 0, length: 0x2000 }
                .bytes(),
            verdict: Ok(()),
            undo: None,
            eventfd: None,
            fields: vec![
                zero("flags", 4, 4, Ok(())),
                field("dom", 8, 2, move |dom| match dom {
                    _ if reserved(dom) => Err(Errno::INVAL),
                    0 => Err(Errno::PERM),
                    _ if dom == taken || dom == free => Ok(()),
                    _ => Err(Errno::NODEV),
                }),
                zero("pad", 10, 2, Ok(())),
                zero("more pad", 12, 4, Ok(())),
                only("guest_address", 16, 8, Ok(()), move |address| {
                    address % 0x1000 == 0 && address <= end - 0x2000
                }),
                only("length", 24, 8, Ok(()), move |length| {
                    length % 0x1000 == 0 && length != 0 && length <= end
                }),
            ],
        },
    ]
}

/// The end of a guest's last page.
fn end_of_memory() -> u64 {
    match Arch::NATIVE {
        // That of Xen's tools, below 4 GiB.
        Arch::X86 => 0xFF00_0000,
        // That of its 16 MiB, which begin at 1 GiB.
        Arch::Arm => 0x4100_0000,
    }
}

fn of_doorbells(setting: &Setting) -> Vec<Call> {
    let eventfd = &setting.eventfd;
    let mut calls = Vec::new();
    let doorbells = [
        ("value", Doorbell::value(DOORBELL, 4, 1, eventfd)),
        ("port", Doorbell::value(0xC050, 2, 1, eventfd).pio()),
        ("width", Doorbell::wildcard(DOORBELL, WIDTH, 4, eventfd)),
        ("any", Doorbell::wildcard(DOORBELL, ANY, 4, eventfd)),
        ("fallback", Doorbell::fallback(DOORBELL, 4, eventfd)),
    ];
    let none = Err(Errno::NOENT);
    for (name, request, verdict, undo) in
        [("ASSIGN", ASSIGN, Ok(()), Some(DEASSIGN)), ("DEASSIGN", DEASSIGN, none, None)]
    {
        for (kind, doorbell) in doorbells {
            let verdict = of_space(doorbell.space, verdict);
            calls.push(Call {
                name: format!("{name} {kind}"),
                request,
                good: doorbell.bytes(),
                verdict,
                undo,
                eventfd: Some(20),
                fields: doorbell_fields(doorbell, verdict),
            });
        }
    }
    calls.push(Call {
        name: "STATS".to_owned(),
        request: STATS,
        good: Stats::empty(),
        verdict: Ok(()),
        undo: None,
        eventfd: None,
        fields: vec![],
    });
    calls.push(Call {
        name: "LIST".to_owned(),
        request: LIST,
        good: Entry::at(LIST_DOORBELLS, 0),
        verdict: none,
        undo: None,
        eventfd: None,
        fields: vec![
            only("what", 4, 4, none, |what| what <= 1),
            field("index", 8, 4, move |_| none),
        ],
    });
    calls.push(Call {
        name: "MISSED".to_owned(),
        request: MISSED,
        good: Missed::of(&Doorbell::fallback(DOORBELL, 4, eventfd)),
        verdict: none,
        undo: None,
        eventfd: Some(12),
        fields: vec![
            only("space", 4, 4, none, |space| space == 0),
            only("len", 8, 4, none, |len| (1..=8).contains(&len)),
            only("addr", 16, 8, none, |addr| addr.checked_add(3).is_some()),
            zero("pad", 28, 4, none),
        ],
    });
    calls
}

/// The result of an assignment that is otherwise valid: an Arm guest has no ports.
fn of_space(space: u32, verdict: Verdict) -> Verdict {
    match Arch::NATIVE {
        Arch::Arm if space == PIO && verdict.is_ok() => Err(Errno::OPNOTSUPP),
        _ => verdict,
    }
}

fn doorbell_fields(doorbell: Doorbell, verdict: Verdict) -> Vec<Field> {
    let Doorbell { space, kind, len, datamatch, datamask, .. } = doorbell;
    let port = space == PIO;
    let end = if port { u64::from(u16::MAX) } else { u64::MAX };
    let wildcard = move |value| kind == VALUE || value == 0;
    vec![
        zero("flags", 4, 4, verdict),
        // A port's number is checked as an address as well.
        field("space", 8, 4, move |space| match u32::try_from(space) {
            // The other address is valid, too.
            Ok(MMIO) if port && verdict == Err(Errno::OPNOTSUPP) => Ok(()),
            Ok(MMIO) => verdict,
            Ok(PIO) if port => verdict,
            _ => Err(Errno::INVAL),
        }),
        only("kind", 12, 4, verdict, move |other| {
            if kind == VALUE { other == 0 } else { (1..=3).contains(&other) }
        }),
        only("len", 16, 4, verdict, move |len| match kind {
            VALUE => [1, 2, 4, 8].contains(&len) && datamask >> (8 * len - 1) <= 1,
            WIDTH => [1, 2, 4, 8].contains(&len),
            _ => (1..=8).contains(&len),
        }),
        only("addr", 24, 8, verdict, move |addr| {
            addr.checked_add(u64::from(len) - 1).is_some_and(|last| last <= end)
        }),
        only("datamatch", 32, 8, verdict, move |value| wildcard(value) && value & !datamask == 0),
        only("datamask", 40, 8, verdict, move |mask| {
            wildcard(mask)
                && (kind != VALUE || mask != 0)
                && (kind != VALUE || mask >> (8 * len - 1) <= 1)
                && datamatch & !mask == 0
        }),
    ]
}

fn of_irqs(setting: &Setting) -> Vec<Call> {
    let eventfd = &setting.eventfd;
    let irqs = [
        ("channel", Irq::channel(setting.port, eventfd)),
        ("msi", Irq::msi(0x41, eventfd)),
        ("isa", Irq::isa(0, eventfd)),
        ("intx", Irq::intx(0, 3, eventfd)),
        ("spi", Irq::spi(1019, eventfd)),
        ("status", Irq::status(STATUS, 1, eventfd)),
    ];
    let none = Err(Errno::NOENT);
    let mut calls = Vec::new();
    for (name, request, verdict, undo) in [
        ("ASSIGN_IRQ", ASSIGN_IRQ, Ok(()), Some(DEASSIGN_IRQ)),
        ("DEASSIGN_IRQ", DEASSIGN_IRQ, none, None),
        ("IRQ_STATS", IRQ_STATS, none, None),
        ("LOWER", LOWER, none, None),
        ("MASK_IRQ", MASK_IRQ, none, None),
        ("UNMASK_IRQ", UNMASK_IRQ, none, None),
        ("IRQ_STATE", IRQ_STATE, none, None),
    ] {
        for (kind, irq) in irqs {
            let verdict = of_kind(irq.kind, verdict);
            calls.push(Call {
                name: format!("{name} {kind}"),
                request,
                good: if request == IRQ_STATE { irq.state() } else { irq.bytes() },
                verdict,
                undo,
                eventfd: Some(12),
                fields: irq_fields(irq, setting.port, verdict, request == ASSIGN_IRQ),
            });
        }
    }
    // There is no assignment to change, but both interrupts are valid.
    for (was, (kind, is)) in irqs.iter().map(|(_, was)| was).zip(irqs.iter().cycle().skip(1)) {
        let mut fields = irq_fields(*was, setting.port, none, false);
        let new = irq_fields(*is, setting.port, none, false).into_iter().skip(1);
        // The same fields, after those of the eventfd, of which there is one.
        let places = [40, 44, 48, 52, 56, 64];
        fields.extend(new.zip(places).map(|(field, at)| Field { at, ..field }));
        fields.push(zero("pad", 60, 4, none));
        calls.push(Call {
            name: format!("SET_IRQ to {kind}"),
            request: SET_IRQ,
            good: was.change(is),
            verdict: none,
            undo: None,
            eventfd: Some(12),
            fields,
        });
    }
    calls
}

/// The result of an assignment that is otherwise valid: the guest is not an HVM guest and has no lines.
fn of_kind(kind: u32, verdict: Verdict) -> Verdict {
    let foreign = match Arch::NATIVE {
        Arch::X86 => IRQ_SPI,
        Arch::Arm => IRQ_MSI,
    };
    match kind {
        _ if verdict.is_ok() && [IRQ_ISA, IRQ_INTX, foreign].contains(&kind) => {
            Err(Errno::OPNOTSUPP)
        }
        // There is none at the address.
        IRQ_STATUS if verdict.is_ok() => Err(Errno::INVAL),
        _ => verdict,
    }
}

fn irq_fields(irq: Irq, port: Port, verdict: Verdict, assigning: bool) -> Vec<Field> {
    let Irq { kind, number, pin, .. } = irq;
    let is_line = [IRQ_ISA, IRQ_INTX, IRQ_SPI].contains(&kind);
    // Whether an event channel can have this number: an assignment looks for it in Xen.
    let channel = move |number| if assigning { number == u64::from(port.0) } else { number != 0 };
    vec![
        zero("flags", 4, 4, verdict),
        field("kind", 8, 4, move |other| {
            let (number, other) = (u64::from(number), u32::try_from(other).unwrap_or(u32::MAX));
            let can_be = match other {
                IRQ_MSI => kind == IRQ_MSI,
                _ if kind == IRQ_MSI => false,
                IRQ_CHANNEL if kind != IRQ_STATUS => pin == 0 && channel(number),
                IRQ_ISA if kind != IRQ_STATUS => pin == 0 && number <= 15,
                IRQ_INTX if kind != IRQ_STATUS => number <= 31,
                // Of another kind, the address is 0.
                IRQ_STATUS => pin == 0 && number != 0,
                _ if kind == IRQ_STATUS => false,
                IRQ_SPI => pin == 0 && (32..=1019).contains(&number),
                _ => false,
            };
            match can_be {
                true if assigning => of_kind(other, Ok(())),
                true => verdict,
                false => Err(Errno::INVAL),
            }
        }),
        only("trigger", 16, 4, verdict, move |trigger| trigger == 0 || is_line && trigger == 1),
        only("number", 20, 4, verdict, move |number| match kind {
            IRQ_CHANNEL => channel(number),
            IRQ_MSI => number == 0,
            IRQ_ISA => number <= 15,
            IRQ_INTX => number <= 31,
            IRQ_STATUS => number != 0,
            _ => (32..=1019).contains(&number),
        }),
        only("pin", 24, 4, verdict, move |pin| pin == 0 || kind == IRQ_INTX && pin <= 3),
        only("msi_data", 28, 4, verdict, move |data| data == 0 || kind == IRQ_MSI),
        only("msi_addr", 32, 8, verdict, move |addr| match kind {
            IRQ_MSI => addr >> 20 == 0xFEE,
            IRQ_STATUS => are_registers(addr),
            _ => addr == 0,
        }),
    ]
}

/// Whether InterruptStatus can be at an address.
fn are_registers(addr: u64) -> bool {
    addr.is_multiple_of(4) && addr <= u64::MAX - 7
}

fn of_statuses(setting: &Setting) -> Vec<Call> {
    let eventfd = &setting.eventfd;
    let none = Err(Errno::NOENT);
    let mut calls = Vec::new();
    for (name, request, verdict, undo) in [
        ("ASSIGN_STATUS", ASSIGN_STATUS, Ok(()), Some(DEASSIGN_STATUS)),
        ("DEASSIGN_STATUS", DEASSIGN_STATUS, none, None),
    ] {
        for (kind, irq) in [("own", Irq::of_vector(0x41, eventfd)), ("isa", Irq::isa(0, eventfd))] {
            let verdict = of_kind(irq.kind, verdict);
            let fields = irq_fields(irq, setting.port, verdict, request == ASSIGN_STATUS);
            // The same fields, without an eventfd among them.
            let places = [4, 8, 12, 16, 20, 24, 32];
            let mut fields: Vec<_> =
                fields.into_iter().zip(places).map(|(field, at)| Field { at, ..field }).collect();
            fields.push(zero("pad", 28, 4, verdict));
            // A device's interrupt is one that Xen raises.
            if let Some(kind) = fields.iter_mut().find(|field| field.name == "kind") {
                let rule = std::mem::replace(&mut kind.rule, Box::new(|_| Ok(())));
                kind.rule = Box::new(move |kind| match u32::try_from(kind) {
                    Ok(IRQ_STATUS) => Err(Errno::INVAL),
                    _ => rule(kind),
                });
            }
            fields.push(only("addr", 40, 8, verdict, are_registers));
            let good = Status::new(STATUS, &irq).bytes();
            let name = format!("{name} {kind}");
            calls.push(Call { name, request, good, verdict, undo, eventfd: None, fields });
        }
    }
    calls.push(Call {
        name: "CHANGE_STATUS".to_owned(),
        request: CHANGE_STATUS,
        good: Status::change(STATUS, 1, 2),
        verdict: none,
        undo: None,
        eventfd: None,
        fields: vec![
            zero("flags", 4, 4, none),
            only("addr", 8, 8, none, are_registers),
            field("set", 16, 4, move |_| none),
            field("clear", 20, 4, move |_| none),
        ],
    });
    calls
}

fn of_channels(setting: &Setting) -> Vec<Call> {
    let port = u64::from(setting.port.0);
    let good = Channel::new(setting.port, &setting.eventfd).bytes();
    let none = Err(Errno::NOENT);
    vec![
        Call {
            name: "ASSIGN_CHANNEL".to_owned(),
            request: ASSIGN_CHANNEL,
            good: good.clone(),
            verdict: Ok(()),
            undo: Some(DEASSIGN_CHANNEL),
            eventfd: Some(12),
            fields: vec![
                zero("flags", 4, 4, Ok(())),
                only("port", 8, 4, Ok(()), move |number| number == port),
            ],
        },
        Call {
            name: "DEASSIGN_CHANNEL".to_owned(),
            request: DEASSIGN_CHANNEL,
            good,
            verdict: none,
            undo: None,
            eventfd: Some(12),
            fields: vec![zero("flags", 4, 4, none), only("port", 8, 4, none, |number| number != 0)],
        },
    ]
}
