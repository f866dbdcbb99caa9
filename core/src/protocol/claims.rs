//! Which bytes of a guest are ours: the union of the live registrations, counted.
//!
//! A claim is a run of bytes that Xen routes to our ioreq server. Claims are kept in order and
//! disjoint in a slice that the engine owns; [`acquire`] and [`release`] say what the next slice
//! is and which pieces of it Xen has yet to learn of. Xen refuses to map what is mapped
//! (`EEXIST`), so only the pieces that no claim held are mapped, and it may fail to unmap (a range
//! that splits needs one more of its 256), so a claim can outlive its last holder: it is kept
//! with no holders, and its kicks are answered.

use super::doorbell::Bytes;
use super::ioreq::Access;

/// A run of bytes and how many registrations hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The bytes, all mapped at Xen.
    pub bytes: Bytes,
    /// How many hold it; 0 if Xen would not take it back.
    pub holders: u32,
}

/// One piece of the next slice of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The claim as it will stand.
    pub claim: Claim,
    /// What the engine owes Xen before the slice may be used.
    pub debt: Debt,
}

/// What Xen has yet to learn of a [`Piece`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debt {
    /// Nothing.
    None,
    /// Map it: no claim held these bytes.
    Map,
    /// Unmap it, then drop the piece; if Xen refuses, keep it as it is, without holders.
    Unmap,
}

/// How many claims so many registrations may need: each has two ends, and a claim lies between two
/// that follow one another. More than these are pieces that Xen would not take back, of which a
/// caller could have any number otherwise.
#[must_use]
pub const fn most(registrations: usize) -> usize {
    registrations.saturating_mul(2)
}

/// The pieces of the next slice after one more registration holds `bytes`.
///
/// `claims` must be in order and disjoint; so are the pieces.
pub fn acquire(claims: &[Claim], bytes: Bytes) -> impl Iterator<Item = Piece> + '_ {
    cut(claims, bytes).map(move |(run, holders, inside)| match (inside, holders) {
        (true, Some(n)) => keep(run, n.saturating_add(1), Debt::None),
        (true, None) => keep(run, 1, Debt::Map),
        (false, n) => keep(run, n.unwrap_or(0), Debt::None),
    })
}

/// The pieces of the next slice after one registration, which holds them, lets go of `bytes`: no more
/// than there are claims, as it has cut them at both ends already.
pub fn release(claims: &[Claim], bytes: Bytes) -> impl Iterator<Item = Piece> + '_ {
    cut(claims, bytes).filter_map(move |(run, holders, inside)| match (inside, holders) {
        (true, Some(1)) => Some(keep(run, 0, Debt::Unmap)),
        (true, Some(n)) => Some(keep(run, n.saturating_sub(1), Debt::None)),
        (true, None) => None,
        (false, n) => Some(keep(run, n.unwrap_or(0), Debt::None)),
    })
}

/// Whether every byte of an access is claimed and held. What is not is late: published before the
/// bytes were given back.
pub fn holds(claims: &[Claim], access: &Access) -> bool {
    let last = access.addr.saturating_add(u64::from(access.width.bytes()) - 1);
    let start = claims.partition_point(|claim| {
        (claim.bytes.space(), claim.bytes.last()) < (access.space, access.addr)
    });
    let mut next = access.addr;
    for claim in claims.iter().skip(start) {
        if claim.bytes.space() != access.space || claim.bytes.first() > next || claim.holders == 0 {
            return false;
        }
        if claim.bytes.last() >= last {
            return true;
        }
        next = claim.bytes.last().saturating_add(1);
    }
    false
}

const fn keep(bytes: Bytes, holders: u32, debt: Debt) -> Piece {
    Piece { claim: Claim { bytes, holders }, debt }
}

/// Cuts all claims at the two ends of `bytes` and fills the gaps inside it.
/// Yields, in order: a run, its holders (`None` for a gap), whether it lies inside.
fn cut(claims: &[Claim], bytes: Bytes) -> Cut<'_> {
    Cut { claims, bytes, at: Some(bytes.first()), rest: None }
}

