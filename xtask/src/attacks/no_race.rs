//! What has no data race: a counter under a lock that several threads want at once.
//! ThreadSanitizer is asked about it first. If it finds a race here, it sees the standard library's
//! locks only in part, and what it finds elsewhere says nothing.

use std::sync::Mutex;
use std::thread;

fn main() {
    let counter = Mutex::new(0_u64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| *counter.lock().unwrap() += 1));
        }
    });
    assert_eq!(*counter.lock().unwrap(), 40_000);
}
