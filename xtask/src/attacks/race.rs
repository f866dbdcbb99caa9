//! What has a data race, and nothing else: two threads count, and neither waits for the other.
//! ThreadSanitizer that says nothing about it would say nothing about anything.

use std::thread;

struct Counter(*mut u64);

// SAFETY: it is not safe to share; that is what is asked here.
unsafe impl Sync for Counter {}

impl Counter {
    fn add(&self) {
        // SAFETY: the place outlives all threads. That they race for it is the point.
        unsafe { self.0.write(self.0.read() + 1) }
    }
}

fn main() {
    let mut place = 0;
    let counter = Counter(&raw mut place);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..10_000).for_each(|_| counter.add()));
        }
    });
}
