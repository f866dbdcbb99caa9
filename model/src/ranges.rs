//! The ranges that one ioreq server claims in one space (`xen/common/rangeset.c`).
//!
//! # Invariants
//! * Ranges are in order and disjoint, and no two are adjacent: adjacent ranges are merged.
//! * There are never more than [`LIMIT`].

use rustix::io::Errno;

/// Ranges of one server in one space (`MAX_NR_IO_RANGES`).
pub(crate) const LIMIT: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Whether all of `first..=last` is claimed.
    pub(crate) fn contain(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|(start, _)| *start <= first);
        at.checked_sub(1).is_some_and(|below| self.0[below].1 >= last)
    }

    fn overlap(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|(start, _)| *start <= last);
        at.checked_sub(1).is_some_and(|below| first <= self.0[below].1)
    }

    /// Claims `first..=last`. EEXIST if a part of it is claimed, ENOMEM beyond the limit.
    ///
    /// A range that continues the one below it takes no new entry. One that only leads up
    /// to the one above needs a free entry, though it is merged at once.
    pub(crate) fn add(&mut self, first: u64, last: u64) -> Result<(), Errno> {
        if self.overlap(first, last) {
            return Err(Errno::EXIST);
        }
        let mut at = self.0.partition_point(|(start, _)| *start <= first);
        match at.checked_sub(1) {
            Some(below) if self.0[below].1.checked_add(1) == Some(first) => {
                self.0[below].1 = last;
                at = below;
            }
            _ if self.0.len() >= LIMIT => return Err(Errno::NOMEM),
            _ => self.0.insert(at, (first, last)),
        }
        if self.0.get(at + 1).is_some_and(|above| last.checked_add(1) == Some(above.0)) {
            self.0[at].1 = self.0.remove(at + 1).1;
        }
        Ok(())
    }

    /// Releases `first..=last`. ENOENT unless all of it is claimed, ENOMEM if a range would
    /// split and no entry is free for the second half.
    pub(crate) fn remove(&mut self, first: u64, last: u64) -> Result<(), Errno> {
        if !self.contain(first, last) {
            return Err(Errno::NOENT);
        }
        let at = self.0.partition_point(|(start, _)| *start <= first) - 1;
        match self.0[at] {
            (start, end) if start < first && last < end => {
                if self.0.len() >= LIMIT {
                    return Err(Errno::NOMEM);
                }
                self.0[at].1 = first - 1;
                self.0.insert(at + 1, (last + 1, end));
            }
            (start, end) if start == first && end == last => drop(self.0.remove(at)),
            (start, _) if start == first => self.0[at].0 = last + 1,
            _ => self.0[at].1 = first - 1,
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranges: &[(u64, u64)]) -> Ranges {
        let mut set = Ranges::default();
        ranges.iter().for_each(|(first, last)| set.add(*first, *last).unwrap());
        set
    }

    fn full() -> Ranges {
        of(&(0..LIMIT as u64).map(|n| (n * 16, n * 16 + 3)).collect::<Vec<_>>())
    }

    #[test]
    fn neighbours_merge_on_both_sides() {
        assert_eq!(of(&[(0, 3), (8, 11), (4, 7)]).0, [(0, 11)]);
        assert_eq!(of(&[(0, 3), (5, 7)]).0, [(0, 3), (5, 7)]);
        assert_eq!(of(&[(u64::MAX, u64::MAX), (0, 0)]).0.len(), 2);
    }

    #[test]
    fn an_overlapping_range_is_refused_with_eexist() {
        for (first, last) in [(0x10, 0x13), (0xF, 0x10), (0x13, 0x14), (0, 0x20), (0x11, 0x12)] {
            assert_eq!(of(&[(0x10, 0x13)]).add(first, last), Err(Errno::EXIST));
        }
    }

    #[test]
    fn only_a_fully_claimed_range_can_be_removed() {
        let mut set = of(&[(0x10, 0x1F), (0x30, 0x3F)]);
        for (first, last) in [(0xF, 0x10), (0x1F, 0x20), (0x10, 0x3F), (0x20, 0x2F)] {
            assert_eq!(set.remove(first, last), Err(Errno::NOENT));
        }
        set.remove(0x14, 0x17).unwrap();
        set.remove(0x30, 0x33).unwrap();
        set.remove(0x3C, 0x3F).unwrap();
        assert_eq!(set.0, [(0x10, 0x13), (0x18, 0x1F), (0x34, 0x3B)]);
    }

    #[test]
    fn a_257th_range_is_refused_unless_it_continues_the_one_below() {
        assert_eq!(full().add(0xFFFF_0000, 0xFFFF_0003), Err(Errno::NOMEM));
        assert_eq!(full().add(4, 7), Ok(()));
        assert_eq!(full().add(12, 15), Err(Errno::NOMEM));
    }

    #[test]
    fn a_split_needs_a_free_entry_for_the_second_half() {
        let mut set = full();
        assert_eq!(set.remove(1, 2), Err(Errno::NOMEM));
        set.remove(16, 19).unwrap();
        assert_eq!(set.remove(1, 2), Ok(()));
    }

    #[test]
    fn the_ends_of_the_space_are_ranges_like_any_other() {
        let mut set = of(&[(u64::MAX - 3, u64::MAX)]);
        assert!(set.contain(u64::MAX, u64::MAX));
        set.remove(u64::MAX - 3, u64::MAX).unwrap();
        assert_eq!(set.0, []);
    }
}
