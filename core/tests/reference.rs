//! The table and the claims agree with references that look at everything, one by one.

use proptest::prelude::*;
use xen_eventfd_core::claims::{self, Claim, Debt};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::held::Held;
use xen_eventfd_core::ioreq::Access;
use xen_eventfd_core::{table, Doorbell, Filter, Kick, Space, Width};

/// Addresses that meet, also at the ends of each space.
fn place() -> impl Strategy<Value = (Space, u64)> {
    let mmio = prop_oneof![0_u64..10, u64::MAX - 9..=u64::MAX];
    let pio = prop_oneof![0_u64..10, 0xFFF6_u64..=0xFFFF];
    prop_oneof![
        3 => mmio.prop_map(|addr| (Space::Mmio, addr)),
        1 => pio.prop_map(|addr| (Space::Pio, addr)),
    ]
}

fn width() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::One, Width::Two, Width::Four, Width::Eight])
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..4, 1 => Just(0xFF), 1 => Just(0x100), 1 => Just(u64::MAX)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let masks = prop::sample::select(vec![1, 0xFF, 0xFFFF, 0xFFFF_FFFF, u64::MAX]);
    prop_oneof![
        4 => (width(), value(), masks)
            .prop_map(|(width, value, mask)| Filter::Value { width, value, mask }),
        2 => width().prop_map(Filter::Width),
        1 => (0_u8..=9).prop_map(|span| Filter::Any { span }),
        1 => (0_u8..=9).prop_map(|span| Filter::Fallback { span }),
    ]
}

/// Doorbells that can be; those that cannot are left out.
fn doorbells() -> impl Strategy<Value = Vec<Doorbell>> {
    prop::collection::vec((place(), filter()), 0..24).prop_map(|all| {
        let made = all.into_iter();
        made.filter_map(|((space, addr), filter)| Doorbell::new(space, addr, filter).ok()).collect()
    })
}

fn kick() -> impl Strategy<Value = Kick> {
    (place(), width(), value())
        .prop_map(|((space, addr), width, value)| Kick::new(space, addr, width, value))
}

/// Who is asked first at one address.
fn rank(doorbell: &Doorbell) -> u8 {
    match doorbell.filter() {
        Filter::Value { .. } => 0,
        Filter::Width(_) => 1,
        Filter::Any { .. } => 2,
        Filter::Fallback { .. } => 3,
    }
}

