//! The tests, by subject. Each is a scenario on real Xen with the module as its engine.

mod access;
mod arguments;
mod callers;
mod calls;
mod channels;
mod common;
mod confined;
mod delivery;
mod fallback;
mod fdinfo;
mod irqs;
mod kernel_log;
mod leftovers;
mod lifecycle;
mod liveness;
mod mapped;
mod memory;
mod module;
mod node;
mod ownership;
mod ports;
mod privcmd;
mod processes;
mod random;
mod resume;
mod shared;
mod status;
mod trace;
mod waits;
mod wakeups;

pub(crate) use mapped::{read_memory, refused_of};
pub(crate) use processes::{give, give_copy, hold, own};
pub(crate) use resume::{aim, serve_and_resume};
pub(crate) use waits::assign_line;

use xen_eventfd_scenarios::Need::{Lines, Msi, Pio, Race};
use xen_eventfd_scenarios::Scenario;

macro_rules! tests {
    ($($module:ident::$name:ident, $needs:tt, $about:literal;)*) => {
        /// All tests; each builds on the ones before it.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            name: concat!(stringify!($module), "::", stringify!($name)),
            about: $about,
            needs: &$needs,
            body: $module::$name,
        }),*];
    };
}

tests! {
    node::root_alone, [], "only root can open the node";
    node::query, [], "QUERY returns version and limits, to callers of a later version too";
    node::requests, [], "a request of the other kind of file, or an unknown one, is ENOTTY";
    arguments::sizes, [], "a struct may be larger, not smaller, and its tail must be zero";
    arguments::pointers, [], "memory that cannot be read or written is EFAULT";
    arguments::fields, [], "every field is checked at its limits, as the header defines it";
    arguments::descriptors, [], "a file that is not an eventfd is refused where one is expected";
    arguments::doorbells, [], "which doorbell a deassign removes, and which two collide";
    privcmd::reads_ports, [], "no port is read for a refused request or a deassign";
    delivery::one_queue, [], "every one of 1,000 kicks is delivered";
    delivery::many_queues, [], "2 vCPUs, 3 devices, 4 queues: none lost, none on the wrong eventfd";
    delivery::vmm_beside, [], "a VMM keeps its registers and is never woken for a kick";
    delivery::full_eventfd, [], "a full eventfd stops no vCPU";
    delivery::held, [], "an unmatched kick is held and delivered when its eventfd comes";
    delivery::limit, [], "the limit of doorbells holds exactly";
    access::widths, [], "a doorbell is matched by width";
    access::notification_data, [], "a mask leaves NOTIFICATION_DATA out";
    access::wildcards, [], "a wildcard gets what the datamatches leave";
    access::ports, [Pio], "doorbells in I/O space";
    access::reads, [], "a read of a doorbell answers 0";
    access::odd, [Pio], "string instructions and broadcasts are answered";
    fallback::missed, [], "a fallback reports each distinct kick once, with its count";
    fallback::overflow, [], "kicks beyond a fallback's room are counted, and reported once";
    fallback::after_held, [], "a fallback reports the kicks that were held";
    fallback::lists, [Pio], "the lists of doorbells and of held kicks";
    irqs::event_channel, [], "each signal notifies the guest's event channel";
    irqs::own, [], "each signal injects the MSI, on Arm a pulse of the SPI";
    irqs::pending, [], "signals before the assignment raise one interrupt";
    irqs::last_signal, [], "a signal just before the end of an assignment is not lost";
    irqs::one_each, [], "an eventfd has one interrupt, of one guest";
    irqs::deassigned, [], "nothing is raised after deassign, and the eventfd counts again";
    irqs::closed, [], "an assignment ends with its eventfd";
    irqs::lines, [], "a guest gets no interrupt that it does not have, and those that Xen refuses are counted";
    irqs::from_a_kick, [], "a kick can raise an interrupt without a process in between";
    irqs::limit, [], "the limit of irqs holds exactly, and closing them makes room again";
    irqs::semaphore, [], "a write to a semaphore eventfd is one interrupt, the rest of its counter none";
    irqs::changed, [], "a change moves an eventfd to another interrupt, and a refused one changes nothing";
    irqs::masked, [], "signals while it is masked are pending, and unmask raises one interrupt";
    irqs::moved, [Race], "an interrupt that moves and is masked under load: each signal raises one";
    irqs::races, [Race], "deassign, the last close and a signal at once, 2,000 times";
    status::driver, [], "a driver reads InterruptStatus and acknowledges it, and the text shows it";
    status::collisions, [], "no byte is a doorbell's and a device's, and the limit of devices holds exactly";
    status::ended, [Race], "the registers end while a vCPU reads and acknowledges: no signal is lost, none comes later";
    channels::received, [], "every notification of an event channel is counted";
    channels::one_each, [], "an event channel has one eventfd, and its port can have an irqfd too";
    channels::pending, [], "a notification before the assignment is delivered at the assignment";
    channels::flood, [Race], "a flood on one guest's channel delays other guests' kicks only for a bounded time";
    channels::limit, [], "the limit of bound event channels for all callers holds exactly";
    ports::flood, [Race], "a flood of 8 vCPUs neither keeps an upcall going nor has the end of an event deferred";
    ports::no_waits, [Race], "of four vCPUs that kick back to back, no handler waits for a lock";
    ownership::one_owner, [], "a guest has one file, and another one only after that is closed";
    ownership::owner, [], "OWNER names the process that holds a guest";
    ownership::reserve, [], "a guest can be reserved for another engine";
    ownership::forked, [], "a file of one process ends with it, although a child has a copy";
    ownership::restrict, [], "a confined control file reaches no other guest";
    ownership::highest_id, [], "the server has the highest id";
    ownership::reset, [], "a guest that loses its server is reported as gone, and another engine's server stays";
    ownership::gone, [], "the end of a guest is signalled once, and every request then is ENODEV";
    shared::interrupts_beside, [], "interrupts and channels beside doorbells of the privcmd ABI";
    shared::any_order, [], "files share a guest in any order, each with its own assignments";
    shared::joined_during_close, [Race], "a file that joins while the last one is closed is not refused";
    liveness::alive, [], "checking whether a guest is alive neither pauses it nor creates a server";
    liveness::dead_and_findable, [], "the end of a reserved guest is signalled although another mapping keeps the domain";
    fdinfo::files, [Pio, Msi], "fdinfo and debugfs show the same text";
    fdinfo::reserved, [], "the text of a reserved guest names its holder";
    fdinfo::owner_ended, [], "an owner that has ended, or is in another PID namespace, has no process id";
    fdinfo::dead, [], "the text of a dead guest says that it is dead";
    trace::kicks, [Pio, Msi], "a tracepoint for each kick and for each interrupt";
    wakeups::none, [], "1,000 kicks wake no process";
    lifecycle::assign_under_load, [Race], "nothing is signalled after deassign returns";
    lifecycle::claim_under_load, [Race], "ranges are claimed and released while other doorbells are kicked";
    lifecycle::close_under_load, [Race], "close with vCPUs in the middle of kicks: the guest goes on";
    lifecycle::churn, [Race], "10,000 rounds of assign, deassign and close from two threads during kicks";
    lifecycle::owner_killed, [Race], "SIGKILL of the owner: the guest goes on, no server is left";
    lifecycle::guest_destroyed, [Race], "the guest is destroyed during kicks: ENODEV, and no zombie is left";
    lifecycle::handed_over, [Race], "a guest's file serves until the last of its processes closes it";
    mapped::shown, [], "a mapping shows what the guest writes, and the guest reads what is written to it";
    mapped::length, [], "an object tells its length, and no mapping goes beyond it, or is private";
    mapped::lazy, [], "nothing is mapped before it is touched, and then 2 MiB";
    mapped::missing, [], "a page that the guest does not have is SIGBUS, and those beside it are there";
    mapped::refusals, [], "no object beyond the guest's memory, of another guest, or beyond the limit";
    mapped::changed, [], "a mapping that is protected, moved and cut shows the same";
    mapped::guest_destroyed, [], "memory of a guest that is destroyed is unmapped: SIGBUS, and no zombie is left";
    mapped::process_killed, [], "nothing is left of a process that is killed with memory mapped";
    mapped::pinned, [], "the module does not unload while an object's file is open, or it is mapped";
    mapped::direct_io, [], "direct I/O reads into a guest's memory; in a PV domain it is EFAULT";
    mapped::referenced, [], "what I/O refers to is given back when that is over; in a PV domain there is no such I/O";
    memory::undo, [], "deassign and close allocate no memory";
    callers::random, [Race], "100,000 random calls during kicks: an errno each, and nothing is left";
    confined::caller, [], "50,000 calls through a file that is confined to a guest that dies: no other guest is affected";
    waits::xenstored_at_the_first_open, [], "a process that takes the first guest while xenstored is stopped can be killed";
    waits::xenstored_during_a_request, [Lines], "a process that waits for xenstore holds no lock, and can be killed";
    waits::end_of_another, [Race], "a guest's end is signalled while a caller is preempted with another guest's locks";
    module::between_opens, [Race], "the module unloads between two opens, up to 20 times, while a guest is taken during kicks";
    module::pinned, [], "the module does not unload while any process has a file open, and unloads afterwards";
    kernel_log::clean, [Race], "the kernel log has no warnings";
}
