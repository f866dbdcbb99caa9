//! The time stamp counter, and where the guest's stands against ours.

/// Now, in ticks.
pub(crate) fn now() -> u64 {
    // SAFETY: the instruction reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Tells a profiler that follows the emulator that it may begin to count.
pub(crate) fn begin_mark() {
    // SAFETY: a no-operation; the number in it is what the profiler looks for.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464501]", options(nomem, nostack)) };
}

/// Tells it that it is over.
pub(crate) fn end_mark() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464502]", options(nomem, nostack)) };
}

/// One moment, by a domain's time stamp counter and by Xen's clock, whose nanosecond is one tick here.
///
/// Each domain's counter begins at a place of its own, and Xen may emulate it; its clock is the same
/// for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) ticks: u64,
    pub(crate) time: u64,
}

impl Clock {
    /// What this domain's counter shows when another's shows `ticks`.
    pub(crate) fn translate(self, other: Self, ticks: u64) -> u64 {
        let time = ticks.wrapping_sub(other.ticks).wrapping_add(other.time);
        time.wrapping_sub(self.time).wrapping_add(self.ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_by_all_counters() {
        let ours = Clock { ticks: 550, time: 150 };
        let guests = Clock { ticks: 1100, time: 100 };
        assert_eq!(ours.translate(guests, 1150), 550);
        assert_eq!(guests.translate(ours, 550), 1150);
        // A counter that began before Xen's clock did, or that a guest has set back.
        let early = Clock { ticks: u64::MAX, time: 150 };
        assert_eq!(ours.translate(early, 1), 552);
    }
}
