// SPDX-License-Identifier: GPL-2.0

//! The bytes of one guest that Xen routes to us, for the one that changes them.
//!
//! There can be thousands of claims, and a handler whose kick finds no registration looks at them under a
//! spinlock with interrupts off. So a change is made here, under the guest's mutex, and only swapped in under the spinlock.
//!
//! # Invariants
//! * `current` is what the handlers have; it changes under the guest's mutex alone.
//! * All three buffers (these two, and the one that the handlers have) have the same capacity, which
//!   is enough for `current`. To let go of bytes cuts no claim (`claims::release`), so it allocates
//!   nothing and cannot fail for want of memory.

use crate::device::MAX_DEVICES;
use crate::doorbells::MAX_DOORBELLS;
use crate::protocol::claims::{self, Claim, Debt, Piece};
use crate::protocol::doorbell::Bytes;
use core::mem;
use kernel::prelude::*;

/// Claims in the order of addresses.
pub(crate) type Claims = KVVec<Claim>;

/// Pieces by which the claims can grow at once. A doorbell has at most 8 bytes, and a device's registers have 8: it cuts two claims
/// at its ends, and fills no more gaps than it has bytes.
const GROWTH: usize = 2 + MAX_PIECES;
/// Pieces into which the bytes of one doorbell can be cut: one for each byte.
const MAX_PIECES: usize = 8;

/// The pieces of one doorbell's bytes that Xen is to learn of.
#[derive(Clone, Copy)]
pub(crate) struct Pieces {
    pieces: [Option<Bytes>; MAX_PIECES],
    len: usize,
}

impl Pieces {
    fn new() -> Self {
        Self { pieces: [None; MAX_PIECES], len: 0 }
    }

    fn push(&mut self, piece: Bytes) -> Result {
        *self.pieces.get_mut(self.len).ok_or(ENOMEM)? = Some(piece);
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.pieces.iter().copied().flatten()
    }

    fn contains(&self, piece: Bytes) -> bool {
        self.iter().any(|ours| ours == piece)
    }
}

/// What is claimed, and where the next state is built.
pub(crate) struct Claimed {
    current: Claims,
    next: Claims,
}

impl Claimed {
    /// Nothing is claimed.
    pub(crate) fn new() -> Self {
        Self { current: Claims::new(), next: Claims::new() }
    }

    /// Makes room for one more doorbell. `publish` swaps a buffer for the handlers' own.
    ///
    /// # Errors
    /// `ENOSPC` if there are more claims than any number of doorbells and devices needs: Xen would not take
    /// those back. `ENOMEM`.
    pub(crate) fn reserve(&mut self, publish: impl FnOnce(&mut Claims)) -> Result {
        if self.current.len() >= claims::most(MAX_DOORBELLS + MAX_DEVICES) {
            return Err(ENOSPC);
        }
        let needed = self.current.len().saturating_add(GROWTH);
        if self.next.capacity() >= needed {
            return Ok(());
        }
        let capacity = needed.saturating_mul(2);
        let empty = || Claims::with_capacity(capacity, GFP_KERNEL_ACCOUNT);
        let (mut handlers, mut current, next) = (empty()?, empty()?, empty()?);
        handlers.extend_from_slice(&self.current, GFP_KERNEL_ACCOUNT)?;
        current.extend_from_slice(&self.current, GFP_KERNEL_ACCOUNT)?;
        publish(&mut handlers);
        *self = Self { current, next };
        Ok(())
    }

    /// Takes hold of bytes, for which there is room. The result are those that Xen must now be
    /// asked to route to us; once they are published their kicks are held.
    pub(crate) fn acquire(
        &mut self,
        bytes: Bytes,
        publish: impl FnOnce(&mut Claims),
    ) -> Result<Pieces> {
        let mut owed = Pieces::new();
        for piece in claims::acquire(&self.current, bytes) {
            if piece.debt == Debt::Map {
                owed.push(piece.claim.bytes)?;
            }
        }
        fill(&mut self.next, claims::acquire(&self.current, bytes).map(of_piece))?;
        publish(&mut self.next);
        fill(&mut self.next, claims::acquire(&self.current, bytes).map(of_piece))?;
        mem::swap(&mut self.current, &mut self.next);
        Ok(owed)
    }

    /// Lets go of bytes. Those that no process holds stay known as routed to us until
    /// [`Self::give_back`].
    pub(crate) fn release(&mut self, bytes: Bytes, publish: impl FnOnce(&mut Claims)) -> Result {
        fill(&mut self.next, claims::release(&self.current, bytes).map(of_piece))?;
        publish(&mut self.next);
        fill(&mut self.next, claims::release(&self.current, bytes).map(of_piece))?;
        mem::swap(&mut self.current, &mut self.next);
        Ok(())
    }

    /// Has Xen take back those of these bytes that no process holds, and then, as there may be room for
    /// it now, what it did not take back before, until it refuses or `enough` says so. What it does
    /// not take, as when taking it from the middle of a range needs one range too many, stays ours.
    pub(crate) fn give_back(
        &mut self,
        bytes: Bytes,
        mut unmap: impl FnMut(Bytes) -> bool,
        enough: impl Fn() -> bool,
        publish: impl FnOnce(&mut Claims),
    ) -> Result {
        let ours = |claim: &&Claim| claim.holders == 0 && is_within(claim.bytes, bytes);
        let mut taken = Pieces::new();
        for claim in self.current.iter().filter(ours) {
            if unmap(claim.bytes) {
                taken.push(claim.bytes)?;
            }
        }
        if taken.len == 0 {
            return Ok(());
        }
        // Of those from before, the ones up to here.
        let mut last = None;
        let before = |claim: &&Claim| claim.holders == 0 && !is_within(claim.bytes, bytes);
        for claim in self.current.iter().filter(before) {
            if enough() || !unmap(claim.bytes) {
                break;
            }
            last = Some(order(claim));
        }
        let left = |claim: &&Claim| {
            let from_before = before(claim) && last.is_some_and(|last| order(claim) <= last);
            let now = ours(claim) && taken.contains(claim.bytes);
            !(from_before || now)
        };
        fill(&mut self.next, self.current.iter().filter(left).copied())?;
        publish(&mut self.next);
        fill(&mut self.next, self.current.iter().filter(left).copied())?;
        mem::swap(&mut self.current, &mut self.next);
        Ok(())
    }
}

fn of_piece(piece: Piece) -> Claim {
    piece.claim
}

fn order(claim: &Claim) -> (crate::protocol::Space, u64) {
    (claim.bytes.space(), claim.bytes.first())
}

fn is_within(inner: Bytes, outer: Bytes) -> bool {
    inner.space() == outer.space()
        && inner.first() >= outer.first()
        && inner.last() <= outer.last()
}

/// Fills a buffer that has room.
fn fill(buffer: &mut Claims, claims: impl Iterator<Item = Claim>) -> Result {
    buffer.clear();
    for claim in claims {
        buffer.push_within_capacity(claim).map_err(|_| ENOMEM)?;
    }
    Ok(())
}
