// SPDX-License-Identifier: GPL-2.0

//! Parts of guests' memory, each an object with a file whose mappings show it.
//!
//! Nothing is mapped before it is touched, and then a chunk of it. A PV domain has the guest's frames in the page
//! tables of processes and nowhere else. Another one has Xen put them at frame numbers of its own, which have pages
//! that I/O may refer to: what is mapped is a reference, and a frame is taken out again only when there is none.
//!
//! When a guest dies, or this domain is about to be suspended, everything is unmapped, and each access from then on is
//! SIGBUS. What I/O still refers to is kept, and looked at every other second; while an object's file is closed and
//! something of it is kept, the module stays.
//!
//! An object keeps no reference to its guest while nothing of it is mapped. That the guest has ended is then found by
//! the news of that alone, before a toolstack has given the guest's number to another one.

use crate::abi::native::MemoryRange;
use crate::loaded::StayLoaded;
use crate::mapping::{Fault, Mappings};
use crate::protocol::status::MemoryStatus;
use crate::protocol::wire::text::Line;
use crate::protocol::DomId;
use crate::server::{self, dead_or};
use crate::unpopulated::{Occupied, Vacant};
use crate::workqueue::WorkQueue;
use crate::xen;
use core::ops::Range;
use kernel::fmt::{self, Write};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::{global_lock, new_mutex, Arc, Mutex};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// Pages that are mapped together: as many as a page table has.
const CHUNK: usize = 512;
/// Frames that Xen is asked for at once.
const BATCH: usize = 32;
/// Objects of one guest.
const MAX_OBJECTS: usize = 32;
/// Objects that are looked at at once.
const LOOKS_AT_ONCE: c_int = 16;

/// A part of a guest's memory.
#[pin_data]
pub(crate) struct Memory {
    dom: DomId,
    range: MemoryRange,
    /// Its place on the list, beside the guest's number.
    number: u64,
    #[pin]
    state: Mutex<State>,
    /// A look at whether the guest lives.
    #[pin]
    look: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Memory { self.look }
}

/// How an object stands.
struct State {
    /// Of its file; `None` if that is closed.
    mappings: Option<Mappings>,
    /// How many there are.
    areas: usize,
    frames: Frames,
    /// The guest is gone, or the file is closed.
    over: bool,
    /// Something is kept although the file is closed.
    kept: Option<StayLoaded>,
}

/// What is known of the frames in each chunk.
enum Frames {
    /// How many are mapped somewhere, as far as is known.
    Pv(KVVec<u16>),
    /// Those that Xen has put at frame numbers of ours; a chunk that was not touched is empty.
    NotPv(KVVec<KVVec<Option<Occupied>>>),
}

impl Frames {
    fn of(pages: usize) -> Result<Self> {
        let chunks = pages.div_ceil(CHUNK);
        Ok(if xen::is_pv_domain() {
            Self::Pv(KVVec::from_elem(0, chunks, GFP_KERNEL_ACCOUNT)?)
        } else {
            let mut places = KVVec::with_capacity(chunks, GFP_KERNEL_ACCOUNT)?;
            for _ in 0..chunks {
                places.push_within_capacity(KVVec::new()).map_err(|_| ENOMEM)?;
            }
            Self::NotPv(places)
        })
    }

    fn count(&self) -> usize {
        match self {
            Self::Pv(counts) => counts.iter().map(|count| usize::from(*count)).sum(),
            Self::NotPv(chunks) => chunks.iter().flatten().flatten().count(),
        }
    }

    /// Nothing is mapped any more.
    fn forget(&mut self) {
        if let Self::Pv(counts) = self {
            counts.iter_mut().for_each(|count| *count = 0);
        }
    }

    /// Gives back what nothing refers to. Returns whether that was all.
    fn give_back(&mut self) -> bool {
        match self {
            Self::Pv(_) => true,
            Self::NotPv(chunks) => {
                let mut all = true;
                for place in chunks.iter_mut().flatten() {
                    if place.as_ref().is_some_and(Occupied::is_referenced) {
                        all = false;
                    } else {
                        *place = None;
                    }
                }
                all
            }
        }
    }
}

