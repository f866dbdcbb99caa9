//! `docs/from-kvm.md` says what compiles: each row of its table and each name on it is here too, with
//! the real crates of both sides. Its programs are documentation tests.

use kvm_ioctls::{Kvm, VmFd};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use vmm_sys_util::{errno, eventfd::EventFd};
use xen_eventfd::{
    Builder, Driver, Error, Guest, InterruptStatus, IoEvent, IrqFd, Line, Port, Result, Trigger,
    Xen,
};

/// A row of the page's table: what there is on KVM, and what there is here.
type Row = (Option<String>, Option<String>);

fn squeezed(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

/// Code in backticks, without the space in it.
fn quoted(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('`').skip(1).step_by(2).map(squeezed)
}

/// The page without its programs.
fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/from-kvm.md");
    std::fs::read_to_string(page).unwrap().split("```").step_by(2).collect()
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').collect()
}

fn is_row(line: &&str) -> bool {
    line.starts_with("| ") && !line.starts_with("| kvm-ioctls")
}

macro_rules! rows {
    // The names are given, as those of a macro's own are hidden from the code that it is given.
    (($kvm:ident $vm:ident $xen:ident $guest:ident $irqfd:ident $port:ident $error:ident)
     ($fd:ident $addr:ident $resample:ident)
     $({ $($theirs:expr)? } { $($ours:expr)? })*) => {
        /// Is compiled, and never called: a test needs no `/dev/kvm`.
        #[expect(dead_code)]
        fn on_kvm(
            $kvm: &Kvm, $vm: &VmFd, $fd: EventFd, $resample: EventFd,
        ) -> core::result::Result<(), errno::Error> {
            use kvm_ioctls::{IoEventAddress, NoDatamatch};
            let $addr = IoEventAddress::Mmio(0xfe00_0050);
            $($(let _there = $theirs;)?)*
            Ok(())
        }

        /// The same for what is on no machine but Xen's.
        #[expect(dead_code)]
        fn on_xen(
            $xen: &Xen, $guest: &Guest, $irqfd: &IrqFd, $fd: EventFd, $port: Port, $error: &Error,
        ) -> Result<()> {
            use xen_eventfd::{AnyValue, Datamatch, IoEventAddress, Irq, Masked, NoDatamatch, Width};
            let $addr = IoEventAddress::Mmio(0xfe00_0050);
            $($(let _here = $ours;)?)*
            Ok(())
        }

        fn rows() -> Vec<Row> {
            let code = |code: &[&str]| code.first().map(|code| squeezed(code));
            vec![$((code(&[$(stringify!($theirs))?]), code(&[$(stringify!($ours))?]))),*]
        }
    };
}

rows! { (kvm vm xen guest irqfd port error) (fd addr resample)
    { Kvm::new()? } { Xen::new()? }
    { kvm.create_vm()? } { xen.guest(xen.find("guest")?.id)? }
    { vm.register_ioevent(&fd, &addr, 3_u32)? } { guest.register_ioevent(&fd, &addr, 3_u32)? }
    { vm.unregister_ioevent(&fd, &addr, 3_u32)? } { guest.unregister_ioevent(&fd, &addr, 3_u32)? }
    { IoEventAddress::Mmio(0xfe00_0050) } { IoEventAddress::Mmio(0xfe00_0050) }
    { IoEventAddress::Pio(0xc050) } { IoEventAddress::Pio(0xc050) }
    { NoDatamatch } { NoDatamatch(4) }
    { } { AnyValue(Width::Four) }
    { } { Masked { width: Width::Four, value: 3, mask: 0xffff } }
    { } { Datamatch::from(None::<u32>) }
    { } { Datamatch::any_length(4) }
    { vm.register_irqfd(&fd, 5)? } { guest.register_irqfd(&fd, Irq::Line(Line::Isa(5), Trigger::Pulse))? }
    { } { Irq::Msi { addr: 0xfee0_0000, data: 0x41 } }
    { } { Irq::EventChannel(port) }
    { vm.unregister_irqfd(&fd, 5)? } { guest.unregister_irqfd(&fd, Irq::Line(Line::Isa(5), Trigger::Pulse))? }
    { vm.register_irqfd_with_resample(&fd, &resample, 5)? } { }
    { } { guest.register_interrupt_status(0xfe00_0060, Irq::EventChannel(port))? }
    { } { guest.register_irqfd(&fd, Irq::Status { addr: 0xfe00_0060, bits: InterruptStatus::USED_BUFFER })? }
    { } { guest.register_channel(&fd, port)? }
    { } { irqfd.set_irq(Irq::Msi { addr: 0xfee0_0000, data: 0x42 })? }
    { } { irqfd.mask()? }
    { } { guest.unregister_channel(&fd, port)? }
    { } { guest.unregister_all(&fd, Some(&addr))? }
    { } { guest.register_fallback(&fd, &addr, 4)? }
    { } { xen.driver() }
    { errno::Error::last() } { error.errno() }
}

macro_rules! names {
    (types $($type:ty),*; traits $($trait:path),*; calls $($call:path),*; variants $($variant:path),*;) => {
        fn names() -> BTreeSet<String> {
            $(let _ = size_of::<$type>();)*
            $({ #[expect(unused_imports)] use $trait as _; })*
            $(let _ = $call;)*
            $(let _ = |value| matches!(value, $variant { .. });)*
            let names = [
                $(stringify!($type),)* $(stringify!($trait),)* $(stringify!($call),)*
                $(stringify!($variant)),*
            ];
            // Of a generic type the page gives the name.
            names.map(|name| squeezed(name.split('<').next().unwrap())).into()
        }
    };
}

names! {
    types VmFd, Guest, Driver, Error, EventFd, Arc<EventFd>;
    traits AsFd;
    calls Builder::without_threads, Driver::process, IoEvent::keep, IrqFd::lower, IrqFd::is_pending, IrqFd::unmask, Builder::guardian, Guest::counters, Guest::is_guarded;
    variants Error::InUse, Error::Host, Error::Busy, Line::Isa, Line::PciIntx, Line::Spi, Trigger::Level;
}

#[test]
fn each_row_of_the_table_is_compiled() {
    let page = page();
    let cell = |cell: &&str| quoted(cell).next();
    let stated: Vec<Row> = page
        .lines()
        .filter(is_row)
        .map(|line| {
            let cells = cells(line);
            (cell(&cells[0]), cell(&cells[1]))
        })
        .collect();
    assert_eq!(stated, rows(), "the page is on the left, what is compiled on the right");
}

#[test]
fn each_name_on_the_page_is_compiled() {
    let page = page();
    let is_name = |word: &String| word.starts_with(|c: char| c.is_ascii_uppercase());
    let beside = |line| if is_row(&line) { cells(line)[2] } else { line };
    let stated: BTreeSet<String> =
        page.lines().map(beside).flat_map(quoted).filter(is_name).collect();
    assert_eq!(stated, names(), "the page is on the left, what is compiled on the right");
}
