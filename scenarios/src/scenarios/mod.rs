//! The scenarios, by subject.

mod access;
mod churn;
mod confined;
mod crash;
mod delivery;
mod device;
mod hostile;
mod identity;
mod interrupt;

use crate::Need::{Lines, Msi, Pio, Race, Spi};
use crate::Scenario;
use xen_eventfd::{Irq, Line, Trigger};
use xen_eventfd_core::irq::Arch;

/// The first device's registers.
const BASE: u64 = 0xFE00_0000;
/// virtio-mmio's QueueNotify.
const NOTIFY: u64 = 0x50;
/// The first device's doorbell.
const DOORBELL: u64 = BASE + NOTIFY;

/// An MSI to a vCPU of an x86 guest.
fn msi(vcpu: u64, vector: u32) -> Irq {
    // A local APIC's id is twice its vCPU's number.
    Irq::Msi { addr: 0xFEE0_0000 | (vcpu * 2) << 12, data: vector }
}

/// What a guest that listens for an MSI with this vector on this vCPU takes, the one interrupt that every engine supports:
/// on Arm the SPI of that number.
pub fn call_irq(arch: Arch, vcpu: u64, vector: u32) -> Irq {
    match arch {
        Arch::X86 => msi(vcpu, vector),
        Arch::Arm => Irq::Line(Line::Spi(vector), Trigger::Pulse),
    }
}

macro_rules! scenarios {
    ($($file:ident::$name:ident, $needs:tt, $about:literal;)*) => {
        /// All scenarios; each builds on the ones before it.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: $about,
            needs: &$needs,
            body: $file::$name,
        }),*];
    };
}

scenarios! {
    delivery::one_queue, [], "every one of 1,000 kicks is delivered";
    delivery::many_queues, [], "2 vCPUs, 3 devices, 4 queues: none lost, none on the wrong eventfd";
    delivery::vmm_beside, [], "a VMM keeps its registers and is never woken for a kick";
    delivery::full_eventfd, [], "a backend that leaves its eventfd full stops no vCPU";
    delivery::vector_registers, [Pio], "threads that compute beside kicks keep their vector registers";
    access::widths, [], "a doorbell is matched by width";
    access::notification_data, [], "a mask leaves NOTIFICATION_DATA out";
    access::doorbell_read, [], "a read of a doorbell answers 0";
    access::wildcard_beside, [], "a wildcard gets what the datamatches leave";
    access::fallback, [], "a fallback reports the writes that no other filter matched";
    access::held, [], "an unmatched kick is held and delivered when its eventfd comes";
    access::before_the_claim, [], "kicks before the first registration go to the VMM";
    access::claimed_by_a_wildcard, [], "a wildcard keeps a doorbell's bytes claimed while the filters beside it come and go";
    access::string_writes, [Pio], "string instructions are answered";
    access::ports, [Pio], "doorbells in I/O space";
    access::memory_given_back, [], "Xen's broadcasts between kicks are answered";
    churn::assign_under_load, [Race], "nothing is signalled after deassign returns";
    churn::claim_under_load, [Race], "ranges are claimed and released under load, no kick is lost";
    churn::hand_over, [Race], "a queue goes to the VMM and back and loses nothing";
    churn::close_under_load, [Race], "a guest is closed with kicks in flight, and no kick is lost";
    churn::closed_while_paused, [], "a guest is closed while it is paused amid kicks, and goes on when it runs again";
    crash::killed, [Race], "SIGKILL at every step, no restart: all vCPUs of the guest go on";
    crash::killed_and_restarted, [Race], "SIGKILL at every step, then another engine: the guest goes on";
    crash::killed_while_serving, [Race], "SIGKILL at any moment: the guest goes on";
    crash::guest_destroyed, [Race], "the guest is destroyed with kicks in flight: no zombie is left";
    crash::soft_reset, [Race, Lines], "a guest is still served after a soft reset";
    interrupt::event_channel, [], "eventfd to guest by event channel, 1,000 times";
    interrupt::msi, [Msi], "eventfd to guest by MSI, 1,000 times";
    interrupt::pending_at_assign, [], "signals before the irqfd was assigned count";
    interrupt::pending_msi, [Msi], "the same by MSI";
    interrupt::last_signal, [], "a signal just before the end of an irqfd is not lost";
    interrupt::last_msi, [Msi], "the same by MSI";
    interrupt::isa_line, [Lines], "eventfd to an HVM guest by an ISA line, 1,000 times";
    interrupt::pci_line, [Lines], "a PCI device's line interrupts until it is lowered, 100 times";
    interrupt::spi, [Spi], "eventfd to an Arm guest by a shared peripheral interrupt, 1,000 times";
    interrupt::spi_level, [Spi], "the same level-triggered, raised and lowered 100 times";
    interrupt::status_event_channel, [], "InterruptStatus is read and acknowledged 100 times, and the VMM sleeps";
    interrupt::status_msi, [Msi], "the same by MSI";
    interrupt::status_spi, [Spi], "the same by an SPI that is pulsed";
    interrupt::status_spi_level, [Spi], "the same by a level-triggered SPI, which falls with each acknowledgement";
    interrupt::status_isa_line, [Lines], "the same by a level-triggered line, which falls with each acknowledgement";
    interrupt::moved_vector, [Race, Msi], "an MSI vector that moves and is masked under load: no signal lost, none stale";
    interrupt::channel_to_eventfd, [], "event channel to eventfd, 200 times";
    interrupt::channel_flood, [Race], "a flood on one event channel delays kicks only for a bounded time";
    identity::vmm_first, [Race], "a VMM that starts before the engine";
    identity::vmm_after, [Race], "a VMM that starts after the engine, and again";
    identity::hole_in_the_ids, [Race], "the engine takes the highest id, not the lowest free one";
    identity::all_taken, [], "no server is left for the engine: the error says so";
    identity::second_engine, [Race], "another engine for the same guest is refused, and the error names the holder";
    device::device_process, [], "foreign memory, a channel in the guest's name, a xenstore that is written to";
    confined::confined, [], "an engine without privileges serves the one guest to which its devices are confined";
    confined::confined_loop, [], "the same with the engine driven by the program's own loop";
    hostile::hostile_guest, [Race], "every access of two vCPUs to doorbells is answered once, by its expected receiver";
    hostile::hostile_channel, [Race], "a guest that floods an event channel delays other guests' kicks only for a bounded time";
    hostile::hostile_backend, [Race], "a backend that leaves its eventfd full and blocking delays kicks only for a bounded time";
}
