//! A guest that waits for its turn, and an event channel, `go`, by which the bench resumes it and it
//! reports back.

use crate::ticks::Clock;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeMap;
use xen_eventfd::{DomId, Port};
use xen_eventfd_guest_script::Report;
use xen_eventfd_host::{EventChannels, LocalPort};
use xen_eventfd_scenarios::PATIENCE;
use xen_eventfd_scenarios::environment::{Environment, EnvironmentGuest};

/// A guest whose script has `listen evtchn go`.
pub(crate) struct Guest {
    source: Box<dyn EnvironmentGuest>,
    events: Box<dyn EventChannels>,
    go: Option<LocalPort>,
    ports: BTreeMap<String, Port>,
    stamps: BTreeMap<usize, Vec<u64>>,
    clock: Option<Clock>,
    done: bool,
}

impl Guest {
    pub(crate) fn create(environment: &dyn Environment, script: &str) -> Result<Self> {
        Ok(Self {
            source: environment.guest(script)?,
            events: environment.host().event_channels()?,
            go: None,
            ports: BTreeMap::new(),
            stamps: BTreeMap::new(),
            clock: None,
            done: false,
        })
    }

    pub(crate) fn dom(&self) -> DomId {
        self.source.dom()
    }

    /// Starts it, until it waits for its turn.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.source.start()?;
        let port = self.port("go")?;
        let go = self.events.bind(self.dom(), port)?;
        self.go = Some(go);
        // Xen sends one event at binding.
        self.await_event(go)
    }

    /// The port of one of its event channels.
    pub(crate) fn port(&mut self, name: &str) -> Result<Port> {
        loop {
            if let Some(port) = self.ports.get(name) {
                return Ok(*port);
            }
            ensure!(!self.done, "the guest ended without a port {name:?}");
            self.line()?;
        }
    }

    /// Resumes it.
    pub(crate) fn resume(&self) -> Result<()> {
        Ok(self.events.notify(self.go.context("the guest has not started")?)?)
    }

    /// Sleeps until it waits for its turn again.
    pub(crate) fn come_back(&self) -> Result<()> {
        self.await_event(self.go.context("the guest has not started")?)
    }

    /// Resumes it, and sleeps until it waits for its turn again.
    pub(crate) fn round(&self) -> Result<()> {
        self.resume()?;
        self.come_back()
    }

    fn await_event(&self, port: LocalPort) -> Result<()> {
        let mut ports = Vec::new();
        while !ports.contains(&port) {
            poll(&mut [PollFd::from_borrowed_fd(self.events.fd(), PollFlags::IN)], None)?;
            self.events.pending(&mut ports)?;
        }
        ports.into_iter().try_for_each(|port| Ok(self.events.eoi(port)?))
    }

    /// Waits until it is done; returns the times that each vCPU has recorded.
    pub(crate) fn finish(&mut self) -> Result<BTreeMap<usize, Vec<u64>>> {
        while !self.done {
            self.line()?;
        }
        Ok(std::mem::take(&mut self.stamps))
    }

    /// One reading of its counter and of Xen's clock; it reports this before it is done.
    pub(crate) fn clock(&self) -> Result<Clock> {
        self.clock.context("the guest did not report its clock")
    }

    fn line(&mut self) -> Result<()> {
        let line = self.source.line(PATIENCE)?.context("the guest's console is silent")?;
        match Report::parse(&line) {
            Ok(Report::Port { name, port, .. }) => {
                self.ports.insert(name.to_owned(), Port(port));
            }
            // The counters of its vCPUs are the same.
            Ok(Report::Clock { ticks, time, .. }) => self.clock = Some(Clock { ticks, time }),
            Ok(Report::Stamps { vcpu, stamps }) => {
                self.stamps.entry(vcpu).or_default().extend(stamps.values());
            }
            Ok(Report::GuestDone) => self.done = true,
            Ok(Report::Error { .. } | Report::Fault { .. }) => bail!("{line}"),
            Err(_) => bail!("unexpected line of the guest: {line:?}"),
            _ => {}
        }
        Ok(())
    }
}
