//! The structs of the privcmd ABI and of device model operations, with any contents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_core::Width;
use xen_eventfd_core::irq::IrqOp;
use xen_eventfd_core::wire::dm_op::DmOp;
use xen_eventfd_core::wire::privcmd::{IoEventFd, IrqFd};

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, _)) = bytes.split_first_chunk()
        && let Ok(request) = IoEventFd::parse(head)
        && let Ok(doorbell) = request.doorbell()
    {
        let covered = doorbell.bytes();
        let width = u32::try_from(covered.last() - covered.first() + 1).unwrap();
        assert!(Width::new(width).is_some() && (1..=4096).contains(&request.vcpus));
    }
    if let Some((head, _)) = bytes.split_first_chunk() {
        let flags = u32::from_ne_bytes(bytes[16..20].try_into().unwrap());
        assert_eq!(
            IrqFd::parse(head).map(|request| request.deassign).ok(),
            match flags {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            }
        );
    }
    if let Ok(operation) = IrqOp::parse(bytes) {
        assert!([8, 9, 14, 19].contains(&bytes[0]));
        assert_eq!(operation.irq().check(), Ok(()));
        assert_eq!(DmOp::parse(bytes), Ok(DmOp::Irq(operation)));
    }
    if let Ok(operation) = DmOp::parse(bytes) {
        let (buffer, len) = operation.emit();
        assert!(len <= bytes.len());
        assert_eq!(DmOp::parse(&buffer.bytes()[..len]), Ok(operation));
        assert!(!operation.to_string().is_empty());
    }
});