/// Has Xen put frames of a guest, from the first on, at frame numbers of ours: those that are not there yet.
///
/// # Errors
/// `ENOMEM`. A frame that the guest does not have is left out.
fn acquire(dom: DomId, first: xen::Frame, places: &mut [Option<Occupied>]) -> Result {
    for (nth, places) in (0..).zip(places.chunks_mut(BATCH)) {
        let first = first.saturating_add(BATCH as xen::Frame * nth);
        let mut vacant = [const { None }; BATCH];
        let (mut theirs, mut ours, mut errors) = ([0; BATCH], [0; BATCH], [-1; BATCH]);
        let arguments = vacant.iter_mut().zip(&mut theirs).zip(&mut ours);
        let missing = (0..).zip(places.iter_mut()).filter(|(_, place)| place.is_none());
        let mut count = 0;
        for (((vacant, theirs), ours), (nth, _)) in arguments.zip(missing) {
            let new = Vacant::new()?;
            (*theirs, *ours) = (first.saturating_add(nth), new.frame());
            *vacant = Some(new);
            count += 1;
        }
        // The errors tell which.
        let _ = xen::add_foreign(dom, count, &mut theirs, &mut ours, &mut errors);
        let missing = places.iter_mut().filter(|place| place.is_none());
        for ((vacant, error), place) in vacant.into_iter().zip(errors).zip(missing) {
            if error == 0 {
                *place = vacant.map(Vacant::occupied);
            }
        }
    }
    Ok(())
}

impl State {
    /// Unmaps all, and gives back what it can.
    fn end(&mut self) -> bool {
        self.over = true;
        self.unmap();
        self.frames.give_back()
    }

    fn unmap(&mut self) {
        if let Some(mappings) = &self.mappings {
            mappings.unmap();
        }
        self.frames.forget();
    }
}

