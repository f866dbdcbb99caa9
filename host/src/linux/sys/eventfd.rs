//! `/dev/xen/eventfd`: this project's `kernel/uapi/xen-eventfd.h`.

use core::marker::PhantomData;
use rustix::ioctl::{Opcode, opcode};

/// A struct that a request takes.
///
/// # Safety
/// The type is a struct of the header: `repr(C)`, integers only, without compiler padding,
/// so that any bytes are a value of it. It begins with its size.
pub(in crate::linux) unsafe trait Argument: Default {}

/// A request, and its struct.
pub(in crate::linux) struct Request<A>(pub(in crate::linux) Opcode, PhantomData<A>);

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident $c:ident $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug)]
            pub(in crate::linux) struct $name {
                pub(in crate::linux) size: u32,
                $(pub(in crate::linux) $field: $type),*
            }

            // SAFETY: repr(C), integers only, without padding: the sizes are compared here.
            unsafe impl Argument for $name {}

            const _: () = {
                assert!(size_of::<$name>() == $size);
                assert!($size == size_of::<u32>() $(+ size_of::<$type>())*);
            };

            impl Default for $name {
                fn default() -> Self {
                    Self { size: $size, $($field: Default::default()),* }
                }
            }
        )*

        /// The struct's name in the header, its size, and the offset of each field.
        #[cfg(test)]
        const LAYOUTS: &[(&str, usize, &[(&str, usize)])] = &[$((
            stringify!($c),
            $size,
            &[("size", 0), $((stringify!($field), core::mem::offset_of!($name, $field))),*],
        )),*];
    };
}

macro_rules! requests {
    ($($name:ident $number:literal $argument:ident)*) => {
        $(pub(in crate::linux) const $name: Request<$argument> =
            Request(opcode::none(0xEF, $number), PhantomData);)*

        /// Each request's name in the header, without the prefix.
        #[cfg(test)]
        const REQUESTS: &[(&str, Opcode)] = &[$((stringify!($name), $name.0)),*];
    };
}

arguments! {
    /// `struct xen_eventfd_query`.
    Query xen_eventfd_query 32 {
        abi: u32, features: u64, max_doorbells: u32, max_held: u32, max_missed: u32, max_irqs: u32,
    }
    /// `struct xen_eventfd_create`; the new file descriptor is the ioctl's result.
    Create xen_eventfd_create 16 { flags: u32, dom: u16, pad: u16, gone: i32 }
    /// `struct xen_eventfd_owner`.
    Owner xen_eventfd_owner 28 { dom: u16, pad: u16, pid: i32, name: [u8; 16] }
    /// `struct xen_eventfd_doorbell`.
    Doorbell xen_eventfd_doorbell 48 {
        flags: u32, space: u32, kind: u32, len: u32, eventfd: i32,
        addr: u64, datamatch: u64, datamask: u64,
    }
    /// `struct xen_eventfd_stats`.
    Stats xen_eventfd_stats 72 {
        server: u16, doorbells: u16, delivered: u64, held: u64, redelivered: u64, late: u64,
        reads: u64, broadcasts: u64, odd: u64, spurious: u64,
    }
    /// `struct xen_eventfd_entry`.
    Entry xen_eventfd_entry 64 {
        what: u32, index: u32, space: u32, kind: u32, len: u32,
        addr: u64, datamatch: u64, datamask: u64, kicks: u64, held: u64,
    }
    /// `struct xen_eventfd_missed`.
    Missed xen_eventfd_missed 56 {
        space: u32, len: u32, eventfd: i32, addr: u64,
        width: u32, pad: u32, value: u64, kicks: u64, overflowed: u64,
    }
    /// `struct xen_eventfd_irq`.
    Irq xen_eventfd_irq 56 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64, raised: u64, failed: u64,
    }
    /// `struct xen_eventfd_irq_change`.
    IrqChange xen_eventfd_irq_change 72 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64, new_kind: u32, new_trigger: u32, new_number: u32, new_pin: u32,
        new_msi_data: u32, pad: u32, new_msi_addr: u64,
    }
    /// `struct xen_eventfd_irq_state`.
    IrqState xen_eventfd_irq_state 48 {
        flags: u32, kind: u32, eventfd: i32, trigger: u32, number: u32, pin: u32, msi_data: u32,
        msi_addr: u64, masked: u32, pending: u32,
    }
    /// `struct xen_eventfd_channel`.
    Channel xen_eventfd_channel 16 { flags: u32, port: u32, eventfd: i32 }
}

