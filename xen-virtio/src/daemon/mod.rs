//! `xen-virtio daemon`: follows guests in xenstore, holds those that the configuration names, starts backends and a
//! `xen-virtio serve` for each, and watches over them.
//!
//! ```text
//! xenstore -> store -> guest -> process: backends, and then `serve`
//!                        |  \-> xl: pause, unpause
//!             config ----/   \-> record: for the daemon that comes after this one
//! ```
//!
//! **A guest runs only with its devices.** libxl does not wait for a backend of a `virtio=` line. Xen counts how often
//! a guest is paused, though: a guest that this pauses while libxl still builds it runs once both have let it run.
//! libxl makes the guest's node before it loads its kernel, and waits for the console's `tty` before it lets it run. So
//! the guest is paused when its node appears, and if there is no `tty` once it is paused, it was in time.
//!
//! **What is started outlives this process.** All that has to be known of a guest is in its record, so a service that
//! is started again disturbs no guest.

pub(crate) mod config;
pub(crate) mod guest;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod store;

use crate::error::Result;
use config::{Config, Mistake};
use guest::{Guest, Tools};
use record::Phase;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use store::{Seen, Store};
use xen_eventfd_core::DomId;

/// When something is tried again that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What happened to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) domid: u16,
    pub(crate) name: String,
    pub(crate) event: Happened,
    pub(crate) why: Option<String>,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Happened {
    /// It is paused until its devices are served.
    Held,
    Served,
    /// A backend has ended, and is started again.
    BackendEnded,
    /// The process that serves it has ended, and is started again.
    ServeEnded,
    /// It is not served.
    Failed,
    /// It is gone, and all that served it has ended.
    Gone,
}

impl Event {
    /// A sentence.
    pub(crate) fn prose(&self) -> String {
        let Self { domid, name, event, why } = self;
        let what = match event {
            Happened::Held => "waits for its devices",
            Happened::Served => "is served",
            Happened::BackendEnded => "has lost a backend, which is started again",
            Happened::ServeEnded => "is not served, and `xen-virtio serve` is started again",
            Happened::Failed => "is not served",
            Happened::Gone => "is gone",
        };
        let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{name} (domain {domid}) {what}{why}")
    }
}

/// The daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    store: Store,
    tools: Tools,
    path: PathBuf,
    config: Config,
    guests: BTreeMap<DomId, Guest>,
    /// Those that are none of ours.
    others: BTreeSet<DomId>,
    /// What xenstore had when it was last read.
    seen: BTreeMap<DomId, Seen>,
    events: Vec<Event>,
    /// xenstore is read, whether it has changed or not.
    reads: bool,
    /// Until guests have been looked for once, they were there.
    is_new: bool,
    again: Option<Instant>,
}

