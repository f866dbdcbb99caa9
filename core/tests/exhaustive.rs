//! Everything there is, over small domains: nothing panics, and all of it agrees with references
//! that are too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use xen_eventfd_core::held::Held;
use xen_eventfd_core::ioreq::{
    Access, Ioreq, COPY, DATA_IS_PTR, DIR_READ, INVALIDATE, PCI_CONFIG, PIO, STATE, TIMEOFFSET,
};
use xen_eventfd_core::irq::{Irq, IrqOp, Line, Trigger};
use xen_eventfd_core::slot::{Slot, State};
use xen_eventfd_core::unmatched::Unmatched;
use xen_eventfd_core::wire::privcmd::{IoEventFd, IrqFd};
use xen_eventfd_core::{
    table, ConfigAccess, Doorbell, Filter, Kick, Odd, PciFunction, Port, Request, Space, Width,
};

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];
const SPACES: [Space; 2] = [Space::Mmio, Space::Pio];
const LENGTHS: [u32; 12] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 0x100, u32::MAX];
/// Around the ends of both spaces, of 32 bits, and of a doorbell that is added to them.
const ADDRS: [u64; 18] = [
    0,
    1,
    0x50,
    0xFFF8,
    0xFFFC,
    0xFFFD,
    0xFFFE,
    0xFFFF,
    0x1_0000,
    0xFFFF_FFFF,
    u64::MAX - 0x54,
    u64::MAX - 0x53,
    u64::MAX - 0x50,
    u64::MAX - 7,
    u64::MAX - 3,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];
/// Around both ends of a PCI function's configuration space.
const REGISTERS: [u64; 9] = [0, 1, 0x50, 0xFFC, 0xFFD, 0xFFE, 0xFFF, 0x1000, 0xFFFF_FFFF];
/// Of the first bus, of the last one, and of another segment.
const FUNCTIONS: [u64; 4] = [0, 8, 0xFFFF, 0xFFFF_0008];
const VALUES: [u64; 11] =
    [0, 1, 3, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 1 << 32, u64::MAX - 1, u64::MAX];

fn fits(space: Space, addr: u64, len: u64) -> bool {
    let end = u128::from(addr) + u128::from(len);
    match space {
        Space::Mmio => end <= 1 << 64,
        Space::Pio => end <= 1 << 16,
    }
}

/// What a request is, by its definition.
fn reference(slot: &Ioreq) -> Request {
    let space = if slot.kind == PIO { Space::Pio } else { Space::Mmio };
    let config = slot.kind == PCI_CONFIG;
    let odd = |why| Request::Odd { why, space: (!config).then_some(space), addr: slot.addr };
    if slot.kind == INVALIDATE || slot.kind == TIMEOFFSET {
        Request::Broadcast
    } else if slot.kind != PIO && slot.kind != COPY && !config {
        Request::Odd { why: Odd::Kind, space: None, addr: slot.addr }
    } else if slot.flags & DATA_IS_PTR != 0 {
        odd(Odd::Pointer)
    } else if slot.count != 1 {
        odd(Odd::Count)
    } else if ![1, 2, 4, 8].contains(&slot.size) {
        odd(Odd::Size)
    } else if config {
        let [register, sbdf] = [slot.addr % (1 << 32), slot.addr >> 32];
        if register + u64::from(slot.size) > 0x1000 || slot.size == 8 {
            return odd(Odd::Wrap);
        }
        let write = u32::try_from(u128::from(slot.data) % (1 << (8 * slot.size))).unwrap();
        Request::Config(ConfigAccess {
            function: PciFunction::from_sbdf(u32::try_from(sbdf).unwrap()),
            register: u16::try_from(register).unwrap(),
            width: Width::new(slot.size).unwrap(),
            write: (slot.flags & DIR_READ == 0).then_some(write),
        })
    } else if !fits(space, slot.addr, slot.size.into()) {
        odd(Odd::Wrap)
    } else {
        let width = WIDTHS.into_iter().find(|w| u32::from(w.bytes()) == slot.size).unwrap();
        let access = Access { space, addr: slot.addr, width };
        if slot.flags & DIR_READ != 0 {
            return Request::Read(access);
        }
        let value = u64::try_from(u128::from(slot.data) % (1 << (8 * slot.size))).unwrap();
        Request::Kick(Kick { access, value })
    }
}

