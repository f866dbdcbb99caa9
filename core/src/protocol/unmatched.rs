//! What a fallback received and no process has taken yet.
//!
//! The values are the guest's to choose, so the store has a fixed size: one place for each distinct
//! kick, with how often it came. What finds no place is counted.

use super::ioreq::{Kick, Space, Width};

/// What is taken from a fallback at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnmatchedKick {
    /// A distinct kick and how often it came; `None`: nothing is left.
    pub kick: Option<(Kick, u64)>,
    /// Kicks that found no place, reported once nothing else is left.
    pub overflowed: u64,
}

/// Up to `N` distinct kicks, in order, and how often each came.
#[derive(Debug, Clone)]
pub struct Unmatched<const N: usize> {
    /// The first `len` are kicks, in order and distinct.
    kicks: [(Kick, u64); N],
    len: usize,
    overflowed: u64,
}

impl<const N: usize> Unmatched<N> {
    /// No kick.
    pub const fn new() -> Self {
        let none = Kick::new(Space::Mmio, 0, Width::One, 0);
        Self { kicks: [(none, 0); N], len: 0, overflowed: 0 }
    }

    /// The distinct kicks and how often each came, in order.
    pub fn kicks(&self) -> &[(Kick, u64)] {
        self.kicks.get(..self.len).unwrap_or(&[])
    }

    /// Counts a kick that came so many times.
    pub fn add(&mut self, kick: Kick, times: u64) {
        match self.kicks().binary_search_by(|(found, _)| found.cmp(&kick)) {
            Ok(index) => {
                if let Some((_, count)) = self.kicks.get_mut(index) {
                    *count = count.saturating_add(times);
                }
            }
            Err(_) if self.len >= N => self.add_overflowed(times),
            Err(place) => {
                if let Some(room) = self.kicks.get_mut(place..=self.len) {
                    room.rotate_right(1);
                    if let Some(first) = room.first_mut() {
                        *first = (kick, times);
                    }
                    self.len += 1;
                }
            }
        }
    }

    /// Takes the first kick out, and how often it came.
    pub fn take_first(&mut self) -> Option<(Kick, u64)> {
        let first = self.kicks().first().copied()?;
        if let Some(taken) = self.kicks.get_mut(..self.len) {
            taken.rotate_left(1);
        }
        self.len = self.len.saturating_sub(1);
        Some(first)
    }

    /// Takes one distinct kick out, and once none is left the number of those that found no place.
    pub fn take(&mut self) -> UnmatchedKick {
        let kick = self.take_first();
        let overflowed = if kick.is_none() { self.take_overflowed() } else { 0 };
        UnmatchedKick { kick, overflowed }
    }

    /// Puts back what was taken and could not be reported.
    pub fn put_back(&mut self, taken: &UnmatchedKick) {
        if let Some((kick, times)) = taken.kick {
            self.add(kick, times);
        }
        self.add_overflowed(taken.overflowed);
    }

    /// Counts kicks of which only the number is known.
    pub fn add_overflowed(&mut self, times: u64) {
        self.overflowed = self.overflowed.saturating_add(times);
    }

    /// Takes the number of kicks that found no place.
    pub fn take_overflowed(&mut self) -> u64 {
        core::mem::take(&mut self.overflowed)
    }
}

impl<const N: usize> Default for Unmatched<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn kick(value: u64) -> Kick {
        Kick::new(Space::Mmio, 0x50, Width::Four, value)
    }

    #[test]
    fn each_distinct_kick_comes_out_once_with_its_count() {
        let mut unmatched = Unmatched::<4>::new();
        [3, 1, 3, 2, 3].into_iter().for_each(|value| unmatched.add(kick(value), 1));
        let taken: Vec<_> = core::iter::from_fn(|| unmatched.take_first()).collect();
        assert_eq!(taken, [(kick(1), 1), (kick(2), 1), (kick(3), 3)]);
        unmatched.add(kick(9), 7);
        assert_eq!(unmatched.kicks(), [(kick(9), 7)], "what was taken is put back as it was");
    }

    #[test]
    fn what_finds_no_place_is_counted_and_told_once() {
        let mut unmatched = Unmatched::<2>::new();
        (0..5).for_each(|value| unmatched.add(kick(value), 1));
        unmatched.add(kick(0), 1);
        assert_eq!(unmatched.kicks(), [(kick(0), 2), (kick(1), 1)]);
        assert_eq!((unmatched.take_overflowed(), unmatched.take_overflowed()), (3, 0));
    }
}
