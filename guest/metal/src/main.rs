//! The test guest: a PVH or an Arm guest without an operating system that carries out the script on its
//! command line, or drives a virtio disk ([`virtio`]). Xen enters in [`arch`]; then [`main`] runs, and [`vcpu::Guest::run`] on
//! every vCPU that has a section.
#![no_std]
#![no_main]

mod arch;
mod balloon;
mod console;
mod events;
mod hypercall;
mod image;
mod sync;
mod vcpu;
mod virtio;
mod xen;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use xen_eventfd_guest_script::{Program, Report};

use crate::console::CONSOLE;
use crate::events::Events;
use crate::sync::Once;
use crate::vcpu::{Guest, give_up};

static GUEST: Once<Guest> = Once::new();

/// The first vCPU, from `boot`, with the address of what Xen's tools pass.
extern "C" fn main(passed: u64) -> ! {
    if let Err(why) = arch::hypercall::install() {
        panic!("{why}");
    }
    // SAFETY: the first vCPU, and the only one so far.
    unsafe { arch::prepare(0) };
    let events = Events::map().unwrap_or_else(|why| give_up(format_args!("shared_info: {why}")));
    if let Err(why) = CONSOLE.connect(events) {
        give_up(format_args!("console: {why}"));
    }
    // SAFETY: Xen passed it; it lies outside of this program's image, and the program writes to nothing
    // else.
    let script = unsafe { arch::command_line(passed) }
        .and_then(|line| if line.is_empty() { image::script() } else { Ok(line) })
        .unwrap_or_else(|why| give_up(format_args!("{why}")));
    if let Some(task) = virtio::Task::parse(script) {
        task.run();
    }
    let program = Program::parse(script).unwrap_or_else(|why| give_up(format_args!("{why}")));
    let vcpus = program.vcpus();
    GUEST.set(Guest::new(program, events));
    for vcpu in 1..vcpus {
        // SAFETY: started here only, and the parser allows no more than MAX_VCPUS.
        if let Err(why) = unsafe { arch::start_vcpu(vcpu, second) } {
            give_up(format_args!(
                "v{vcpu} does not start; does the guest have that many vCPUs? {why}"
            ));
        }
    }
    run(0)
}

/// Any other vCPU.
extern "C" fn second(vcpu: usize) -> ! {
    // SAFETY: started once, with its own number.
    unsafe { arch::prepare(vcpu) };
    run(vcpu)
}

fn run(vcpu: usize) -> ! {
    match GUEST.get() {
        Some(guest) => guest.run(vcpu),
        None => panic!("started before its script"),
    }
}

/// Set by the first vCPU that faults.
static FAULTED: AtomicBool = AtomicBool::new(false);

/// A processor exception, none of which is expected.
extern "C" fn fault(vector: u64, error: u64, rip: u64, address: u64) -> ! {
    let vector = u8::try_from(vector).unwrap_or(u8::MAX);
    let report = Report::Fault { vector, rip, error, address };
    if FAULTED.swap(true, Ordering::Relaxed) {
        // The report of the first fault may have faulted: report without hypercalls, and stay.
        console::debug(format_args!("{report}"));
        arch::stop();
    }
    CONSOLE.last_line(format_args!("{report}"));
    xen::shutdown(xen::Reason::Crash)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    CONSOLE.last_line(format_args!("guest error: {info}"));
    xen::shutdown(xen::Reason::Crash)
}
