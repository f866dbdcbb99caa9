//! Emulated machines, as many at once as this machine has CPUs for them, and beside them what needs
//! no machine.

use std::cmp::Reverse;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use xen_eventfd_lab::Platform;

use crate::tally::Tally;

/// How a machine is called in what is printed of it.
pub fn place(platform: Platform, cpus: u32) -> String {
    format!("{}, {cpus} CPU{}", platform.name(), if cpus == 1 { "" } else { "s" })
}

/// What is to be done in one machine.
type Work<'a> = Box<dyn Fn() -> Result<Tally> + Send + 'a>;

/// A machine that waits for its turn.
struct Job<'a, G> {
    group: G,
    name: String,
    /// How many CPUs of this machine it keeps busy.
    threads: usize,
    /// How many it emulates; none: it is no machine.
    cpus: Option<u32>,
    work: Work<'a>,
}

/// Machines that wait for their turn, each of a group of the caller's.
#[expect(missing_debug_implementations, reason = "closures have none")]
pub struct Boots<'a, G> {
    jobs: Vec<Job<'a, G>>,
}

/// How one went.
#[derive(Debug)]
pub struct Done<G> {
    /// The caller's group.
    pub group: G,
    /// What passed and what failed.
    pub tally: Tally,
    /// How long it took.
    pub time: Duration,
}

struct Scheduler<'a, G> {
    waiting: Vec<Job<'a, G>>,
    free: usize,
    done: Vec<Done<G>>,
}

impl<G> Default for Boots<'_, G> {
    fn default() -> Self {
        Self { jobs: Vec::new() }
    }
}

impl<'a, G: Send> Boots<'a, G> {
    /// Adds one with such a dom0 and so many emulated CPUs.
    pub fn add(
        &mut self,
        group: G,
        name: impl Into<String>,
        (platform, cpus): (Platform, u32),
        work: impl Fn() -> Result<Tally> + Send + 'a,
    ) {
        let (name, threads) = (name.into(), platform.threads(cpus) as usize);
        self.jobs.push(Job { group, name, threads, cpus: Some(cpus), work: Box::new(work) });
    }

    /// Adds work of this machine's own, which begins before all machines and keeps so many CPUs busy.
    pub fn add_beside(
        &mut self,
        group: G,
        name: impl Into<String>,
        threads: usize,
        work: impl Fn() -> Result<Tally> + Send + 'a,
    ) {
        let name = name.into();
        self.jobs.push(Job { group, name, threads, cpus: None, work: Box::new(work) });
    }

    /// Runs all of them. What fails, or panics, counts as one failure, and takes nothing from the
    /// others. One that the emulator broke, and in which something failed, is run once more.
    pub fn run(self) -> Vec<Done<G>> {
        self.run_on(thread::available_parallelism().map_or(1, NonZero::get))
    }

    fn run_on(mut self, cpus: usize) -> Vec<Done<G>> {
        // Those that want the whole machine come last, and of the others the long ones first: a CPU
        // has nothing to do once only, between the two.
        self.jobs.sort_by_key(|job| (job.cpus.is_some(), job.threads, Reverse(job.cpus)));
        let scheduler = Mutex::new(Scheduler { waiting: self.jobs, free: cpus, done: Vec::new() });
        let changed = Condvar::new();
        thread::scope(|scope| {
            for _ in 0..cpus {
                scope.spawn(|| work(&scheduler, &changed, cpus));
            }
        });
        scheduler.into_inner().unwrap_or_else(PoisonError::into_inner).done
    }
}