#[test]
fn every_request_is_what_the_reference_says() {
    let config = FUNCTIONS.map(|function| REGISTERS.map(|register| function << 32 | register));
    let config = config.concat();
    for (kind, flags) in (0..=255).flat_map(|kind| (0..=255).map(move |flags| (kind, flags))) {
        for (size, count) in LENGTHS.iter().flat_map(|size| [0, 1, 2, u32::MAX].map(|c| (*size, c)))
        {
            // Where it went matters for memory, ports and configuration space only.
            let addrs = match kind {
                PIO | COPY if count == 1 => &ADDRS[..],
                PCI_CONFIG if count == 1 => &config,
                _ => &ADDRS[..1],
            };
            for addr in addrs.iter().copied() {
                let slot =
                    Ioreq { addr, data: !addr, count, size, flags, kind, ..Ioreq::default() };
                assert_eq!(Request::decode(&slot), reference(&slot), "{slot:?}");
            }
        }
    }
    for (size, data) in [1, 2, 4, 8].into_iter().flat_map(|size| VALUES.map(|data| (size, data))) {
        let slot = Ioreq { data, count: 1, size, kind: COPY, ..Ioreq::default() };
        assert_eq!(Request::decode(&slot), reference(&slot), "{slot:?}");
    }
}

#[test]
fn every_slot_moves_forward_and_only_if_it_waits() {
    for flags in 0..=255_u8 {
        let before = match flags & STATE {
            0 => State::None,
            1 => State::Ready,
            2 => State::InProcess,
            3 => State::Answered,
            other => State::Unknown(other),
        };
        let fresh = || {
            let slot = Slot::default();
            slot.publish(&Ioreq {
                data: 7,
                count: 1,
                size: 4,
                flags,
                kind: COPY,
                ..Ioreq::default()
            });
            slot.force(before);
            assert_eq!(slot.state(), before);
            slot
        };
        let reads = flags & (DIR_READ | DATA_IS_PTR) == DIR_READ;
        let slot = fresh();
        let served = slot.serve(|_| 9).is_some();
        assert_eq!(served, before == State::Ready);
        assert_eq!(slot.state(), if served { State::Answered } else { before });
        let answer = if served && reads { 9 } else { 7 };
        let collected = served || before == State::Answered;
        assert_eq!(slot.collect(), collected.then_some(answer));

        let slot = fresh();
        let waits = matches!(before, State::Ready | State::InProcess);
        let waiting = slot.waiting();
        assert_eq!((waiting.is_some(), slot.state()), (waits, before));
        assert_eq!(slot.sweep(), waiting);
        assert_eq!(slot.state(), if waits { State::Answered } else { before });
    }
}

fn filters() -> impl Iterator<Item = Filter> {
    let values = WIDTHS.into_iter().flat_map(|width| {
        VALUES.into_iter().flat_map(move |value| {
            VALUES.into_iter().map(move |mask| Filter::Value { width, value, mask })
        })
    });
    let spans = (0..=255).flat_map(|span| [Filter::Any { span }, Filter::Fallback { span }]);
    values.chain(WIDTHS.map(Filter::Width)).chain(spans)
}

