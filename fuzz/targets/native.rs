//! The structs of the native ABI, as any caller may fill them: what is taken is written as it was
//! read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_core::Port;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::wire::native::{
    Argument, ChannelArg, CreateArg, DoorbellArg, EntryArg, IrqArg, IrqChangeArg, IrqStateArg,
    MemoryArg, MissedArg, OwnerArg, QueryArg, StatsArg, StatusArg, StatusChangeArg,
};

/// The struct that these bytes begin with. All that it says comes back.
fn parsed<A: Argument>(bytes: &[u8]) -> Option<A> {
    let mut exact = A::ZERO;
    exact.as_mut().copy_from_slice(bytes.get(..A::SIZE)?);
    let parsed = A::parse(&exact).ok()?;
    assert_eq!(parsed.emit().as_ref()[4..], exact.as_ref()[4..]);
    assert!(A::ANSWER <= A::SIZE);
    Some(parsed)
}

fuzz_target!(|bytes: &[u8]| {
    parsed::<QueryArg>(bytes);
    if let Some(create) = parsed::<CreateArg>(bytes)
        && let Ok((dom, interface)) = create.taken()
    {
        let again = CreateArg::of(dom, interface, create.gone);
        assert_eq!(if create.is_own() { again.own() } else { again }, create);
    }
    if let Some(owner) = parsed::<OwnerArg>(bytes) {
        assert!(owner.guest().is_ok_and(|dom| dom.is_guest()) || owner.guest().is_err());
    }
    if let Some(memory) = parsed::<MemoryArg>(bytes)
        && let Ok((dom, part)) = memory.part()
    {
        assert!(part.pages > 0 && part.last() <= u64::MAX / 4096);
        assert_eq!(MemoryArg::of(dom, part.start(), part.bytes()), memory);
    }
    if let Some(asked) = parsed::<DoorbellArg>(bytes)
        && let Ok(doorbell) = asked.doorbell()
    {
        assert_eq!(DoorbellArg::of(&doorbell, asked.eventfd), asked);
    }
    if let Some(stats) = parsed::<StatsArg>(bytes) {
        let counters = stats.counters();
        assert_eq!(counters.named()[0].1, stats.delivered);
    }
    if let Some(entry) = parsed::<EntryArg>(bytes) {
        if let Ok(listed) = entry.listed() {
            assert_eq!(EntryArg::of(listed).listed(), Ok(listed));
        }
        if let Ok(status) = entry.doorbell() {
            assert_eq!(entry.with_doorbell(&status), entry);
        }
        if let Ok(kick) = entry.kick() {
            assert_eq!(entry.with_kick(&kick).kick(), Ok(kick));
        }
    }
    if let Some(asked) = parsed::<MissedArg>(bytes) {
        if let Ok(fallback) = asked.fallback() {
            assert_eq!(MissedArg::of(&fallback, asked.eventfd).fallback(), Ok(fallback));
        }
        if let Ok(unmatched) = asked.unmatched() {
            assert_eq!(asked.with(&unmatched).unmatched(), Ok(unmatched));
        }
    }
    if let Some(asked) = parsed::<IrqArg>(bytes)
        && let Ok(irq) = asked.irq()
    {
        let IrqArg { raised, failed, .. } = asked;
        assert_eq!(IrqArg { raised, failed, ..IrqArg::of(&irq, asked.eventfd) }, asked);
    }
    if let Some(asked) = parsed::<IrqChangeArg>(bytes)
        && let (Ok(irq), Ok(new)) = (asked.irq(), asked.new_irq())
    {
        assert_eq!(IrqChangeArg::of(&irq, asked.eventfd).to(&new), asked);
    }
    if let Some(asked) = parsed::<IrqStateArg>(bytes)
        && let Ok(irq) = asked.irq()
    {
        assert_eq!(irq.check(), Ok(()));
    }
    if let Some(asked) = parsed::<StatusArg>(bytes)
        && let Ok((registers, irq)) = asked.device()
    {
        let StatusArg { bits, reserved, .. } = asked;
        assert_eq!(StatusArg { bits, reserved, ..StatusArg::of(registers, &irq) }, asked);
    }
    if let Some(asked) = parsed::<StatusChangeArg>(bytes)
        && let Ok((registers, change)) = asked.change()
    {
        let status = asked.status(registers, Irq::EventChannel(Port(1)));
        let StatusChangeArg { reserved, .. } = asked;
        let again = StatusChangeArg::of(registers, change).with(&status);
        assert_eq!(StatusChangeArg { reserved, ..again }, asked);
    }
    if let Some(asked) = parsed::<ChannelArg>(bytes)
        && let Ok(port) = asked.port()
    {
        assert_eq!(ChannelArg::of(port, asked.eventfd), asked);
    }
});
