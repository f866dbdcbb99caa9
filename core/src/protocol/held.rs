//! Kicks that came for bytes we hold before an eventfd was registered for them.
//!
//! Xen decides by address alone, so a claimed kick that matches no registration cannot go to the
//! VMM. It is marked here and delivered when its eventfd comes. The store has a fixed size,
//! because the values are the guest's to choose: one mark for each distinct kick. When it is
//! full, a kick is counted instead, and from then on every newcomer is signalled once: a kick too
//! many costs a look at an empty queue, a kick too few a guest that waits for ever.

use super::claims::{self, Claim};
use super::doorbell::Bytes;
use super::ioreq::{Kick, Space, Width};
use super::table::{self, Entry};

/// A set of up to `N` held kicks.
#[derive(Debug, Clone)]
pub struct Held<const N: usize> {
    /// The first `len` are marks, in order and distinct.
    marks: [Kick; N],
    len: usize,
    overflowed: u64,
}

impl<const N: usize> Held<N> {
    /// No kick held.
    pub const fn new() -> Self {
        Self { marks: [Kick::new(Space::Mmio, 0, Width::One, 0); N], len: 0, overflowed: 0 }
    }

    /// The marks, in order.
    pub fn marks(&self) -> &[Kick] {
        self.marks.get(..self.len).unwrap_or(&[])
    }

    /// How many kicks found no place since the store was last empty.
    pub const fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Holds a kick. A second one that is the same adds nothing.
    pub fn insert(&mut self, kick: Kick) {
        let Err(place) = self.marks().binary_search(&kick) else {
            return;
        };
        if self.len >= N {
            self.overflowed = self.overflowed.saturating_add(1);
            return;
        }
        if let Some(room) = self.marks.get_mut(place..=self.len) {
            room.rotate_right(1);
            if let Some(first) = room.first_mut() {
                *first = kick;
            }
            self.len += 1;
        }
    }

    /// Gives up every mark that `wanted` takes. Returns whether its eventfd is owed a signal:
    /// there was such a mark, or one may have found no place.
    pub fn take(&mut self, mut wanted: impl FnMut(&Kick) -> bool) -> bool {
        let before = self.len;
        self.retain(|kick| !wanted(kick));
        self.len < before || self.overflowed > 0
    }

    /// Gives up what the registration at an index of the table gets, each kick to `each`. Returns
    /// whether its eventfd is owed a signal, as [`Self::take`].
    pub fn take_for<E: Entry>(
        &mut self,
        table: &[E],
        index: usize,
        mut each: impl FnMut(&Kick),
    ) -> bool {
        self.take(|kick| {
            let ours = table::find(table, kick) == Some(index);
            if ours {
                each(kick);
            }
            ours
        })
    }

    /// Forgets what came for `bytes`, which were let go of, unless all of it is held by
    /// others still. What came for other bytes stays, claimed or not: an engine may have found it
    /// in the slots of one that died.
    pub fn forget(&mut self, bytes: Bytes, claims: &[Claim]) {
        self.retain(|kick| !bytes.meet(&kick.access) || claims::holds(claims, &kick.access));
        if !claims.iter().any(|claim| claim.holders > 0) {
            self.overflowed = 0;
        }
    }

    /// Forgets what came for `bytes`, which are a device's registers from now on.
    pub fn discard(&mut self, bytes: Bytes) {
        self.retain(|kick| !bytes.meet(&kick.access));
    }

    fn retain(&mut self, mut keep: impl FnMut(&Kick) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            let Some(kick) = self.marks.get(index).copied() else { break };
            if keep(&kick) {
                if let Some(place) = self.marks.get_mut(kept) {
                    *place = kick;
                    kept += 1;
                }
            }
        }
        self.len = kept;
    }
}

impl<const N: usize> Default for Held<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doorbell() -> Bytes {
        Bytes::new(Space::Mmio, 0x50, 0x53).unwrap()
    }

    fn kick(value: u64) -> Kick {
        Kick::new(Space::Mmio, 0x50, Width::Four, value)
    }

    #[test]
    fn one_mark_for_each_distinct_kick_in_order() {
        let mut held = Held::<4>::new();
        [3, 1, 3, 2, 1].into_iter().for_each(|value| held.insert(kick(value)));
        assert_eq!(held.marks(), [kick(1), kick(2), kick(3)]);
        assert!(held.take(|held| *held == kick(2)));
        assert!(!held.take(|held| *held == kick(2)));
        assert_eq!(held.marks(), [kick(1), kick(3)]);
    }

    #[test]
    fn after_an_overflow_every_newcomer_is_signalled() {
        let mut held = Held::<2>::new();
        (0..5).for_each(|value| held.insert(kick(value)));
        assert_eq!((held.marks().len(), held.overflowed()), (2, 3));
        assert!(held.take(|held| *held == kick(4)));
        held.forget(doorbell(), &[]);
        assert_eq!((held.marks().len(), held.overflowed()), (0, 0));
    }

    #[test]
    fn marks_live_as_long_as_their_bytes_are_claimed() {
        let mut held = Held::<4>::new();
        held.insert(kick(1));
        let bytes = doorbell();
        held.forget(bytes, &[Claim { bytes, holders: 1 }]);
        assert_eq!(held.marks(), [kick(1)]);
        held.forget(bytes, &[Claim { bytes, holders: 0 }]);
        assert_eq!(held.marks(), []);
    }

    #[test]
    fn what_came_for_registers_is_discarded_and_an_overflow_stays() {
        let mut held = Held::<1>::new();
        held.insert(kick(1));
        held.insert(kick(2));
        held.discard(Bytes::new(Space::Mmio, 0x54, 0x5B).unwrap());
        assert_eq!(held.marks(), [kick(1)]);
        held.discard(doorbell());
        assert_eq!((held.marks().len(), held.overflowed()), (0, 1));
    }

    #[test]
    fn what_came_for_other_bytes_stays() {
        let mut held = Held::<4>::new();
        held.insert(kick(1));
        for (first, last) in [(0x40, 0x4F), (0x54, 0x5F)] {
            held.forget(Bytes::new(Space::Mmio, first, last).unwrap(), &[]);
        }
        held.forget(Bytes::new(Space::Pio, 0x50, 0x53).unwrap(), &[]);
        assert_eq!(held.marks(), [kick(1)]);
        held.forget(Bytes::new(Space::Mmio, 0x53, 0x60).unwrap(), &[]);
        assert_eq!(held.marks(), []);
    }
}