#[test]
fn every_registration_is_taken_or_refused_as_the_reference_says() {
    for (space, addr) in SPACES.into_iter().flat_map(|space| ADDRS.map(|addr| (space, addr))) {
        for filter in filters() {
            let (len, sound) = match filter {
                Filter::Value { width, value, mask } => {
                    let bits = 8 * u32::from(width.bytes());
                    let narrow = u128::from(mask) < 1 << bits;
                    (width.bytes(), narrow && mask != 0 && value & mask == value)
                }
                Filter::Width(width) => (width.bytes(), true),
                Filter::Any { span } | Filter::Fallback { span } => (span, (1..=8).contains(&span)),
            };
            let made = Doorbell::new(space, addr, filter);
            let expected = sound && fits(space, addr, len.into());
            assert_eq!(made.is_ok(), expected, "{space:?} {addr:#x} {filter:?}: {made:?}");
            if let Ok(doorbell) = made {
                let bytes = doorbell.bytes();
                assert_eq!(
                    (bytes.space(), bytes.first(), doorbell.filter()),
                    (space, addr, filter)
                );
                assert_eq!(u128::from(bytes.last()) + 1, u128::from(addr) + u128::from(len));
            }
        }
    }
}

/// All tables of up to three registrations out of 24, and all kicks at them.
#[test]
fn every_small_table_sends_every_kick_where_a_list_does() {
    let masks = [(Width::One, 0xFF), (Width::Two, 0xFFFF), (Width::Two, 1)];
    let values = masks
        .iter()
        .flat_map(|&(width, mask)| [0, 1].map(|value| Filter::Value { width, value, mask }));
    let rest = [
        Filter::Width(Width::One),
        Filter::Width(Width::Two),
        Filter::Any { span: 1 },
        Filter::Any { span: 2 },
        Filter::Fallback { span: 1 },
        Filter::Fallback { span: 8 },
    ];
    let all: Vec<Doorbell> = values
        .chain(rest)
        .flat_map(|filter| [0x50, 0x51].map(|at| Doorbell::new(Space::Mmio, at, filter).unwrap()))
        .collect();
    let kicks: Vec<Kick> = (0x4F..0x53)
        .flat_map(|at| {
            WIDTHS.into_iter().flat_map(move |width| {
                (0..3).map(move |value| Kick::new(Space::Mmio, at, width, value))
            })
        })
        .collect();
    let rank = |doorbell: &Doorbell| match doorbell.filter() {
        Filter::Value { .. } => 0,
        Filter::Width(_) => 1,
        Filter::Any { .. } => 2,
        Filter::Fallback { .. } => 3,
    };
    for (one, two, three) in triples(&all) {
        let mut sorted: Vec<Doorbell> = Vec::new();
        for new in [one, two, three] {
            match table::place(&sorted, &new) {
                Ok(index) => sorted.insert(index, new),
                // A registration is refused because of one of its rank, or one under another mask.
                Err(why) => assert!(
                    sorted.iter().any(|old| rank(old) == rank(&new)
                        || (1..=2).contains(&rank(old)) && (1..=2).contains(&rank(&new))),
                    "{why:?}"
                ),
            }
        }
        for kick in &kicks {
            let takers = sorted.iter().filter(|doorbell| doorbell.takes(kick));
            let expected = takers.min_by_key(|doorbell| rank(doorbell));
            assert_eq!(table::find(&sorted, kick).map(|index| &sorted[index]), expected);
            let first = sorted.iter().position(|d| d.bytes().first() == kick.access.addr);
            assert_eq!(table::first_at(&sorted, kick.access.space, kick.access.addr), first);
        }
    }
}

/// Every three, in every order; the same one may come twice.
fn triples(all: &[Doorbell]) -> impl Iterator<Item = (Doorbell, Doorbell, Doorbell)> + '_ {
    all.iter().flat_map(move |one| {
        all.iter().flat_map(move |two| all.iter().map(move |three| (*one, *two, *three)))
    })
}

