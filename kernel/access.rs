// SPDX-License-Identifier: GPL-2.0

//! Whom this domain may serve: any guest if Xen started it, else the one that xenstore calls its
//! target, as `privcmd` has it. Nothing switches this off.
//!
//! Before xenstore has said so, and is watched for the end of domains, no guest is taken. Xenstore is
//! noticed by a notifier once it is up, and asked in a thread of ours: it may be long in answering, and
//! that wait cannot be broken off. A request waits for that thread, under no lock, until
//! a signal comes.

use crate::bindings;
use crate::death::{LookAtAll, Watch};
use crate::protocol::DomId;
use crate::workqueue::WorkQueue;
use crate::{xen, xenstore};
use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::sync::{
    global_lock, new_condvar, new_mutex, new_spinlock, Arc, CondVar, Mutex, SpinLock,
};
use kernel::types::Opaque;
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// To which guests an open file is confined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confined {
    /// To none in particular.
    Free,
    /// To one.
    To(DomId),
    /// It may serve no guest.
    Barred,
}

impl Confined {
    /// Whether this guest may be served.
    ///
    /// # Errors
    /// `EPERM`.
    pub(crate) fn may(self, dom: DomId) -> Result {
        match self {
            Self::Free => Ok(()),
            Self::To(ours) if ours == dom => Ok(()),
            Self::To(_) | Self::Barred => Err(EPERM),
        }
    }
}

/// How far we are with xenstore.
#[derive(Clone, Copy)]
enum Word {
    /// It is not up.
    Awaited,
    /// It is being asked.
    Asked,
    /// It has spoken, and its watch is set.
    Given(Confined),
    /// It could not be asked, or the watch not be set.
    Failed(Error),
}

/// What xenstore has to say before a guest is taken.
#[pin_data]
struct Target {
    #[pin]
    word: SpinLock<Word>,
    #[pin]
    answered: CondVar,
    #[pin]
    watch: Mutex<Option<Watch>>,
    /// What the watch does.
    look: LookAtAll,
    #[pin]
    ask: Work<Self>,
    /// Where xenstore is asked, one question after the other.
    questions: WorkQueue,
}

impl_has_work! {
    impl HasWork<Self> for Target { self.ask }
}

impl WorkItem for Target {
    type Pointer = Arc<Self>;

    fn run(target: Arc<Self>) {
        let word = target.ask_xenstore().map_or_else(Word::Failed, Word::Given);
        *target.word.lock() = word;
        target.answered.notify_all();
    }
}

impl Target {
    fn ask_xenstore(&self) -> Result<Confined> {
        let confined = if xen::is_initial_domain() { Confined::Free } else { target()? };
        let mut watch = self.watch.lock();
        if watch.is_none() {
            *watch = Some(Watch::set(self.look)?);
        }
        Ok(confined)
    }

    /// Has xenstore asked, unless it is being.
    fn ask(self: &Arc<Self>) {
        *self.word.lock() = Word::Asked;
        let _ = self.questions.queue().enqueue(self.clone());
    }

    fn confined(self: &Arc<Self>) -> Result<Confined> {
        let mut word = self.word.lock();
        loop {
            match *word {
                Word::Given(confined) => return Ok(confined),
                Word::Failed(error) => {
                    drop(word);
                    // For the next request.
                    self.ask();
                    return Err(error);
                }
                Word::Awaited | Word::Asked => {}
            }
            if self.answered.wait_interruptible(&mut word) {
                return Err(ERESTARTSYS);
            }
        }
    }
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static TARGET: SpinLock<Option<Arc<Target>>> = None;
}

/// What xenstore has to say, for as long as the module is there.
pub(crate) struct Access(Pin<KBox<Opaque<kernel_bindings::notifier_block>>>);

// SAFETY: The kernel locks its chain of notifiers; any thread may take one out.
unsafe impl Send for Access {}
// SAFETY: `&Access` does nothing.
unsafe impl Sync for Access {}

