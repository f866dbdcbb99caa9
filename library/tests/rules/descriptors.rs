//! A process without descriptors left gets that error, and no other.

use crate::alone::alone;
use crate::bench::{AT, Bench, config, event};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use xen_eventfd::{Error, Guardian, Irq, Result, Xen, run_dir};

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
const LIMIT: u64 = 96;

/// Tries with no descriptor left, with one, with two, until it can be done. Until then only the lack of
/// descriptors is to blame.
fn until_done<T>(what: &str, attempt: impl Fn() -> Result<T>) {
    for left in 0..40 {
        let mut files: Vec<File> = (0..).map_while(|_| File::open("/dev/null").ok()).collect();
        files.truncate(files.len() - left);
        let attempted = attempt();
        drop(files);
        let error = match attempted {
            Ok(_) => return assert!(left > 0, "{what} takes no descriptor"),
            Err(error) => error,
        };
        let sentence = error.to_string();
        let named = error.errno() == Errno::MFILE || matches!(error, Error::NoGuardian(_));
        assert!(named, "{what} with {left} left: {error:?}");
        assert!(sentence.contains("os error 24"), "{what} with {left} left: {sentence}");
        assert!(!sentence.contains("pass an eventfd"), "{what} with {left} left: {sentence}");
    }
    panic!("{what} is never done");
}

#[test]
fn whatever_lacks_a_descriptor_says_so() {
    alone("descriptors::whatever_lacks_a_descriptor_says_so", || {
        let bench = Bench::new();
        let other = bench.model.domain(config());
        let guest = bench.attach();
        let xen = bench.xen_of(&bench.model.client("other"), bench.run_dir.path()).unwrap();
        let (eventfd, port) = (event(), bench.vcpu(0).alloc_unbound().unwrap());
        let client = bench.model.client("third");
        let run_dir = tempfile::tempdir().unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();

        until_done("register_ioevent", || guest.register_ioevent(&eventfd, &AT, 1_u32));
        until_done("register_fallback", || guest.register_fallback(&eventfd, &AT, 4));
        until_done("register_irqfd", || guest.register_irqfd(&eventfd, MSI));
        until_done("register_channel", || guest.register_channel(&eventfd, port));
        until_done("guest", || xen.guest(other));
        until_done("open_on", || bench.xen_of(&client, run_dir.path()));
        until_done("holders", || run_dir::holders(bench.run_dir.path()));
        until_done("reap_on", || {
            let reaped = Xen::builder().run_dir(bench.run_dir.path()).reap_on(&*client)?;
            reaped.into_iter().try_for_each(|(_, reaped)| reaped.map(drop))
        });
        let guardian = Guardian::Program("/bin/true".into());
        let guarded = Xen::builder().run_dir(run_dir.path()).guardian(guardian);
        let guarded = guarded.open_on(client.clone()).unwrap();
        until_done("guardian", || guarded.guest(other));
    });
}

/// A holder that cannot be looked at is not a dead one, and what it holds is listed.
#[test]
fn a_holder_that_cannot_be_looked_at_is_not_dead() {
    alone("descriptors::a_holder_that_cannot_be_looked_at_is_not_dead", || {
        let bench = Bench::new();
        let _guest = bench.attach();
        setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) }).unwrap();
        until_done("holders", || {
            let holders = run_dir::holders(bench.run_dir.path())?;
            assert_eq!(holders.len(), 1, "the holder was taken for dead");
            Ok(())
        });
    });
}
