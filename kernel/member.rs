// SPDX-License-Identifier: GPL-2.0

//! One file's use of a guest.

use crate::eventfd::EventFd;
use crate::guest::Guest;
use crate::guests;
use crate::irqs::MemberId;
use crate::protocol::status::Interface;
use crate::protocol::DomId;
use crate::taken::Taken;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// One file's use of a guest. Dropping it ends what was assigned by it, and the last one's drop lets
/// go of the guest.
pub(crate) struct Member {
    taken: Arc<Taken>,
    id: MemberId,
    /// The table of descriptors with which it ends, as a number to compare; `None` if it ends with the
    /// last descriptor. The table may be freed and its address used again: it has closed the file by then.
    ends_with: Option<usize>,
    left: Atomic<bool>,
}

impl Member {
    /// Takes a guest for one more file, as [`guests::take`]. `gone` is signalled when it dies.
    pub(crate) fn take(dom: DomId, interface: Interface, gone: Option<EventFd>) -> Result<Self> {
        let taken = guests::take(dom, interface)?;
        let (id, left) = (taken.guest.next_member(), Atomic::new(false));
        let member = Self { taken, id, ends_with: None, left };
        if let Some(gone) = gone {
            member.guest().tell(id, gone)?;
        }
        Ok(member)
    }

    /// It ends when the calling process closes its file, although others have copies.
    pub(crate) fn of_this_process(mut self) -> Self {
        // SAFETY: The current task is there, and has a table of descriptors, as it makes a request.
        self.ends_with = Some(unsafe { (*kernel::current!().as_ptr()).files }.addr());
        self
    }

    /// A descriptor of its file was closed, out of this table of descriptors.
    pub(crate) fn closed_by(&self, table: usize) {
        if self.ends_with == Some(table) && !self.left.xchg(true, Relaxed) {
            guests::leave(&self.taken, self.id);
        }
    }

    /// Whether it has ended before its file.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    pub(crate) fn taken(&self) -> &Arc<Taken> {
        &self.taken
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.taken.guest
    }

    pub(crate) fn dom(&self) -> DomId {
        self.taken.guest.dom()
    }

    /// Whose the assignments are that are made through this.
    pub(crate) fn id(&self) -> MemberId {
        self.id
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.has_left() {
            // What a request assigned that was under way.
            self.taken.guest.end_of(self.id);
        } else {
            guests::leave(&self.taken, self.id);
        }
    }
}
