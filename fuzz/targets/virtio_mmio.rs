//! Accesses of a guest to a device on virtio-mmio, and what the device does meanwhile, which another process may go on
//! with at any point: the effects never contradict one another.
#![no_main]

#[path = "../../virtio/tests/mmio/observer.rs"]
mod observer;

use libfuzzer_sys::fuzz_target;
use observer::Observer;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Description, Mmio, Transport};

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];

fuzz_target!(|bytes: &[u8]| {
    let description = Description {
        device_type: 1,
        features: 1 << 32 | 1 << 34 | 1 << 40 | 0x21,
        queue_sizes: vec![256, 128, 64],
        config: (0..12).collect(),
    };
    let mut device = Mmio::new(&description).unwrap();
    let mut observer = Observer::new(description);
    // One byte for what is done and how wide, two for the register, four for the value.
    for step in bytes.chunks_exact(7) {
        let width = WIDTHS[usize::from(step[0] & 3)];
        let register = u16::from_le_bytes([step[1], step[2]]).into();
        let value = u32::from_le_bytes([step[3], step[4], step[5], step[6]]).into();
        let effects = match step[0] >> 2 {
            0 => {
                let read = device.read(register, width, || 3);
                assert!(read.is_none_or(|value| value & !width.mask() == 0));
                Vec::new()
            }
            1 => device.write(register, width, value).unwrap_or_default(),
            2 => device.change_config(&step[1..]),
            3 => device.needs_reset(),
            // Another process goes on with it.
            4 => {
                let state = device.state();
                let (restored, _) = Mmio::restore(&state).unwrap();
                assert_eq!(restored.state(), state);
                device = restored;
                Vec::new()
            }
            _ => Vec::new(),
        };
        observer.follow(&effects);
    }
});
