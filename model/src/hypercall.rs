//! A guest's event channel hypercalls, and its wait for events and interrupts.

use crate::domain::Stopped;
use crate::vcpu::Vcpu;
use rustix::io::Errno;
use std::sync::Arc;
use xen_eventfd_core::Port;
use xen_eventfd_core::irq::Line;

impl Vcpu {
    /// Allocates an event channel for domain 0 (`EVTCHNOP_alloc_unbound`).
    ///
    /// # Errors
    /// [`Stopped::Refused`] with ENOSPC if all ports are in use.
    pub fn alloc_unbound(&self) -> Result<Port, Stopped> {
        let mut world = self.model.shared.lock();
        world.running(self.key)?.allocate_port(None).map_err(Stopped::Refused)
    }

    /// Closes an event channel of the guest.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if it is Xen's or does not exist.
    pub fn close(&self, port: Port) -> Result<(), Stopped> {
        let mut world = self.model.shared.lock();
        match world.running(self.key)?.ports.get(&port.0) {
            Some(channel) if channel.waits.is_none() => {}
            _ => return Err(Stopped::Refused(Errno::INVAL)),
        }
        world.close_port(self.key.id, port);
        Ok(())
    }

    /// Notifies domain 0 (`EVTCHNOP_send`). An event to an unbound port is lost.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if the port is Xen's or does not exist.
    pub fn send(&self, port: Port) -> Result<(), Stopped> {
        let mut world = self.model.shared.lock();
        world.running(self.key)?;
        world.send(self.key, port).map_err(Stopped::Refused)
    }

    /// Waits for an event of a port and takes it. Events that arrive before it is taken are one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait(&self, port: Port) -> Result<(), Stopped> {
        self.until_arrival(&format!("an event on {port}"), |vcpu| {
            vcpu.try_take(port).map(|taken| taken.then_some(()))
        })
    }

    /// Takes the event of a port, if one is pending.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if there is no such port.
    pub fn try_take(&self, port: Port) -> Result<bool, Stopped> {
        let mut world = self.model.shared.lock();
        let channel = world.running(self.key)?.ports.get_mut(&port.0);
        let channel = channel.ok_or(Stopped::Refused(Errno::INVAL))?;
        Ok(core::mem::take(&mut channel.pending))
    }

    /// Waits for an MSI of this vector and takes it. MSIs that arrive before it is taken are one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait_msi(&self, vector: u8) -> Result<(), Stopped> {
        self.until_arrival(&format!("an MSI of vector {vector:#x}"), |vcpu| {
            vcpu.try_take_msi(vector).map(|taken| taken.then_some(()))
        })
    }

    /// Takes the MSI of this vector, if one is pending.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn try_take_msi(&self, vector: u8) -> Result<bool, Stopped> {
        let mut world = self.model.shared.lock();
        Ok(world.running(self.key)?.interrupts.pending.remove(&vector))
    }

    /// Waits for the interrupt of a line and takes it. The interrupt of a PCI line is pending again as
    /// long as the line is up.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait_line(&self, line: Line) -> Result<(), Stopped> {
        self.until_arrival(&format!("{line:?}"), |vcpu| {
            vcpu.try_take_line(line).map(|taken| taken.then_some(()))
        })
    }

    /// Takes the interrupt of a line, if one is pending.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn try_take_line(&self, line: Line) -> Result<bool, Stopped> {
        let mut world = self.model.shared.lock();
        Ok(world.running(self.key)?.take_line(line))
    }

    /// Waits until a line has risen more than `seen` times; returns the number of rising edges.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait_edge(&self, line: Line, seen: u64) -> Result<u64, Stopped> {
        self.until_arrival(&format!("edge {} of {line:?}", seen + 1), |vcpu| {
            let edges = vcpu.model.edges(vcpu.key.id, line);
            Ok((edges > seen).then_some(edges))
        })
    }

    fn until_arrival<T>(
        &self,
        what: &str,
        take: impl Fn(&Self) -> Result<Option<T>, Stopped>,
    ) -> Result<T, Stopped> {
        loop {
            let before = self.model.shared.lock().running(self.key)?.interrupts.arrivals;
            if let Some(taken) = take(self)? {
                return Ok(taken);
            }
            let mut world = self.model.shared.lock();
            let arrival = Arc::clone(&world.running(self.key)?.arrival);
            while world.running(self.key)?.interrupts.arrivals == before {
                self.state(&mut world)?.waiting.push(what.to_owned());
                world.wait(&arrival);
                let waiting = &mut self.state(&mut world)?.waiting;
                if let Some(done) = waiting.iter().position(|waits| waits == what) {
                    waiting.swap_remove(done);
                }
            }
        }
    }
}
