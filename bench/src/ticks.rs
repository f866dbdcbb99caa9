//! The time stamp counter, and its relation to the guest's.

/// Now, in ticks.
pub(crate) fn now() -> u64 {
    // SAFETY: the instruction reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Makes a profiler that runs in the emulator begin to count.
pub(crate) fn begin_mark() {
    // SAFETY: a no-operation; the profiler looks for the number in it.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464501]", options(nomem, nostack)) };
}

/// Makes it stop.
pub(crate) fn end_mark() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464502]", options(nomem, nostack)) };
}

/// One reading of a domain's time stamp counter and of Xen's clock, whose nanosecond is one tick here.
///
/// Each domain's counter has an offset of its own, and Xen may emulate it; Xen's clock is the same
/// for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) ticks: u64,
    pub(crate) time: u64,
}

impl Clock {
    /// The value of this domain's counter when another's is `ticks`.
    pub(crate) fn translate(self, other: Self, ticks: u64) -> u64 {
        let time = ticks.wrapping_sub(other.ticks).wrapping_add(other.time);
        time.wrapping_sub(self.time).wrapping_add(self.ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_two_domains_translate_both_ways() {
        let dom0 = Clock { ticks: 550, time: 150 };
        let guests = Clock { ticks: 1100, time: 100 };
        assert_eq!(dom0.translate(guests, 1150), 550);
        assert_eq!(guests.translate(dom0, 550), 1150);
        // A counter that began before Xen's clock, or that a guest has set back.
        let early = Clock { ticks: u64::MAX, time: 150 };
        assert_eq!(dom0.translate(early, 1), 552);
    }
}