fn lock<'m, 'a, G>(scheduler: &'m Mutex<Scheduler<'a, G>>) -> MutexGuard<'m, Scheduler<'a, G>> {
    scheduler.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one after the other, until none waits.
fn work<G>(scheduler: &Mutex<Scheduler<'_, G>>, changed: &Condvar, all: usize) {
    let mut guard = lock(scheduler);
    while !guard.waiting.is_empty() {
        let free = guard.free;
        let Some(next) = guard.waiting.iter().position(|job| job.threads.min(all) <= free) else {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let job = guard.waiting.remove(next);
        let cpus = job.threads.min(all);
        guard.free -= cpus;
        drop(guard);
        let done = run(job);
        guard = lock(scheduler);
        guard.free += cpus;
        guard.done.push(done);
        changed.notify_all();
    }
}

fn run<G>(job: Job<'_, G>) -> Done<G> {
    let Job { group, name, work, .. } = job;
    let since = Instant::now();
    let once = || {
        let worked = catch_unwind(AssertUnwindSafe(&work));
        worked.unwrap_or_else(|_| Err(anyhow!("a panic"))).unwrap_or_else(|error| {
            let text = format!("{name}: FAILED  {error:#}");
            println!("{text}");
            Tally::failed(text)
        })
    };
    let mut tally = once();
    if tally.failed > 0 && tally.broken {
        println!(
            "{name}: once more: the emulator broke dom0 or a program of it, which is no verdict"
        );
        tally = once();
        tally.run_again(&name);
    }
    Done { group, tally, time: since.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ONE: (Platform, u32) = (Platform::X86Pv, 1);

    #[test]
    fn no_more_run_at_once_than_there_are_cpus_for() {
        let (busy, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut boots = Boots::default();
        for (group, cpus) in [4, 1, 1, 2, 1, 1].into_iter().enumerate() {
            let (busy, most) = (&busy, &most);
            boots.add(group, "a machine", (Platform::X86Pv, cpus), move || {
                let cpus = (cpus as usize).min(2);
                most.fetch_max(busy.fetch_add(cpus, Ordering::SeqCst) + cpus, Ordering::SeqCst);
                thread::yield_now();
                busy.fetch_sub(cpus, Ordering::SeqCst);
                Ok(Tally::passed())
            });
        }
        let done = boots.run_on(2);
        assert_eq!(done.len(), 6);
        assert!(most.into_inner() <= 2);
    }

    #[test]
    fn those_that_fill_this_machine_come_last_and_before_them_the_long_ones() {
        let ran = Mutex::new(Vec::new());
        let mut boots = Boots::default();
        for machine in [
            (Platform::X86Pv, 4),
            (Platform::X86Pvh, 1),
            (Platform::X86Pvh, 4),
            (Platform::X86Pv, 1),
        ] {
            let ran = &ran;
            boots.add(machine, "a machine", machine, move || {
                ran.lock().unwrap().push(machine);
                Ok(Tally::passed())
            });
        }
        boots.run_on(1);
        let order = [
            (Platform::X86Pvh, 4),
            (Platform::X86Pvh, 1),
            (Platform::X86Pv, 1),
            (Platform::X86Pv, 4),
        ];
        assert_eq!(ran.into_inner().unwrap(), order);
    }

    #[test]
    fn what_is_no_machine_begins_first_and_leaves_cpus_for_machines() {
        let (met, order) = (Barrier::new(2), Mutex::new(Vec::new()));
        let mut boots = Boots::default();
        boots.add('m', "a machine", ONE, || {
            met.wait();
            Ok(Tally::passed())
        });
        boots.add('w', "a machine of all CPUs", (Platform::X86Pv, 4), || {
            order.lock().unwrap().push('w');
            Ok(Tally::passed())
        });
        boots.add_beside('b', "the host", 1, || {
            met.wait();
            order.lock().unwrap().push('b');
            Ok(Tally::passed())
        });
        assert_eq!(boots.run_on(2).len(), 3);
        assert_eq!(order.into_inner().unwrap(), ['b', 'w']);
    }

    #[test]
    fn what_the_emulator_broke_is_run_once_more_and_what_failed_by_itself_is_not() {
        let runs = [const { AtomicUsize::new(0) }; 3];
        let mut boots = Boots::default();
        let broken = "dom0 says: [ 2.6] traps: xl[499] general protection fault";
        let said = [broken, broken, "as it should"];
        for (group, (runs, said)) in runs.iter().zip(said).enumerate() {
            boots.add(group, "a machine", ONE, move || {
                let again = runs.fetch_add(1, Ordering::SeqCst) > 0;
                Ok(if group == 0 && again { Tally::passed() } else { Tally::failed(said) })
            });
        }
        let mut done = boots.run_on(1);
        done.sort_by_key(|done| done.group);
        assert_eq!(done.iter().map(|done| done.tally.failed).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(runs.map(AtomicUsize::into_inner), [2, 2, 1]);
    }

    #[test]
    fn what_fails_takes_nothing_from_the_others() {
        let mut boots = Boots::default();
        boots.add('a', "one that fails", ONE, || Err(anyhow!("as it should")));
        boots.add('b', "one that panics", ONE, || panic!("as it should"));
        boots.add('c', "one that passes", ONE, || Ok(Tally::passed()));
        let failed: Vec<char> = boots
            .run_on(1)
            .into_iter()
            .filter(|done| done.tally.failed > 0)
            .map(|done| done.group)
            .collect();
        assert_eq!(failed, ['a', 'b']);
    }
}