/// Two that some write would reach at the same rank, or that compare under different masks.
fn collide(one: &Doorbell, other: &Doorbell) -> bool {
    let place = |doorbell: &Doorbell| (doorbell.bytes().space(), doorbell.bytes().first());
    let wildcards = |a: Filter, b: Filter| match (a, b) {
        (Filter::Width(w), Filter::Width(width)) => w == width,
        (Filter::Width(_) | Filter::Any { .. }, Filter::Any { .. }) => true,
        _ => false,
    };
    place(one) == place(other)
        && match (one.filter(), other.filter()) {
            (
                Filter::Value { width: w, value: v, mask: m },
                Filter::Value { width, value, mask },
            ) => w == width && (m != mask || v == value),
            (Filter::Fallback { .. }, Filter::Fallback { .. }) => true,
            (a, b) => wildcards(a, b) || wildcards(b, a),
        }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_agrees_with_a_list(
        wanted in doorbells(),
        kicks in prop::collection::vec(kick(), 1..40),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (mut sorted, mut list) = (Vec::<Doorbell>::new(), Vec::<Doorbell>::new());
        for doorbell in wanted {
            match table::place(&sorted, &doorbell) {
                Ok(index) => {
                    prop_assert!(!list.iter().any(|old| collide(old, &doorbell)), "{doorbell:?}");
                    sorted.insert(index, doorbell);
                    list.push(doorbell);
                }
                Err(_) => prop_assert!(list.iter().any(|old| collide(old, &doorbell))),
            }
        }
        for which in gone {
            if !list.is_empty() {
                let doorbell = list.swap_remove(which.index(list.len()));
                let index = table::position(&sorted, &doorbell);
                prop_assert_eq!(index.map(|index| sorted.remove(index)), Some(doorbell));
                prop_assert_eq!(table::position(&sorted, &doorbell), None);
            }
        }
        // Each is asked for what it takes as well, so that not all kicks go nowhere.
        let meant = list.iter().map(|doorbell| {
            let bytes = doorbell.bytes();
            let (width, value) = match doorbell.filter() {
                Filter::Value { width, value, .. } => (width, value),
                Filter::Width(width) => (width, 2),
                Filter::Any { .. } | Filter::Fallback { .. } => (Width::One, 3),
            };
            Kick::new(bytes.space(), bytes.first(), width, value)
        });
        for kick in meant.chain(kicks) {
            let takers = list.iter().filter(|doorbell| doorbell.takes(&kick));
            let expected = takers.min_by_key(|doorbell| rank(doorbell)).copied();
            let found = table::find(&sorted, &kick).map(|index| sorted[index]);
            prop_assert_eq!(found, expected, "{:?}", kick);
        }
    }

    /// Also on a Xen that now and then does not take bytes back.
    #[test]
    fn claims_agree_with_a_count_for_each_byte(
        steps in prop::collection::vec((place(), 1_u64..=8, any::<bool>(), any::<bool>()), 1..40),
        accesses in prop::collection::vec((place(), width()), 1..20),
    ) {
        let mut claims: Vec<Claim> = Vec::new();
        let mut live: Vec<Bytes> = Vec::new();
        let mut mapped: Vec<(Space, u64)> = Vec::new();
        for ((space, first), len, take, keeps) in steps {
            if take || live.is_empty() {
                let Ok(bytes) = Bytes::new(space, first, first.saturating_add(len - 1)) else {
                    continue;
                };
                let pieces: Vec<_> = claims::acquire(&claims, bytes).collect();
                for piece in pieces.iter().filter(|piece| piece.debt == Debt::Map) {
                    for byte in each(&piece.claim.bytes) {
                        prop_assert!(!mapped.contains(&byte), "mapped twice: {byte:?}");
                        mapped.push(byte);
                    }
                }
                claims = pieces.into_iter().map(|piece| piece.claim).collect();
                live.push(bytes);
            } else {
                let bytes = live.swap_remove(usize::try_from(first % 7).unwrap() % live.len());
                let pieces: Vec<_> = claims::release(&claims, bytes).collect();
                claims.clear();
                for piece in pieces {
                    if piece.debt != Debt::Unmap || keeps {
                        claims.push(piece.claim);
                    } else {
                        let given_back: Vec<_> = each(&piece.claim.bytes).collect();
                        mapped.retain(|byte| !given_back.contains(byte));
                    }
                }
            }
            let ordered = claims.windows(2).all(|pair| {
                let [one, next] = [pair[0].bytes, pair[1].bytes];
                (one.space(), one.last()) < (next.space(), next.first())
            });
            prop_assert!(ordered, "{claims:?}");
            for byte in live.iter().flat_map(each) {
                prop_assert!(mapped.contains(&byte), "{byte:?} is not mapped");
            }
            let known: Vec<_> = claims.iter().flat_map(|claim| each(&claim.bytes)).collect();
            prop_assert_eq!(known.len(), mapped.len());
            prop_assert!(mapped.iter().all(|byte| known.contains(byte)));
        }
        for ((space, addr), width) in accesses {
            let access = Access { space, addr, width };
            let Ok(bytes) =
                Bytes::new(space, addr, addr.saturating_add(u64::from(width.bytes()) - 1))
            else {
                continue;
            };
            if bytes.last() - bytes.first() + 1 != u64::from(width.bytes()) {
                continue;
            }
            let held = |byte| live.iter().any(|bytes| each(bytes).any(|other| other == byte));
            prop_assert_eq!(claims::holds(&claims, &access), each(&bytes).all(held));
            let met = live.iter().any(|live| each(live).any(|b| each(&bytes).any(|o| o == b)));
            prop_assert_eq!(live.iter().any(|live| live.meet(&access)), met);
        }
    }

    #[test]
    fn no_kick_is_lost_by_the_store(
        kicks in prop::collection::vec(kick(), 0..20),
        wanted in prop::collection::vec(kick(), 0..10),
    ) {
        let mut store = Held::<6>::new();
        let mut all: Vec<Kick> = Vec::new();
        for kick in kicks {
            store.insert(kick);
            all.push(kick);
        }
        for kick in wanted.iter().chain(&all.clone()) {
            // A signal too many is allowed only if something found no place.
            let came = all.contains(kick);
            let signalled = store.take(|held| held == kick);
            prop_assert!(signalled || !came, "{kick:?} is lost");
            prop_assert!(came || !signalled || store.overflowed() > 0);
            all.retain(|other| other != kick);
        }
        prop_assert_eq!(store.marks(), []);
    }
}

fn each(bytes: &Bytes) -> impl Iterator<Item = (Space, u64)> {
    let space = bytes.space();
    (bytes.first()..=bytes.last()).map(move |byte| (space, byte))
}
