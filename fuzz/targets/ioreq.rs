//! The contents of a slot, as a guest or a faulty Xen leaves them: decoded, served and collected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_core::ioreq::{DATA_IS_PTR, DIR_READ, Ioreq};
use xen_eventfd_core::slot::{Slot, State};
use xen_eventfd_core::{Kick, Request};

fuzz_target!(|bytes: [u8; 30]| {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let ioreq = Ioreq {
        addr: long(0),
        data: long(8),
        count: word(16),
        size: word(20),
        vp_eport: word(24),
        pad: 0,
        flags: bytes[28],
        kind: bytes[29],
    };
    let decoded = Request::decode(&ioreq);
    if let Request::Kick(kick) = decoded {
        assert_eq!(kick, Kick::new(kick.access.space, ioreq.addr, kick.access.width, ioreq.data));
        assert_eq!(u32::from(kick.access.width.bytes()), ioreq.size);
    }
    let slot = Slot::default();
    slot.publish(&ioreq);
    assert_eq!(
        slot.serve(|seen| {
            assert_eq!(*seen, decoded);
            0x55
        }),
        Some(decoded)
    );
    assert_eq!(slot.state(), State::Answered);
    let answered = ioreq.flags & (DIR_READ | DATA_IS_PTR) == DIR_READ;
    assert_eq!(slot.collect(), Some(if answered { 0x55 } else { ioreq.data }));
    assert_eq!(slot.state(), State::None);
});
