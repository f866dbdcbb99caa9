//! Accesses of a guest to a virtio-pci function, and what the device does meanwhile, which another process may go
//! on with at any point: the effects never contradict one another or the function.
#![no_main]

#[path = "../../virtio/tests/transport/observer.rs"]
mod observer;

use libfuzzer_sys::fuzz_target;
use observer::Observer;
use xen_eventfd_core::{Access, Kick, Space, Width};
use xen_eventfd_virtio::{Description, Function, FunctionDescription, Transport};

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];

fuzz_target!(|bytes: &[u8]| {
    let device = Description {
        device_type: 1,
        features: 1 << 32 | 1 << 34 | 1 << 40 | 0x21,
        queue_sizes: vec![256, 128, 64],
        config: (0..12).collect(),
    };
    let description =
        FunctionDescription { device, has_line: true, registers: 0xE000_0000, doorbell: 0xC000 };
    let mut function = Function::new(&description).unwrap();
    let mut observer = Observer::new(description);
    // One byte for what is done and how wide, two for the register, four for the value.
    for step in bytes.chunks_exact(7) {
        let width = WIDTHS[usize::from(step[0] & 3)];
        let register = u16::from_le_bytes([step[1], step[2]]);
        let value = u32::from_le_bytes([step[3], step[4], step[5], step[6]]).into();
        let held = |queue| queue == 1;
        let memory = 0xE000_0000 + u64::from(register);
        let effects = match step[0] >> 2 {
            0 => function.read_config(register, width, held).1,
            1 => function.write_config(register, width, value),
            2 => {
                let access = Access { space: Space::Mmio, addr: memory, width };
                function.read(access, held).map_or(Vec::new(), |(_, effects)| effects)
            }
            3 => {
                let write = Kick::new(Space::Mmio, memory, width, value);
                function.write(write).unwrap_or_default()
            }
            4 => {
                let write = Kick::new(Space::Pio, register.into(), width, value);
                function.write(write).unwrap_or_default()
            }
            5 => function.signal_queue(register),
            6 => function.change_config(&step[1..]),
            7 => function.needs_reset(),
            // Another process goes on with it.
            8 => {
                let state = function.state();
                let (restored, _) = Function::restore(&state).unwrap();
                assert_eq!(restored.state(), state);
                function = restored;
                Vec::new()
            }
            _ => Vec::new(),
        };
        observer.follow(&effects, &function);
    }
});
