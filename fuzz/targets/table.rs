//! Registrations and kicks, compared with a linear search.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_core::{Doorbell, Filter, Kick, Space, Width, table};

fuzz_target!(|bytes: &[u8]| {
    let mut sorted: Vec<Doorbell> = Vec::new();
    for step in bytes.chunks_exact(4) {
        let space = if step[0] & 1 == 0 { Space::Mmio } else { Space::Pio };
        let width =
            [Width::One, Width::Two, Width::Four, Width::Eight][usize::from(step[0] >> 1 & 3)];
        // Near both ends of the space, where arithmetic can overflow.
        let addr = match step[1] {
            near @ 0..0xF0 => u64::from(near & 7),
            far => space.last() - u64::from(!far),
        };
        let value = u64::from(step[2] & 3);
        let mask = if step[2] & 4 == 0 { width.mask() } else { 3 };
        let filter = match step[3] & 7 {
            0 | 1 => Filter::Value { width, value, mask },
            2 => Filter::Width(width),
            3 => Filter::Any { span: step[2] },
            4 => Filter::Fallback { span: step[2] },
            _ => {
                check(&sorted, &Kick::new(space, addr, width, u64::from(step[2])));
                continue;
            }
        };
        let Ok(doorbell) = Doorbell::new(space, addr, filter) else { continue };
        if step[3] & 8 == 0 {
            let there = sorted.contains(&doorbell);
            match table::place(&sorted, &doorbell) {
                Ok(index) => {
                    assert!(!there);
                    sorted.insert(index, doorbell);
                }
                Err(table::Collision::With(other)) => assert!(sorted.contains(&other)),
                Err(table::Collision::Mask(_)) => {}
            }
        } else if let Some(index) = table::position(&sorted, &doorbell) {
            assert_eq!(sorted.remove(index), doorbell);
        } else {
            assert!(!sorted.contains(&doorbell));
        }
    }
});

fn check(sorted: &[Doorbell], kick: &Kick) {
    let rank = |doorbell: &Doorbell| match doorbell.filter() {
        Filter::Value { .. } => 0,
        Filter::Width(_) => 1,
        Filter::Any { .. } => 2,
        Filter::Fallback { .. } => 3,
    };
    let matching = sorted.iter().filter(|doorbell| doorbell.takes(kick));
    let expected = matching.min_by_key(|doorbell| rank(doorbell));
    assert_eq!(table::find(sorted, kick).map(|index| &sorted[index]), expected);
    let first = sorted.iter().position(|doorbell| {
        let bytes = doorbell.bytes();
        (bytes.space(), bytes.first()) == (kick.access.space, kick.access.addr)
    });
    assert_eq!(table::first_at(sorted, kick.access.space, kick.access.addr), first);
}