impl Daemon {
    /// A daemon that has not had its first turn.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(crate) fn new(store: Store, tools: Tools, path: PathBuf, config: Config) -> Result<Self> {
        let mut daemon = Self {
            store,
            tools,
            path,
            config,
            guests: BTreeMap::new(),
            others: BTreeSet::new(),
            seen: BTreeMap::new(),
            events: Vec::new(),
            reads: true,
            is_new: true,
            again: None,
        };
        for record in daemon.tools.state.records()? {
            let guest = Guest::resume(record, &daemon.tools, &mut daemon.store)?;
            daemon.guests.insert(guest.dom(), guest);
        }
        Ok(daemon)
    }

    /// What is to be polled for reading.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let guests = self.guests.values().flat_map(Guest::fds);
        [self.store.fd()].into_iter().chain(guests).collect()
    }

    /// When it wants a turn, whatever happens.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let guests = self.guests.values().filter_map(|guest| guest.deadline(now));
        guests.chain(self.again).min()
    }

    /// What has happened since this was asked before.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Does what is to be done now.
    ///
    /// # Errors
    /// xenstore does not answer: the connection is of no use any more.
    pub(crate) fn turn(&mut self, now: Instant) -> Result<()> {
        if self.again.is_some_and(|again| now >= again) {
            self.again = None;
            self.reads = true;
        }
        // An event that came during a request does not make the descriptor readable: of a turn of a guest, too.
        let mut has_changed = self.store.has_changed()?;
        loop {
            if has_changed || self.reads {
                self.reads = false;
                self.read(now)?;
            }
            self.turns(now);
            has_changed = self.store.has_changed()?;
            if !has_changed && !self.reads {
                return Ok(());
            }
        }
    }

    /// Reads what xenstore has of guests, and takes those that are new.
    fn read(&mut self, now: Instant) -> Result<()> {
        let there = self.store.guests()?;
        self.others.retain(|dom| there.contains(dom));
        self.seen.clear();
        for dom in there {
            if self.others.contains(&dom) {
                continue;
            }
            let Some(seen) = self.store.guest(dom)? else { continue };
            if !self.guests.contains_key(&dom) {
                self.consider(&seen, now);
            }
            self.seen.insert(dom, seen);
        }
        for dom in self.guests.keys() {
            if let (None, Some(seen)) = (self.seen.get(dom), self.store.guest(*dom)?) {
                self.seen.insert(*dom, seen);
            }
        }
        self.is_new = false;
        Ok(())
    }

    /// A guest that was not there before.
    fn consider(&mut self, seen: &Seen, now: Instant) {
        self.configure();
        if self.config.entry(&seen.name).is_none() {
            self.others.insert(seen.dom);
            return;
        }
        match Guest::hold(seen, self.is_new, &self.tools, &mut self.store) {
            Ok(guest) => {
                if let Phase::Failed(why) = &guest.record().phase {
                    if seen.lines.is_empty() {
                        let _ = self.tools.state.forget(seen.dom.0);
                        self.others.insert(seen.dom);
                        return;
                    }
                    self.events.push(Event {
                        domid: seen.dom.0,
                        name: seen.name.clone(),
                        event: Happened::Failed,
                        why: Some(why.clone()),
                    });
                }
                self.guests.insert(seen.dom, guest);
            }
            Err(error) => self.retry(seen.dom, &error.to_string(), now),
        }
    }

    /// Reads the configuration again. One that has mistakes does not count.
    fn configure(&mut self) {
        match Config::read(&self.path) {
            Ok(config) => self.config = config,
            Err(mistakes) => tracing::warn!(
                "{}; what it said before counts on; xen-virtio check shows all mistakes",
                first(&self.path, &mistakes)
            ),
        }
    }

    fn turns(&mut self, now: Instant) {
        let mut done = Vec::new();
        let doms: Vec<DomId> = self.guests.keys().copied().collect();
        for dom in doms {
            let waits = self.is_awaited(dom);
            let Some(guest) = self.guests.get_mut(&dom) else { continue };
            let entry = self.config.entry(&guest.record().name);
            let around = (&self.tools, &mut self.store, &mut self.events);
            match guest.turn(self.seen.get(&dom), entry, waits, around, now) {
                Ok(true) => {}
                Ok(false) => done.push(dom),
                Err(error) => self.retry(dom, &error.to_string(), now),
            }
        }
        for dom in done {
            self.guests.remove(&dom);
            self.seen.remove(&dom);
            self.others.insert(dom);
        }
    }

    /// Whether another guest with its name still has processes, as the one before a reboot: their backends have the
    /// same files.
    fn is_awaited(&self, dom: DomId) -> bool {
        let Some(name) = self.guests.get(&dom).map(|guest| &guest.record().name) else {
            return false;
        };
        self.guests.iter().any(|(other, guest)| {
            *other != dom && guest.record().name == *name && guest.has_processes()
        })
    }

    fn retry(&mut self, dom: DomId, error: &str, now: Instant) {
        tracing::warn!("domain {}: {error}; it is tried again", dom.0);
        self.again.get_or_insert(now + AGAIN);
    }
}

/// The first of a file's mistakes.
pub(crate) fn first(path: &std::path::Path, mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => format!("{}:{first}", path.display()),
        count => format!("{}:{first} (and {} more)", path.display(), count - 1),
    }
}

#[cfg(test)]
mod tests;
