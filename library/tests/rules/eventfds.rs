//! Every verb takes an eventfd as its caller has it.

use crate::bench::{AT, Bench, event, until_readable};
use rustix::event::{EventfdFlags, eventfd};
use std::fs::File;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use xen_eventfd::{AsEventFd, Guest, Irq};

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };

/// Kicks, falls back, interrupts and listens by one eventfd, and takes back what it registered.
fn all_verbs<By>(bench: &Bench, guest: &Guest, eventfd: &impl AsEventFd<By>) {
    let vcpu = bench.vcpu(0);
    guest.register_ioevent(eventfd, &AT, 3_u32).unwrap().keep();
    bench.kick(0, 3);
    until_readable(eventfd.as_eventfd(), "the kick");
    take(eventfd);
    guest.unregister_ioevent(eventfd, &AT, 3_u32).unwrap();

    let fallback = guest.register_fallback(eventfd, &AT, 4).unwrap();
    bench.kick(0, 9);
    until_readable(eventfd.as_eventfd(), "what nothing else takes");
    take(eventfd);
    drop(fallback);

    guest.register_irqfd(eventfd, MSI).unwrap().keep();
    rustix::io::write(eventfd.as_eventfd(), &1_u64.to_ne_bytes()).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    guest.unregister_irqfd(eventfd, MSI).unwrap();

    let port = vcpu.alloc_unbound().unwrap();
    let channel = guest.register_channel(eventfd, port).unwrap();
    vcpu.send(port).unwrap();
    until_readable(eventfd.as_eventfd(), "the guest's event");
    drop(channel);
    take(eventfd);
    assert!(guest.registered().is_empty());
}

fn take<By>(eventfd: &impl AsEventFd<By>) {
    rustix::io::read(eventfd.as_eventfd(), &mut [0; 8]).unwrap();
}

#[test]
fn every_verb_takes_the_eventfd_of_rust_vmm() {
    let bench = Bench::new();
    let guest = bench.attach();
    let eventfd = EventFd::new(EFD_NONBLOCK).unwrap();
    all_verbs(&bench, &guest, &eventfd);
    all_verbs(&bench, &guest, &&eventfd);
    all_verbs(&bench, &guest, &Box::new(eventfd.try_clone().unwrap()));
    all_verbs(&bench, &guest, &Rc::new(eventfd.try_clone().unwrap()));
    let shared: Arc<EventFd> = Arc::new(eventfd);
    all_verbs(&bench, &guest, &shared);
}

#[test]
fn every_verb_takes_whatever_is_as_fd() {
    /// A type of the caller's own.
    struct Queue(EventFdOfStd);
    type EventFdOfStd = std::os::fd::OwnedFd;
    impl AsFd for Queue {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
    fn any(bench: &Bench, guest: &Guest, fd: &impl AsFd) {
        all_verbs(bench, guest, fd);
    }
    let bench = Bench::new();
    let guest = bench.attach();
    let eventfd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    all_verbs(&bench, &guest, &eventfd);
    all_verbs(&bench, &guest, &eventfd.as_fd());
    all_verbs(&bench, &guest, &File::from(eventfd));
    all_verbs(&bench, &guest, &Arc::new(event()));
    any(&bench, &guest, &Queue(event()));
}