impl Access {
    /// `look` is called when a domain went.
    ///
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn settle(look: LookAtAll) -> Result<Self> {
        // SAFETY: The caller's promise.
        unsafe { TARGET.init() };
        let questions = WorkQueue::new(c"xen-eventfd-store", 1)?;
        let target = Arc::pin_init(
            pin_init!(Target {
                word <- new_spinlock!(Word::Awaited, "Target::word"),
                answered <- new_condvar!("Target::answered"),
                watch <- new_mutex!(None, "Target::watch"),
                look,
                ask <- new_work!("Target::ask"),
                questions,
            }),
            GFP_KERNEL,
        )?;
        let notifier = kernel_bindings::notifier_block {
            notifier_call: Some(xenstore_is_up),
            ..Default::default()
        };
        let notifier = KBox::pin(Opaque::new(notifier), GFP_KERNEL)?;
        *TARGET.lock() = Some(target);
        // SAFETY: It stays where it is until `drop` has taken it out of the chain. It is called at
        // once if xenstore is up.
        unsafe { bindings::register_xenstore_notifier(notifier.get()) };
        Ok(Self(notifier))
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // SAFETY: `settle` gave it to the chain, which has it or, as xenstore was there, never took
        // it; it is taken out nowhere else.
        unsafe { bindings::unregister_xenstore_notifier(self.0.get()) };
        let target = TARGET.lock().take();
        if let Some(target) = &target {
            // Then no work has a reference, so none destroys the queue that it is of.
            target.questions.flush();
        }
        drop(target);
    }
}

/// To which guests files are confined. Waits until xenstore has spoken.
///
/// # Errors
/// `ERESTARTSYS` if a signal came first; or why xenstore could not be asked, which is tried again.
pub(crate) fn confined() -> Result<Confined> {
    current()?.confined()
}

/// The same, without waiting: `None` if that is not known yet.
pub(crate) fn confined_so_far() -> Option<Confined> {
    match *current().ok()?.word.lock() {
        Word::Given(confined) => Some(confined),
        Word::Awaited | Word::Asked | Word::Failed(_) => None,
    }
}

/// Asks xenstore a question in a thread of ours, and waits for the answer.
///
/// # Errors
/// `ERESTARTSYS` if a signal came first.
pub(crate) fn ask<T: Send + Unpin + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let reply = Arc::pin_init(Reply::new(), GFP_KERNEL_ACCOUNT)?;
    let theirs = reply.clone();
    let answer = move || theirs.give(question());
    current()?.questions.queue().try_spawn(GFP_KERNEL_ACCOUNT, answer)?;
    reply.await_it()
}

fn current() -> Result<Arc<Target>> {
    TARGET.lock().clone().ok_or(ENODEV)
}

/// An answer that a process waits for.
#[pin_data]
struct Reply<T> {
    #[pin]
    answer: SpinLock<Option<T>>,
    #[pin]
    given: CondVar,
}

impl<T: Unpin> Reply<T> {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            answer <- new_spinlock!(None, "Reply::answer"),
            given <- new_condvar!("Reply::given"),
        })
    }

    fn give(&self, answer: T) {
        *self.answer.lock() = Some(answer);
        self.given.notify_all();
    }

    fn await_it(&self) -> Result<T> {
        let mut answer = self.answer.lock();
        loop {
            if let Some(answer) = answer.take() {
                return Ok(answer);
            }
            if self.given.wait_interruptible(&mut answer) {
                return Err(ERESTARTSYS);
            }
        }
    }
}

/// Reads this domain's target, of which there may be none.
fn target() -> Result<Confined> {
    let number = xenstore::ask(c"target", c"", |text| text.parse().ok())?;
    Ok(number.flatten().map_or(Confined::Barred, |dom| Confined::To(DomId(dom))))
}

/// # Safety
/// None is asked for: it uses no argument.
unsafe extern "C" fn xenstore_is_up(
    _notifier: *mut kernel_bindings::notifier_block,
    _event: c_ulong,
    _data: *mut c_void,
) -> c_int {
    if let Ok(target) = current() {
        target.ask();
    }
    // NOTIFY_DONE
    0
}