struct Cut<'a> {
    claims: &'a [Claim],
    bytes: Bytes,
    /// The first byte of `bytes` not yet yielded.
    at: Option<u64>,
    /// What is left of the claim at hand.
    rest: Option<Claim>,
}

impl Cut<'_> {
    fn run(&self, first: u64, last: u64) -> Option<Bytes> {
        Bytes::new(self.bytes.space(), first, last).ok()
    }

    /// The byte after `last`, if `bytes` has it.
    fn after(&self, last: u64) -> Option<u64> {
        last.checked_add(1).filter(|next| *next <= self.bytes.last())
    }
}

impl Iterator for Cut<'_> {
    type Item = (Bytes, Option<u32>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let claim = match self.rest.take() {
            Some(rest) => Some(rest),
            None => match self.claims.split_first() {
                Some((first, others)) => {
                    self.claims = others;
                    Some(*first)
                }
                None => None,
            },
        };
        let Some(claim) = claim else {
            // No claims left: what remains of `bytes` is one gap.
            let at = self.at.take()?;
            return Some((self.run(at, self.bytes.last())?, None, true));
        };
        let space = self.bytes.space();
        let here = (claim.bytes.space(), claim.bytes.first());
        let at = match self.at {
            Some(at) if (claim.bytes.space(), claim.bytes.last()) >= (space, at) => at,
            _ => return Some((claim.bytes, Some(claim.holders), false)),
        };
        if here > (space, at) {
            // A gap, up to the claim or to the end of `bytes`.
            self.rest = Some(claim);
            let last = if here <= (space, self.bytes.last()) {
                claim.bytes.first().saturating_sub(1)
            } else {
                self.bytes.last()
            };
            self.at = self.after(last);
            return Some((self.run(at, last)?, None, true));
        }
        if claim.bytes.first() < at {
            // The part before `bytes`.
            let tail = self.run(at, claim.bytes.last())?;
            self.rest = Some(Claim { bytes: tail, ..claim });
            return Some((
                self.run(claim.bytes.first(), at.saturating_sub(1))?,
                Some(claim.holders),
                false,
            ));
        }
        // It begins at `at`: inside, up to the nearer end.
        let last = claim.bytes.last().min(self.bytes.last());
        if claim.bytes.last() > last {
            let tail = self.run(last.saturating_add(1), claim.bytes.last())?;
            self.rest = Some(Claim { bytes: tail, ..claim });
        }
        self.at = self.after(last);
        Some((self.run(at, last)?, Some(claim.holders), true))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioreq::{Space, Width};
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn mmio(first: u64, last: u64) -> Bytes {
        Bytes::new(Space::Mmio, first, last).unwrap()
    }

    fn access(addr: u64, width: Width) -> Access {
        Access { space: Space::Mmio, addr, width }
    }

    /// Applies a change as an engine does on a Xen that never fails.
    fn after(pieces: impl Iterator<Item = Piece>) -> Vec<Claim> {
        pieces.filter(|piece| piece.debt != Debt::Unmap).map(|piece| piece.claim).collect()
    }

    fn owed(pieces: impl Iterator<Item = Piece>, debt: Debt) -> Vec<Bytes> {
        pieces.filter(|piece| piece.debt == debt).map(|piece| piece.claim.bytes).collect()
    }

    #[test]
    fn only_what_nobody_held_is_mapped() {
        let two = after(acquire(&[], mmio(0x50, 0x51)));
        assert_eq!(owed(acquire(&two, mmio(0x50, 0x53)), Debt::Map), [mmio(0x52, 0x53)]);
        let four = after(acquire(&two, mmio(0x50, 0x53)));
        assert_eq!(owed(acquire(&four, mmio(0x50, 0x53)), Debt::Map), []);
        assert_eq!(owed(release(&four, mmio(0x50, 0x53)), Debt::Unmap), [mmio(0x52, 0x53)]);
    }

    #[test]
    fn an_access_across_neighbouring_claims_is_held() {
        let claims = after(acquire(&after(acquire(&[], mmio(0x50, 0x51))), mmio(0x52, 0x53)));
        assert!(holds(&claims, &access(0x50, Width::Four)));
        assert!(!holds(&claims, &access(0x50, Width::Eight)));
        assert!(!holds(&claims, &access(0x4F, Width::Two)));
        assert!(!holds(&claims, &Access { space: Space::Pio, addr: 0x50, width: Width::One }));
    }

    #[test]
    fn a_claim_that_xen_kept_is_not_held_and_not_mapped_again() {
        let stuck = [Claim { bytes: mmio(0x50, 0x53), holders: 0 }];
        assert!(!holds(&stuck, &access(0x50, Width::Four)));
        assert_eq!(owed(acquire(&stuck, mmio(0x50, 0x53)), Debt::Map), []);
        assert!(holds(&after(acquire(&stuck, mmio(0x50, 0x53))), &access(0x50, Width::Four)));
    }

    #[test]
    fn the_ends_of_the_space_are_claimed_like_any_other() {
        let claims = after(acquire(&[], mmio(u64::MAX - 3, u64::MAX)));
        assert!(holds(&claims, &access(u64::MAX - 3, Width::Four)));
        assert_eq!(after(release(&claims, mmio(u64::MAX - 3, u64::MAX))), []);
    }

    /// All small histories agree with one counter a byte.
    #[test]
    fn claims_agree_with_a_counter_for_each_byte() {
        let runs = [(0, 3), (0, 1), (2, 3), (4, 7), (1, 6), (6, 6)];
        for history in 0..runs.len().pow(4) {
            let mut claims = Vec::new();
            let mut bytes = BTreeMap::new();
            let mut mapped = std::collections::BTreeSet::new();
            let mut live = Vec::new();
            for step in 0..4 {
                let (first, last) = runs[history / runs.len().pow(step) % runs.len()];
                for piece in acquire(&claims, mmio(first, last)).filter(|p| p.debt == Debt::Map) {
                    for byte in piece.claim.bytes.first()..=piece.claim.bytes.last() {
                        assert!(mapped.insert(byte), "mapped twice: {byte}");
                    }
                }
                claims = after(acquire(&claims, mmio(first, last)));
                live.push((first, last));
                (first..=last).for_each(|byte| *bytes.entry(byte).or_insert(0) += 1);
                agree(&claims, &bytes);
            }
            for (first, last) in live {
                // An engine that lets go of bytes needs no memory for it.
                assert!(release(&claims, mmio(first, last)).count() <= claims.len());
                for piece in release(&claims, mmio(first, last)).filter(|p| p.debt == Debt::Unmap) {
                    for byte in piece.claim.bytes.first()..=piece.claim.bytes.last() {
                        assert!(mapped.remove(&byte), "unmapped twice: {byte}");
                    }
                }
                claims = after(release(&claims, mmio(first, last)));
                (first..=last).for_each(|byte| *bytes.get_mut(&byte).unwrap() -= 1);
                agree(&claims, &bytes);
            }
            assert!(claims.is_empty() && mapped.is_empty());
        }
    }

    fn agree(claims: &[Claim], bytes: &BTreeMap<u64, u32>) {
        assert!(claims.windows(2).all(|pair| pair[0].bytes.last() < pair[1].bytes.first()));
        for byte in 0..9 {
            let held = bytes.get(&byte).copied().unwrap_or(0);
            let claim = claims.iter().find(|c| (c.bytes.first()..=c.bytes.last()).contains(&byte));
            assert_eq!(claim.map_or(0, |claim| claim.holders), held, "byte {byte} of {claims:?}");
            assert_eq!(holds(claims, &access(byte, Width::One)), held > 0);
        }
    }
}
