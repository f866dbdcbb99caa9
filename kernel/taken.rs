// SPDX-License-Identifier: GPL-2.0

//! A guest that is taken: by whom, and by how many files.
//!
//! A guest comes, is here, goes, and is gone. While it comes it is set up and while it goes it is let
//! go of, each by one thread and under no lock; another that wants the guest then waits, and can be
//! interrupted.

use crate::bindings;
use crate::guest::Guest;
use crate::protocol::status::Interface;
use crate::protocol::DomId;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::{new_condvar, new_spinlock, Arc, CondVar, SpinLock};
use kernel::task::Task;
use kernel::workqueue::{impl_has_work, new_work, Work};

/// The process that took a guest.
pub(crate) struct Owner {
    process: ARef<Task>,
    name: [u8; 16],
}

impl Owner {
    fn this() -> Self {
        let mut name = [0; 16];
        // SAFETY: It writes TASK_COMM_LEN bytes, which is 16.
        unsafe { bindings::shim_current_comm(name.as_mut_ptr()) };
        Self { process: kernel::current!().group_leader().into(), name }
    }

    /// Its number as the caller knows it; 0 if it has ended, or the caller's namespace does not have
    /// it.
    pub(crate) fn pid(&self) -> i32 {
        if self.has_ended() {
            0
        } else {
            self.process.tgid_nr_ns(None)
        }
    }

    /// Whether no thread of it runs any more: others may have what it had open.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: The reference to the task is ours.
        unsafe { !bindings::shim_process_runs(self.process.as_ptr()) }
    }

    /// Its name, filled with zeros.
    pub(crate) fn name(&self) -> &[u8; 16] {
        &self.name
    }
}

/// How far a guest is taken.
enum Stage {
    /// It is being set up. `look_again`: meanwhile some domain went.
    Coming { look_again: bool },
    /// So many files use it.
    Here { members: usize },
    /// It is being let go of.
    Going,
    /// It is not on the list any more.
    Gone,
}

/// A guest that is taken.
#[pin_data]
pub(crate) struct Taken {
    pub(crate) guest: Arc<Guest>,
    pub(crate) interface: Interface,
    pub(crate) owner: Owner,
    #[pin]
    stage: SpinLock<Stage>,
    #[pin]
    moved: CondVar,
    /// A look at whether it lives.
    #[pin]
    look: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Taken { self.look }
}

impl Taken {
    /// One that comes, for the calling process.
    pub(crate) fn new(dom: DomId, interface: Interface) -> Result<Arc<Self>> {
        let guest = Guest::new(dom)?;
        let taken = pin_init!(Self {
            guest,
            interface,
            owner: Owner::this(),
            stage <- new_spinlock!(Stage::Coming { look_again: false }, "Taken::stage"),
            moved <- new_condvar!("Taken::moved"),
            look <- new_work!("Taken::look"),
        });
        Arc::pin_init(taken, GFP_KERNEL_ACCOUNT)
    }

    /// One more file uses it. `false`: it is not on the list any more.
    ///
    /// # Errors
    /// `EBUSY` if it is not to be shared; `ERESTARTSYS` if a signal came before that was known.
    pub(crate) fn join(&self, interface: Interface) -> Result<bool> {
        let shares = interface == Interface::Privcmd && self.interface == interface;
        let mut stage = self.stage.lock();
        loop {
            match &mut *stage {
                Stage::Coming { .. } | Stage::Here { .. } if !shares => return Err(EBUSY),
                Stage::Here { members } => {
                    *members = members.saturating_add(1);
                    return Ok(true);
                }
                Stage::Coming { .. } | Stage::Going => {}
                Stage::Gone => return Ok(false),
            }
            if self.moved.wait_interruptible(&mut stage) {
                return Err(ERESTARTSYS);
            }
        }
    }

    /// It has come, and one file uses it. Returns whether to look at once if it lives.
    pub(crate) fn arrive(&self) -> bool {
        let before = self.turn(Stage::Here { members: 1 });
        matches!(before, Stage::Coming { look_again: true })
    }

    /// It is off the list.
    pub(crate) fn vanish(&self) {
        self.turn(Stage::Gone);
    }

    fn turn(&self, to: Stage) -> Stage {
        let before = core::mem::replace(&mut *self.stage.lock(), to);
        self.moved.notify_all();
        before
    }

    /// One file less uses it. Returns whether it was the last, so that the caller is to let go of it.
    pub(crate) fn part(&self) -> bool {
        let mut stage = self.stage.lock();
        match &mut *stage {
            Stage::Here { members } if *members > 1 => {
                *members = members.saturating_sub(1);
                false
            }
            Stage::Here { .. } => {
                *stage = Stage::Going;
                true
            }
            Stage::Coming { .. } | Stage::Going | Stage::Gone => false,
        }
    }

    /// Whether it is here, so that its death is to be looked for. If it only comes, that is done then.
    pub(crate) fn is_here(&self) -> bool {
        match &mut *self.stage.lock() {
            Stage::Here { .. } => true,
            Stage::Coming { look_again } => {
                *look_again = true;
                false
            }
            Stage::Going | Stage::Gone => false,
        }
    }

    /// It is dead. Returns whether the caller is to take it off the list: another may be about to.
    pub(crate) fn die(&self) -> bool {
        let mut stage = self.stage.lock();
        let here = matches!(&*stage, Stage::Here { .. });
        if here {
            *stage = Stage::Going;
        }
        here
    }

    /// Whether a file has it that is not about to let go of it.
    pub(crate) fn is_held(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Coming { .. } | Stage::Here { .. })
    }
}
