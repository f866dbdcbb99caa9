//! The counters of two domains.

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
