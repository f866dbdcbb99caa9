//! A queue that runs: its two eventfds, and what the engine knows of them.

use crate::error::Result;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen_eventfd::{Guest, InterruptStatus, IoEvent, IoEventAddress, Irq, IrqFd, Registered};
use xen_eventfd_vhost::Queue as Ring;
use xen_eventfd_virtio::{Message, Route};

/// A queue that its backend serves. Dropping it takes its kicks and calls from the engine.
#[derive(Debug)]
pub(crate) struct Queue {
    index: u16,
    /// Where it is in the guest.
    ring: Ring,
    kick: OwnedFd,
    call: OwnedFd,
    doorbell: Option<IoEvent>,
    irqfd: Option<IrqFd>,
    is_masked: bool,
}

impl Queue {
    /// A queue whose calls take `route` from the start; `status` as [`Queue::reroute`] has it.
    pub(crate) fn new(
        guest: &Guest,
        index: u16,
        ring: Ring,
        route: Route,
        status: Option<&InterruptStatus>,
    ) -> Result<Self> {
        let new = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (kick, call) = (new()?, new()?);
        let (doorbell, irqfd) = (None, None);
        let mut queue = Self { index, ring, kick, call, doorbell, irqfd, is_masked: false };
        queue.reroute(guest, route, status)?;
        Ok(queue)
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) fn kick(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    pub(crate) fn call(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Takes kicks at a doorbell, and no more at the one before. The value is the queue's index: of 2 bytes at a port,
    /// and of 4 at a register of virtio-mmio.
    pub(crate) fn listen(&mut self, guest: &Guest, at: Option<IoEventAddress>) -> Result<()> {
        self.doorbell = None;
        if let Some(at) = at {
            self.doorbell = Some(match at {
                IoEventAddress::Pio(_) => guest.register_ioevent(&self.kick, &at, self.index)?,
                IoEventAddress::Mmio(_) => {
                    guest.register_ioevent(&self.kick, &at, u32::from(self.index))?
                }
            });
        }
        Ok(())
    }

    /// Routes calls another way. What is pending is still pending. `status` is that of a device on virtio-mmio.
    pub(crate) fn reroute(
        &mut self,
        guest: &Guest,
        route: Route,
        status: Option<&InterruptStatus>,
    ) -> Result<()> {
        match (route, status) {
            (Route::InterruptStatus, Some(status)) => {
                let used = status.irq(InterruptStatus::USED_BUFFER);
                self.irqfd = Some(guest.register_irqfd(&self.call, used)?);
                Ok(())
            }
            (Route::Message(message), _) if irq(message).check().is_ok() => {
                match &self.irqfd {
                    Some(irqfd) => irqfd.set_irq(irq(message))?,
                    None => self.irqfd = Some(guest.register_irqfd(&self.call, irq(message))?),
                }
                self.mask(false)
            }
            (Route::Masked, _) => {
                if self.irqfd.is_none() {
                    // It is replaced before it is unmasked.
                    let none = irq(Message { addr: 0xFEE0_0000, data: 0 });
                    self.irqfd = Some(guest.register_irqfd(&self.call, none)?);
                }
                self.mask(true)
            }
            // A message to an address at which no processor takes any is none.
            (Route::Message(_) | Route::Nowhere | Route::Line | Route::InterruptStatus, _) => {
                self.irqfd = None;
                self.is_masked = false;
                Ok(())
            }
        }
    }

    fn mask(&mut self, masked: bool) -> Result<()> {
        if let Some(irqfd) = self.irqfd.as_ref().filter(|_| self.is_masked != masked) {
            if masked {
                irqfd.mask()?
            } else {
                irqfd.unmask()?
            }
            self.is_masked = masked;
        }
        Ok(())
    }

    /// How often the guest has kicked it, of what the engine has registered, since its doorbell is where it is.
    pub(crate) fn kicks(&self, registered: &[Registered]) -> u64 {
        let own = self.doorbell.as_ref().map(IoEvent::doorbell);
        let mut registered = registered.iter();
        registered.find(|other| Some(&other.doorbell) == own).map_or(0, |own| own.kicks)
    }

    /// How many interrupts its calls have raised since they have a route.
    pub(crate) fn interrupts(&self) -> u64 {
        self.irqfd.as_ref().map_or(0, IrqFd::raised)
    }

    /// Whether a call waits for the vector to be unmasked.
    pub(crate) fn is_pending(&self) -> bool {
        // It fails only if the guest is gone.
        self.irqfd.as_ref().is_some_and(|irqfd| irqfd.is_pending().unwrap_or(false))
    }
}

fn irq(message: Message) -> Irq {
    Irq::Msi { addr: message.addr, data: message.data }
}
