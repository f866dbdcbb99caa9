//! The script of the test guest, and its reports.
//!
//! A test writes its *script* as text: the guest's command line. [`Program::parse`] checks the whole
//! script before anything runs, and [`Program::run`] carries out one vCPU's section on a [`Machine`].
//! The bare-metal guest on real Xen is one machine, threads on the in-process model are another, so
//! one text drives both. The guest's reports are lines that [`Report::parse`] parses.
//!
//! # Grammar
//!
//! One section for each vCPU, separated by `|`; statements separated by `;`; tokens separated by
//! blanks. Numbers are decimal or `0x` hex. A *place* is `mmio:0xADDR` (below 4 GiB) or `pio:0xPORT`.
//! A *width* is 1, 2, 4 or, for MMIO, 8. A *value* is a number, or `i` or `i+K` for the counter of
//! the innermost loop.
//!
//! | statement | effect |
//! |---|---|
//! | `write PLACE WIDTH VALUE` | one store or `out` |
//! | `read PLACE WIDTH` | one load or `in`; reports `v0 read PLACE WIDTH = 0x..` |
//! | `peek PLACE WIDTH` | the same without a report |
//! | `rep PLACE WIDTH VALUE COUNT` | one `rep stos` or `rep outs` of COUNT elements |
//! | `repeat N` … `end` | the body N times; loops nest up to [`MAX_NESTING`] |
//! | `until NAME` … `end` | the body until an event on NAME, which is consumed; reports `v0 rounds NAME = ..` |
//! | `meet` | all vCPUs wait for each other |
//! | `pause N` | N pause instructions |
//! | `listen evtchn NAME` | an unbound event channel for domain 0; reports `v0 port NAME = ..` |
//! | `listen msi VECTOR NAME` | count the interrupts on VECTOR; reports `v0 vector NAME = 0x..` |
//! | `listen isa IRQ NAME` | count the interrupts of an ISA line of an HVM guest; reports as before |
//! | `listen intx DEVICE PIN NAME` | count the interrupts of a PCI device's pin, 0 for INTA; only this vCPU takes them |
//! | `listen spi N edge NAME` | count the interrupts of an Arm guest's SPI, 32 to 255; `level` in place of `edge`: only this vCPU takes them |
//! | `wait NAME [N]` | sleep until N more events on NAME have been taken |
//! | `send NAME [N]` | notify the other end of event channel NAME, N times |
//! | `balloon N` | return N pages to Xen, one hypercall each |
//! | `time write PLACE WIDTH VALUE N` | N timed writes; reports `v0 ticks min = .. median = .. p99 = .. max = .. n = ..` |
//! | `stamp write PLACE WIDTH VALUE N` | N writes; records the time before and after each |
//! | `stamp wait NAME N` | takes N events on NAME; records the time after each |
//! | `stamps` | reports the times that this vCPU recorded last: `v0 stamps 0x.. 0x.. ..`, in several lines |
//! | `say WORDS` | reports `v0 say WORDS` |
//! | `soft-reset` | the whole guest shuts down, and runs again once Xen has reset it |
//! | `poweroff`, `crash` | the whole guest ends |
//!
//! A name belongs to one `listen`, outside any loop, on any vCPU; every vCPU may use it, and one
//! that is early waits until the `listen` has run. An event is consumed once, by one
//! vCPU; events that merged on an event channel before they were taken count as one. All sections
//! `meet` equally often, never inside `until`.
#![no_std]
#![forbid(unsafe_code)]

mod error;
pub mod image;
mod machine;
mod parse;
mod place;
mod program;
mod report;
mod statement;

pub use error::{Reason, ScriptError};
pub use machine::Machine;
pub use place::{Place, Width};
pub use program::Program;
pub use report::{NotAReport, Report, Stamps, Ticks};
pub use statement::{LEVELS, Line, Listener, ListenerId, Source};

/// Most sections, hence vCPUs, of a program.
pub const MAX_VCPUS: usize = 8;
/// Most statements of a program, `end`s included.
pub const MAX_STATEMENTS: usize = 192;
/// Most names of a program.
pub const MAX_LISTENERS: usize = 16;
/// How deep loops nest.
pub const MAX_NESTING: usize = 4;
/// Most writes that one `time` measures.
pub const MAX_SAMPLES: usize = 4096;
/// Most bytes that one `rep` writes: the source of a `rep outs` is a page.
pub const MAX_REP_BYTES: u64 = 4096;
