//! Random histories agree with a reference that is too simple to be wrong.

use crate::bench::{Bench, count, event};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::OwnedFd;
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::{AnyValue, Guest, IoEvent, Masked, NoDatamatch, Space, Width};
use xen_eventfd_core::{Doorbell, Filter, Kick};
use xen_eventfd_model::CallKind;

const BASE: u64 = 0xFE00_0050;

/// What is done next. Small numbers, so that things meet.
#[derive(Clone)]
enum Step {
    Register {
        addr: u64,
        filter: Filter,
    },
    Unregister(prop::sample::Index),
    Kick {
        vcpu: u32,
        addr: u64,
        width: Width,
        value: u64,
    },
    Read {
        addr: u64,
        width: Width,
    },
    Balloon,
    /// The next call of this kind fails.
    Fail(CallKind),
}

/// One line, for a failure's message.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { addr, filter } => write!(f, "register {addr:#x} {filter:?}"),
            Self::Unregister(which) => write!(f, "unregister {}", which.index(100)),
            Self::Kick { vcpu, addr, width, value } => {
                write!(f, "v{vcpu} writes {value} to {addr:#x}, {} bytes", width.bytes())
            }
            Self::Read { addr, width } => write!(f, "v0 reads {addr:#x}, {} bytes", width.bytes()),
            Self::Balloon => f.write_str("v1 gives a page back"),
            Self::Fail(kind) => write!(f, "the next {kind:?} fails"),
        }
    }
}

fn width() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::One, Width::Two, Width::Four, Width::Eight])
}

