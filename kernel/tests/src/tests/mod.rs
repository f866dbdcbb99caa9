//! The tests, by subject. Each is a scenario on real Xen with the module as its engine.

mod access;
mod arguments;
mod asked;
mod callers;
mod calls;
mod channels;
mod common;
mod confined;
mod delivery;
mod fallback;
mod irqs;
mod kernel_log;
mod left;
mod lifecycle;
mod memory;
mod module;
mod node;
mod ownership;
mod ports;
mod privcmd;
mod processes;
mod random;
mod shared;
mod shown;
mod trace;
mod waits;
mod wakeups;

pub(crate) use processes::{give, hold, own};
pub(crate) use waits::assign_line;

use xen_eventfd_scenarios::Scenario;

macro_rules! tests {
    ($($room:ident::$name:ident, $race:literal, $about:literal;)*) => {
        /// All of them, in the order in which they build on each other.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            name: concat!(stringify!($room), "::", stringify!($name)),
            about: $about,
            race: $race,
            body: $room::$name,
        }),*];
    };
}

tests! {
    node::root_alone, false, "the node is root's";
    node::query, false, "it says what it is, to later callers too";
    node::requests, false, "a request of the other file, or of nobody, is ENOTTY";
    arguments::sizes, false, "a struct may be larger, not smaller, and has nothing in its tail";
    arguments::pointers, false, "what cannot be read or written is EFAULT";
    arguments::fields, false, "every field, at its edges, is as the header has it";
    arguments::descriptors, false, "what is no eventfd is refused where one is wanted";
    arguments::doorbells, false, "which doorbell is meant, and which two cannot stand side by side";
    privcmd::reads_ports, false, "no port is read for a request that is refused or takes something back";
    delivery::one_queue, false, "every one of 1,000 kicks is delivered";
    delivery::many_queues, false, "2 vCPUs, 3 devices, 4 queues: none lost, none on the wrong eventfd";
    delivery::vmm_beside, false, "a VMM keeps its registers and is never woken for a kick";
    delivery::full_eventfd, false, "an eventfd that is full stops nobody";
    delivery::held, false, "an unmatched kick is held and delivered when its eventfd comes";
    delivery::limit, false, "as many doorbells as the module says, and not one more";
    access::widths, false, "a doorbell is matched by width";
    access::notification_data, false, "a mask leaves NOTIFICATION_DATA out";
    access::wildcards, false, "a wildcard gets what the datamatches leave";
    access::ports, false, "doorbells in I/O space";
    access::reads, false, "a read of a doorbell answers 0";
    access::odd, false, "string instructions and broadcasts are answered";
    fallback::missed, false, "a fallback tells each distinct kick once, and how often it came";
    fallback::overflow, false, "what finds no place is counted, and told once";
    fallback::after_held, false, "a fallback is told of what was held";
    fallback::lists, false, "the lists of doorbells and of held kicks";
    irqs::event_channel, false, "each signal rings the guest's event channel";
    irqs::msi, false, "each signal injects the message";
    irqs::pending, false, "what was signalled before the assignment raises one interrupt";
    irqs::last_signal, false, "a signal just before the end of an assignment is not lost";
    irqs::one_each, false, "an eventfd raises one interrupt, of one guest";
    irqs::deassigned, false, "nothing is raised after deassign, and the eventfd counts again";
    irqs::closed, false, "an assignment ends with its eventfd";
    irqs::lines, false, "a guest without lines gets none, and what Xen refuses is counted";
    irqs::of_a_kick, false, "a kick may raise an interrupt, without anybody between";
    irqs::limit, false, "as many irqs as the module says, and room again once they are closed";
    irqs::semaphore, false, "a write to a semaphore is one interrupt, and its rest none";
    irqs::changed, false, "an eventfd raises another interrupt from then on, and what is refused changes nothing";
    irqs::masked, false, "what comes while it is masked is pending, and raised once by unmask";
    irqs::moved, true, "an interrupt that moves and is masked under load: each signal raises one";
    irqs::races, true, "deassign, the last close and a signal at once, 2,000 times";
    channels::heard, false, "every ring of an event channel is counted";
    channels::one_each, false, "an event channel has one eventfd, and its port may ring back";
    channels::missed, false, "a ring that nobody heard is there for who begins to listen";
    channels::flood, true, "a flood on one guest's channel delays no other guest's kicks for ever";
    channels::limit, false, "so many event channels are bound for all callers, and not one more";
    ports::flood, true, "a flood of 8 vCPUs has the end of no event deferred, its own or a neighbour's";
    ownership::one_owner, false, "a guest has one file, and the next one when that is closed";
    ownership::owner, false, "who holds a guest is told";
    ownership::reserve, false, "a guest can be kept for another engine";
    ownership::restrict, false, "a control file that is confined touches no other guest";
    ownership::highest_id, false, "the server has the highest id";
    ownership::reset, false, "a guest that keeps its number and loses its servers is told gone";
    ownership::gone, false, "the end of a guest is told once, and every request then is ENODEV";
    shared::interrupts_beside, false, "interrupts and channels stand beside doorbells of privcmd's requests";
    shared::whoever_comes_first, false, "files share a guest in whatever order they come, each with its own";
    shared::joined_while_left, true, "who joins while the last one leaves is not refused";
    asked::lives, false, "a guest is neither paused nor given a server to learn if it lives";
    asked::dead_and_findable, false, "a dead guest that is kept is told, though another's mapping holds it";
    shown::files, false, "fdinfo and debugfs show a guest alike";
    shown::reserved, false, "of a guest that is only kept, who keeps it";
    shown::owner_ended, false, "an owner that has ended, or is of another namespace, has no number";
    shown::dead, false, "of a dead guest, that it is dead";
    trace::kicks, false, "a tracepoint for each kick and for each interrupt";
    wakeups::none, false, "1,000 kicks wake no process";
    lifecycle::assign_under_load, true, "nothing is signalled after deassign returns";
    lifecycle::claim_under_load, true, "bytes are claimed and given back while others ring";
    lifecycle::close_under_load, true, "close with vCPUs in the middle of kicks: the guest goes on";
    lifecycle::churn, true, "10,000 rounds of assign, deassign and close from two threads amid kicks";
    lifecycle::owner_killed, true, "SIGKILL of the owner: the guest goes on, no server is left";
    lifecycle::guest_destroyed, true, "the guest is destroyed amid kicks: ENODEV, and no zombie is left";
    lifecycle::handed_over, true, "a guest's file serves until the last of its processes closes it";
    memory::undo, false, "to take something back, and to close, needs no memory";
    callers::random, true, "100,000 random calls amid kicks: an errno each, and nothing is left";
    confined::caller, false, "50,000 calls by who is confined to a guest that dies: no other is touched";
    waits::xenstored_at_the_first, false, "who takes the first guest while xenstore is silent can be killed";
    waits::xenstored_amid_a_request, false, "who waits for xenstore has no lock, and can be killed";
    waits::end_of_another, true, "a guest's end is told while a caller is stopped with another's locks";
    module::amid_opens, true, "it goes between two opens, up to 20 times, while a guest is taken amid kicks";
    module::pinned, false, "the module cannot go while a file is open, whoever has it, and goes then";
    kernel_log::clean, true, "the kernel has nothing to complain of";
}