/// Every history of up to 7 kicks out of 3, in stores of 2.
#[test]
fn every_small_history_of_the_stores_agrees_with_sets() {
    let kick = |value: u32| Kick::new(Space::Mmio, 0x50, Width::Four, value.into());
    for (length, history) in (0..=7_u32).flat_map(|n| (0..3_u32.pow(n)).map(move |h| (n, h))) {
        let (mut missed, mut held) = (Unmatched::<2>::new(), Held::<2>::new());
        let (mut counts, mut marks) = (BTreeMap::new(), BTreeSet::new());
        let (mut lost, mut overflowed) = (0, 0);
        for kick in (0..length).map(|step| kick(history / 3_u32.pow(step) % 3)) {
            missed.add(kick, 3);
            held.insert(kick);
            if counts.len() < 2 || counts.contains_key(&kick) {
                *counts.entry(kick).or_insert(0) += 3;
                marks.insert(kick);
            } else {
                lost += 3;
                overflowed += 1;
            }
        }
        assert!(held.marks().iter().eq(&marks));
        assert_eq!(held.overflowed(), overflowed);
        for value in 0..3 {
            let owed = held.take(|held| *held == kick(value));
            assert_eq!(owed, marks.remove(&kick(value)) || overflowed > 0);
        }
        assert!(missed.kicks().iter().copied().eq(counts.clone()));
        assert_eq!((missed.take_overflowed(), missed.take_overflowed()), (lost, 0));
        assert!(std::iter::from_fn(|| missed.take_first()).eq(counts));
    }
}

#[test]
fn every_interrupt_is_checked_on_both_sides() {
    let check = |irq: Irq, is_one: bool| assert_eq!(irq.check().is_ok(), is_one, "{irq}");
    for byte in 0..=255_u8 {
        let line = |line| Irq::Line(line, Trigger::Level);
        check(line(Line::Isa(byte)), byte < 16);
        for pin in 0..=255 {
            check(line(Line::PciIntx { device: byte, pin }), byte < 32 && pin < 4);
        }
    }
    for line in (0..=2048).chain([u32::MAX]) {
        check(Irq::Line(Line::Spi(line), Trigger::Pulse), (32..1020).contains(&line));
        check(Irq::EventChannel(Port(line)), line != 0);
    }
    for addr in [0, 0xFEDF_FFFF, 0xFEE0_0000, 0xFEEF_FFFF, 0xFEF0_0000, 0x1_FEE0_0000, u64::MAX] {
        let local_apic = (0xFEE0_0000..0xFEF0_0000).contains(&addr);
        check(Irq::Msi { addr, data: u32::MAX }, local_apic);
    }
}

/// `struct privcmd_ioeventfd`, field by field.
fn ioeventfd(addr: u64, len: u32, vcpus: u32, vq: u32, flags: u32) -> [u8; IoEventFd::SIZE] {
    let longs = [1, 2, addr].into_iter().flat_map(u64::to_ne_bytes);
    let words = [len, 3, vcpus, vq, flags, 7].into_iter().flat_map(u32::to_ne_bytes);
    let bytes: Vec<u8> = longs.chain(words).collect();
    bytes.try_into().unwrap()
}

