//! The command line's words for doorbells and interrupts: any words, and an accepted word is printed
//! unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xen_eventfd_cli::spec::{CallSpec, KickSpec, Watched, check_together};

fuzz_target!(|text: &str| {
    let mut kicks = Vec::new();
    for word in text.split_whitespace() {
        if let Ok(kick) = word.parse::<KickSpec>() {
            assert_eq!(kick.to_string(), word);
            kicks.push(kick);
        }
        if let Ok(watched) = word.parse::<Watched>() {
            assert!((1..=8).contains(&watched.span));
        }
        if let Ok(call) = word.parse::<CallSpec>() {
            assert_eq!(call.irq.check(), Ok(()));
        }
    }
    // The same kick twice is refused.
    let twice: Vec<KickSpec> = kicks.iter().chain(kicks.first()).cloned().collect();
    assert!(kicks.is_empty() || check_together(&twice).is_err());
});