fn filter() -> impl Strategy<Value = Filter> {
    let value = (width(), 0_u64..3, prop::sample::select(vec![0xFF, 0x3]));
    prop_oneof![
        4 => value.prop_map(|(width, value, mask)| Filter::Value { width, value, mask }),
        2 => width().prop_map(Filter::Width),
        1 => (1_u8..=8).prop_map(|span| Filter::Any { span }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let addr = || (0_u64..8).prop_map(|offset| BASE + offset);
    let refusals = vec![CallKind::MapRange, CallKind::UnmapRange];
    prop_oneof![
        4 => (addr(), filter()).prop_map(|(addr, filter)| Step::Register { addr, filter }),
        2 => any::<prop::sample::Index>().prop_map(Step::Unregister),
        8 => (0_u32..2, addr(), width(), 0_u64..6)
            .prop_map(|(vcpu, addr, width, value)| Step::Kick { vcpu, addr, width, value }),
        1 => (addr(), width()).prop_map(|(addr, width)| Step::Read { addr, width }),
        1 => Just(Step::Balloon),
        1 => prop::sample::select(refusals).prop_map(Step::Fail),
    ]
}

/// A registration, its eventfd, and how often that must have been signalled.
struct Queue {
    doorbell: Doorbell,
    eventfd: OwnedFd,
    registered: IoEvent,
    owed: u64,
}

impl Queue {
    /// Who is asked first: a value, a wildcard of one width, one of any.
    fn rank(&self) -> u8 {
        match self.doorbell.filter() {
            Filter::Value { .. } => 0,
            Filter::Width(_) => 1,
            Filter::Any { .. } => 2,
            Filter::Fallback { .. } => 3,
        }
    }
}

/// Every list is looked through from one end to the other.
#[derive(Default)]
struct Reference {
    queues: Vec<Queue>,
    held: Vec<Kick>,
}

impl Reference {
    fn holds(&self, kick: &Kick) -> bool {
        let bytes = kick.access.addr..kick.access.addr + u64::from(kick.access.width.bytes());
        bytes.into_iter().all(|byte| self.held_by_somebody(byte))
    }

    fn held_by_somebody(&self, byte: u64) -> bool {
        let bytes = |queue: &Queue| {
            let bytes = queue.doorbell.bytes();
            bytes.first()..=bytes.last()
        };
        self.queues.iter().any(|queue| bytes(queue).contains(&byte))
    }

    fn kick(&mut self, kick: Kick) {
        let holds = self.holds(&kick);
        let takers = self.queues.iter_mut().filter(|queue| queue.doorbell.takes(&kick));
        match takers.min_by_key(|queue| queue.rank()) {
            Some(queue) => queue.owed += 1,
            None if holds && !self.held.contains(&kick) => self.held.push(kick),
            None => {}
        }
    }

    fn give_back(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.held = held.into_iter().filter(|kick| self.holds(kick)).collect();
    }
}

fn register(guest: &Guest, step: (u64, Filter), fd: &OwnedFd) -> xen_eventfd::Result<IoEvent> {
    let (addr, filter) = step;
    match filter {
        Filter::Value { width, value, mask } => {
            guest.register_ioevent(fd, &Mmio(addr), Masked { width, value, mask })
        }
        Filter::Width(width) => guest.register_ioevent(fd, &Mmio(addr), AnyValue(width)),
        Filter::Any { span } => guest.register_ioevent(fd, &Mmio(addr), NoDatamatch(span)),
        Filter::Fallback { .. } => unreachable!("no step makes one"),
    }
}

fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let bench = Bench::new();
    let guest = bench.attach();
    let mut reference = Reference::default();
    for step in steps {
        match step {
            Step::Register { addr, filter } => {
                let eventfd = event();
                let doorbell = Doorbell::new(Space::Mmio, addr, filter).unwrap();
                let collides = collides(&reference.queues, &doorbell);
                match register(&guest, (addr, filter), &eventfd) {
                    Ok(registered) => {
                        prop_assert!(!collides);
                        let queue = Queue { doorbell, eventfd, registered, owed: 0 };
                        reference.queues.push(queue);
                        let held = std::mem::take(&mut reference.held);
                        let before = reference.queues.last().map(|queue| queue.owed);
                        held.into_iter().for_each(|kick| reference.kick(kick));
                        // However many were held, they are one signal.
                        if let Some(queue) = reference.queues.last_mut() {
                            queue.owed = queue.owed.min(before.unwrap_or(0) + 1);
                        }
                    }
                    Err(error) if error.errno() == Errno::EXIST => prop_assert!(collides),
                    Err(error) => prop_assert_eq!(error.errno(), Errno::NOMEM),
                }
            }
            Step::Unregister(which) if !reference.queues.is_empty() => {
                let queue = reference.queues.remove(which.index(reference.queues.len()));
                queue.registered.end().unwrap();
                prop_assert_eq!(count(&queue.eventfd), queue.owed, "{:?}", queue.doorbell);
                reference.give_back();
            }
            Step::Kick { vcpu, addr, width, value } => {
                bench.vcpu(vcpu).write(Space::Mmio, addr, width, value).unwrap();
                reference.kick(Kick::new(Space::Mmio, addr, width, value));
            }
            Step::Read { addr, width } => {
                let read = bench.vcpu(0).read(Space::Mmio, addr, width).unwrap();
                prop_assert!(read == 0 || read == width.mask());
            }
            Step::Balloon => bench.vcpu(1).balloon(1).unwrap(),
            Step::Fail(kind) => bench.backend.fail(kind, 1, Errno::NOMEM),
            Step::Unregister(_) => {}
        }
        reference.held.sort();
        prop_assert_eq!(guest.held(), reference.held.clone());
        claims_lose_nothing(&bench, &reference)?;
    }
    for queue in &reference.queues {
        prop_assert_eq!(count(&queue.eventfd), queue.owed, "{:?}", queue.doorbell);
    }
    bench.kick(0, 0);
    bench.kick(1, 0);
    drop(reference);
    guest.close().unwrap();
    bench.assert_let_go();
    Ok(())
}

fn collides(queues: &[Queue], new: &Doorbell) -> bool {
    let (width, any) = (
        |filter| match filter {
            Filter::Width(width) => Some(width),
            _ => None,
        },
        |filter| matches!(filter, Filter::Any { .. }),
    );
    queues.iter().map(|queue| &queue.doorbell).any(|old| {
        let (a, b) = (old.filter(), new.filter());
        old.bytes().first() == new.bytes().first()
            && match (a, b) {
                (
                    Filter::Value { width: w, value: v, mask: m },
                    Filter::Value { width, value, mask },
                ) => w == width && (m != mask || v == value),
                _ => {
                    (width(a).is_some() && (width(a) == width(b) || any(b)))
                        || (any(a) && (width(b).is_some() || any(b)))
                }
            }
    })
}

/// Xen routes to us every byte of every registration.
fn claims_lose_nothing(bench: &Bench, reference: &Reference) -> Result<(), TestCaseError> {
    let servers = bench.model.servers(bench.dom);
    let routed = |byte: u64| {
        servers[0].ranges.iter().any(|bytes| bytes.first() <= byte && byte <= bytes.last())
    };
    for byte in BASE..BASE + 16 {
        prop_assert!(routed(byte) || !reference.held_by_somebody(byte), "{:#x}", byte);
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: 100, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_kick_goes_where_it_must(steps in prop::collection::vec(step(), 1..40)) {
        play(steps)?;
    }
}

/// What fails is reported as the few steps that matter, with small numbers.
#[test]
fn a_failure_shrinks_to_what_matters() {
    let mut runner = TestRunner::deterministic();
    let histories = prop::collection::vec(step(), 1..40);
    let failed = runner.run(&histories, |steps| {
        let register = steps.iter().position(|step| matches!(step, Step::Register { .. }));
        let after = steps.iter().skip(register.unwrap_or(steps.len()));
        let wrong = after.filter(|step| matches!(step, Step::Kick { value: 4.., .. })).count();
        prop_assert!(wrong == 0);
        Ok(())
    });
    let Err(TestError::Fail(_, steps)) = failed else { panic!("{failed:?}") };
    let printed: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
    let [register, kick] = &printed[..] else { panic!("{printed:#?}") };
    assert!(register.starts_with("register 0xfe000050 "), "{register}");
    assert_eq!(kick, "v0 writes 4 to 0xfe000050, 1 bytes");
}