#[test]
fn every_request_of_the_patch_is_taken_or_refused_as_the_reference_says() {
    let queues = [0, 1, 0xFF, 0x100, 0xFFFF, 0x1_0000, u32::MAX];
    for (addr, len) in ADDRS.into_iter().flat_map(|addr| LENGTHS.map(|len| (addr, len))) {
        for (vcpus, vq) in
            [0, 1, 4096, 4097, u32::MAX].into_iter().flat_map(|n| queues.map(|vq| (n, vq)))
        {
            for flags in [0, 1, 2, 3, u32::MAX] {
                let request = IoEventFd::parse(&ioeventfd(addr, len, vcpus, vq, flags));
                assert_eq!(request.is_ok(), flags <= 1);
                let Ok(request) = request else { continue };
                assert_eq!((request.deassign, request.vcpus), (flags == 1, vcpus));
                let fits = u128::from(addr) + 0x50 + u128::from(len) <= 1 << 64
                    && u128::from(addr) + u128::from(len) < 1 << 64;
                let named = u128::from(vq) < 1 << (8 * len.min(2));
                let expected =
                    [1, 2, 4, 8].contains(&len) && fits && named && (1..=4096).contains(&vcpus);
                let made = request.doorbell();
                assert_eq!(made.is_ok(), expected, "{addr:#x} {len} {vcpus} {vq}");
                if let Ok(doorbell) = made {
                    assert_eq!(doorbell.bytes().first(), addr + 0x50);
                }
            }
        }
    }
    for flags in (0..=8).chain([u32::MAX]) {
        let mut bytes = [0; IrqFd::SIZE];
        bytes[16..20].copy_from_slice(&flags.to_ne_bytes());
        assert_eq!(
            IrqFd::parse(&bytes).map(|r| r.deassign).ok(),
            [Some(false), Some(true)].get(flags as usize).copied().flatten()
        );
    }
}

/// What an operation does to an interrupt, if it is one of the four that do.
fn operation(bytes: &[u8]) -> Option<IrqOp> {
    let byte = |at: usize| bytes.get(at).copied();
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let is_zero = |from: usize, to: usize| Some(bytes.get(from..to)?.iter().all(|byte| *byte == 0));
    let up = |at| [false, true].get(usize::from(byte(at)?)).copied();
    if !is_zero(4, 8)? {
        return None;
    }
    match word(0)? {
        8 if is_zero(8, 11)? => {
            let (device, pin, up) = (byte(11)?, byte(12)?, up(13)?);
            let line = Line::PciIntx { device, pin };
            (device < 32 && pin < 4).then_some(IrqOp::Set { line, up })
        }
        9 => {
            let (line, up) = (byte(8)?, up(9)?);
            (line < 16).then_some(IrqOp::Set { line: Line::Isa(line), up })
        }
        14 if is_zero(12, 16)? && is_zero(20, 24)? => {
            let (data, addr) = (word(8)?, word(16)?);
            let local_apic = (0xFEE0_0000..0xFEF0_0000).contains(&addr);
            local_apic.then_some(IrqOp::Msi { addr: addr.into(), data })
        }
        19 if is_zero(13, 16)? => {
            let (line, up) = (word(8)?, up(12)?);
            (32..1020).contains(&line).then_some(IrqOp::Set { line: Line::Spi(line), up })
        }
        _ => None,
    }
}

/// All operations and lengths: zeros but for one byte, and what is valid but for one byte.
#[test]
fn every_operation_but_four_is_refused() {
    const BYTES: [u8; 14] = [0, 1, 2, 3, 4, 15, 16, 31, 32, 0xE0, 0xEF, 0xF0, 0xFE, 255];
    // What follows the number and its pad.
    let valid: [(u8, &[u8]); 4] = [
        (8, &[0, 0, 0, 3, 1, 1]),
        (9, &[5, 1]),
        (14, &[0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0xE0, 0xFE]),
        (19, &[33, 0, 0, 0, 1]),
    ];
    let mut taken = BTreeSet::new();
    for (op, payload) in (0..=40).map(|op| (op, &[][..])).chain(valid) {
        let mut whole = [0; 32];
        whole[0] = op;
        whole[8..8 + payload.len()].copy_from_slice(payload);
        for (len, at) in (0..=32_usize).flat_map(|len| (0..len.max(1)).map(move |at| (len, at))) {
            for byte in BYTES {
                let mut bytes = whole[..len].to_vec();
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
                let read = IrqOp::parse(&bytes).ok();
                assert_eq!(read, operation(&bytes), "{bytes:?}");
                taken.extend(read.map(|_| bytes[0]));
            }
        }
    }
    assert!(taken.iter().eq(&[8, 9, 14, 19]), "{taken:?}");
}