impl Memory {
    /// An object on the list, without a file. [`Self::close`] undoes it.
    ///
    /// # Errors
    /// `ENODEV` if there is no such guest, `EOPNOTSUPP` for a PV guest, `EINVAL` for more than it has, `ENOSPC` if it
    /// has as many objects as it may.
    pub(crate) fn create(dom: DomId, range: MemoryRange) -> Result<Arc<Self>> {
        server::vcpus(dom)?;
        if range.last() > xen::last_frame(dom).map_err(dead_or)? {
            return Err(EINVAL);
        }
        let pages = usize::try_from(range.pages).map_err(|_| EINVAL)?;
        let state = State {
            mappings: None,
            areas: 0,
            frames: Frames::of(pages)?,
            over: false,
            kept: None,
        };
        let number = next_number()?;
        let memory = Arc::pin_init(
            pin_init!(Self {
                dom,
                range,
                number,
                state <- new_mutex!(state, "Memory::state"),
                look <- new_work!("Memory::look"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let node = RBTreeNode::new(memory.key(), memory.clone(), GFP_KERNEL_ACCOUNT)?;
        insert(node, dom)?;
        // From now on its end is looked for; it may have been before.
        if server::is_dying(dom) {
            memory.close();
            return Err(ENODEV);
        }
        Ok(memory)
    }

    fn key(&self) -> (u16, u64) {
        (self.dom.0, self.number)
    }

    fn pages(&self) -> usize {
        self.range.pages as usize
    }

    /// As a file tells its size.
    pub(crate) fn bytes(&self) -> i64 {
        i64::try_from(self.range.bytes()).unwrap_or(i64::MAX)
    }

    /// Whether so many pages from that one on are all of it.
    pub(crate) fn has(&self, first: usize, pages: usize) -> bool {
        first.checked_add(pages).is_some_and(|end| end <= self.pages())
    }

    /// Its file is open.
    pub(crate) fn open(&self, mappings: Mappings) {
        self.state.lock().mappings = Some(mappings);
    }

    /// Its file is closed, or was never open: there is no mapping any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.mappings = None;
        let all = state.end();
        if !all {
            state.kept = Some(StayLoaded::now());
        }
        drop(state);
        if all {
            remove(self.key());
        }
    }

    pub(crate) fn mapping_opened(&self) {
        let mut state = self.state.lock();
        state.areas = state.areas.saturating_add(1);
    }

    pub(crate) fn mapping_closed(&self) {
        let mut state = self.state.lock();
        state.areas = state.areas.saturating_sub(1);
        if state.areas == 0 {
            state.frames.forget();
        }
    }

    /// Unmaps all of it; what is touched afterwards is mapped again.
    pub(crate) fn unmap(&self) {
        self.state.lock().unmap();
    }

    /// Maps what was touched, and what is around it.
    ///
    /// # Errors
    /// `ENOMEM`, or another if the page cannot be had.
    pub(crate) fn fault(&self, fault: &Fault<'_>) -> Result {
        let (chunk, nth) = (fault.page() / CHUNK, fault.page() % CHUNK);
        let first = fault.page().saturating_sub(nth);
        let pages = first..first.saturating_add(CHUNK).min(self.pages());
        let mut state = self.state.lock();
        if state.over {
            return Err(ENODEV);
        }
        match &mut state.frames {
            Frames::Pv(counts) => {
                let mapped = self.map_frames(fault, fault.within(pages))?;
                let count = counts.get_mut(chunk).ok_or(EFAULT)?;
                *count = mapped.max(*count);
                Ok(())
            }
            Frames::NotPv(chunks) => {
                let places = chunks.get_mut(chunk).ok_or(EFAULT)?;
                if places.is_empty() {
                    self.acquire_all(pages, places)?;
                }
                let place = places.get_mut(nth).ok_or(EFAULT)?;
                if place.is_none() {
                    // It was not there when the others came.
                    let frame = self.frame(fault.page());
                    acquire(self.dom, frame, core::slice::from_mut(place))?;
                }
                fault.insert(place.as_ref().ok_or(EFAULT)?)
            }
        }
    }

    /// The guest's frame number of a page of it.
    fn frame(&self, page: usize) -> xen::Frame {
        self.range.first.saturating_add(page as xen::Frame)
    }

    fn acquire_all(&self, pages: Range<usize>, places: &mut KVVec<Option<Occupied>>) -> Result {
        let mut new = KVVec::with_capacity(pages.len(), GFP_KERNEL_ACCOUNT)?;
        for _ in pages.clone() {
            new.push_within_capacity(None).map_err(|_| ENOMEM)?;
        }
        acquire(self.dom, self.frame(pages.start), &mut new)?;
        *places = new;
        Ok(())
    }

    /// Maps frames, in a PV domain, the touched one among them. Returns how many there are.
    fn map_frames(&self, fault: &Fault<'_>, pages: Range<usize>) -> Result<u16> {
        if fault.is_over() {
            return Ok(0);
        }
        let mut frames = KVVec::with_capacity(pages.len(), GFP_KERNEL)?;
        for page in pages.clone() {
            frames.push_within_capacity(self.frame(page)).map_err(|_| ENOMEM)?;
        }
        let mut errors = KVVec::from_elem(EFAULT.to_errno(), pages.len(), GFP_KERNEL)?;
        let all = fault.remap(self.dom, pages.start, &mut frames, &mut errors);
        match errors.get(fault.page().saturating_sub(pages.start)) {
            Some(0) => Ok(errors.iter().filter(|error| **error == 0).count() as u16),
            _ if all == Err(ENOMEM) => Err(ENOMEM),
            _ => Err(EFAULT),
        }
    }

    /// Its guest has died, or may no longer be looked at. Once its file is closed, and all is given back, it is off
    /// the list.
    fn end(&self) {
        let mut state = self.state.lock();
        let all = state.end();
        let kept = if all { state.kept.take() } else { None };
        drop(state);
        if kept.is_some() {
            remove(self.key());
        }
        // The module may go now.
        drop(kept);
    }

    fn is_over(&self) -> bool {
        self.state.lock().over
    }

    fn status(&self) -> MemoryStatus {
        let state = self.state.lock();
        MemoryStatus {
            guest_address: self.range.start(),
            length: self.range.bytes(),
            mapped: state.frames.count() as u64,
            mappings: state.areas as u64,
        }
    }

    /// All about it.
    pub(crate) fn show(&self, out: &mut impl Write) -> fmt::Result {
        writeln!(out, "{}", Line::Dom(self.dom))?;
        writeln!(out, "{}", Line::Memory(self.status()))?;
        if self.is_over() {
            writeln!(out, "{}", Line::Dead)?;
        }
        Ok(())
    }
}

impl WorkItem for Memory {
    type Pointer = Arc<Self>;

    fn run(memory: Arc<Self>) {
        if memory.is_over() || server::is_dying(memory.dom) {
            memory.end();
        }
    }
}

/// What is there as long as the module is.
struct Listed {
    objects: RBTree<(u16, u64), Arc<Memory>>,
    next: u64,
    looks: WorkQueue,
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static LISTED: SpinLock<Option<Listed>> = None;
}

/// The right to have memory objects. Dropped once no file is open any more, and nothing has them looked at.
pub(crate) struct Memories;

impl Memories {
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn open() -> Result<Self> {
        // SAFETY: The caller's promise.
        unsafe { LISTED.init() };
        let looks = WorkQueue::new(c"xen-eventfd-memory", LOOKS_AT_ONCE)?;
        *LISTED.lock() = Some(Listed { objects: RBTree::new(), next: 0, looks });
        Ok(Self)
    }
}

impl Drop for Memories {
    fn drop(&mut self) {
        let listed = LISTED.lock().take();
        // Not under the lock: it waits for looks that are under way.
        drop(listed);
    }
}

fn next_number() -> Result<u64> {
    let mut listed = LISTED.lock();
    let next = &mut listed.as_mut().ok_or(ENODEV)?.next;
    *next = next.wrapping_add(1);
    Ok(*next)
}

fn insert(node: RBTreeNode<(u16, u64), Arc<Memory>>, dom: DomId) -> Result {
    let mut guard = LISTED.lock();
    let Some(listed) = guard.as_mut() else {
        drop(guard);
        return Err(ENODEV);
    };
    let theirs = listed.objects.keys().filter(|(of, _)| *of == dom.0).count();
    if theirs >= MAX_OBJECTS {
        // Not under the lock: what the node holds is freed.
        drop(guard);
        drop(node);
        return Err(ENOSPC);
    }
    listed.objects.insert(node);
    Ok(())
}

fn remove(key: (u16, u64)) {
    let mut listed = LISTED.lock();
    let removed = listed.as_mut().and_then(|listed| listed.objects.remove_node(&key));
    drop(listed);
    drop(removed);
}

/// The object of a guest at an index.
pub(crate) fn shown(dom: DomId, nth: usize) -> Option<MemoryStatus> {
    let guard = LISTED.lock();
    let mut theirs = guard.as_ref()?.objects.iter().filter(|((of, _), _)| *of == dom.0);
    let memory = theirs.nth(nth)?.1.clone();
    drop(theirs);
    drop(guard);
    Some(memory.status())
}

/// Some domain went, or time has passed: has the guest of each object looked at. It waits for nothing.
pub(crate) fn look_at_all() {
    let listed = LISTED.lock();
    let Some(listed) = listed.as_ref() else { return };
    for memory in listed.objects.values() {
        // One that is queued already will be looked at.
        let _ = listed.looks.queue().enqueue(memory.clone());
    }
}

/// Unmaps all of all guests, for good. No process runs that could ask for more.
pub(crate) fn let_go_of_all() {
    let mut last = None;
    while let Some(memory) = after(last) {
        last = Some(memory.key());
        memory.end();
    }
}

/// The object on the list with the lowest key above that.
fn after(last: Option<(u16, u64)>) -> Option<Arc<Memory>> {
    let guard = LISTED.lock();
    let mut listed = guard.as_ref()?.objects.iter();
    let (_, next) = listed.find(|(key, _)| last.is_none_or(|last| **key > last))?;
    Some(next.clone())
}