requests! {
    QUERY 0x00 Query
    CREATE 0x01 Create
    OWNER 0x02 Owner
    ASSIGN 0x10 Doorbell
    DEASSIGN 0x11 Doorbell
    STATS 0x12 Stats
    LIST 0x13 Entry
    MISSED 0x14 Missed
    ASSIGN_IRQ 0x20 Irq
    DEASSIGN_IRQ 0x21 Irq
    IRQ_STATS 0x22 Irq
    LOWER 0x23 Irq
    SET_IRQ 0x24 IrqChange
    MASK_IRQ 0x25 Irq
    UNMASK_IRQ 0x26 Irq
    IRQ_STATE 0x27 IrqState
    ASSIGN_CHANNEL 0x30 Channel
    DEASSIGN_CHANNEL 0x31 Channel
}

macro_rules! constants {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(pub(in crate::linux) const $name: $type = $value;)*

        /// Each constant's name in the header, without the prefix.
        #[cfg(test)]
        const CONSTANTS: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

constants! {
    ABI: u32 = 1;
    FEATURE_DOORBELLS: u64 = 1 << 0;
    FEATURE_IRQS: u64 = 1 << 1;
    FEATURE_CHANNELS: u64 = 1 << 2;
    FEATURE_IRQ_CHANGES: u64 = 1 << 4;
    CREATE_RESERVE: u32 = 1 << 0;
    MMIO: u32 = 0;
    PIO: u32 = 1;
    VALUE: u32 = 0;
    WIDTH: u32 = 1;
    ANY: u32 = 2;
    FALLBACK: u32 = 3;
    LIST_DOORBELLS: u32 = 0;
    LIST_HELD: u32 = 1;
    IRQ_CHANNEL: u32 = 0;
    IRQ_MSI: u32 = 1;
    IRQ_ISA: u32 = 2;
    IRQ_INTX: u32 = 3;
    IRQ_SPI: u32 = 4;
    PULSE: u32 = 0;
    LEVEL: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// The C compiler compares everything here with the header.
    #[test]
    fn the_layouts_match_the_header() {
        let mut c = "#include <stddef.h>\n#include \"xen-eventfd.h\"\n".to_owned();
        let mut same = |what: &str, value: u64| {
            writeln!(c, "_Static_assert(({what}) == {value}ULL, \"{what}\");").unwrap();
        };
        for (name, size, fields) in LAYOUTS {
            same(&format!("sizeof(struct {name})"), *size as u64);
            for (field, offset) in *fields {
                same(&format!("offsetof(struct {name}, {field})"), *offset as u64);
            }
        }
        for (name, number) in REQUESTS {
            same(&format!("XEN_EVENTFD_{name}"), u64::from(*number));
        }
        for (name, value) in CONSTANTS {
            same(&format!("XEN_EVENTFD_{name}"), *value);
        }
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel/uapi");
        let mut compiler = Command::new("cc")
            .args(["-xc", "-fsyntax-only", "-Werror", "-I", header, "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        compiler.stdin.take().unwrap().write_all(c.as_bytes()).unwrap();
        let output = compiler.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_struct_begins_with_its_size() {
        assert_eq!(Stats::default().size as usize, size_of::<Stats>());
        assert_eq!(Channel::default().size as usize, size_of::<Channel>());
    }
}
