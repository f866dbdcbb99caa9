//! How the crate `virtio-drivers` finds the functions of a bus.

use crate::driver::{DOORBELL, REGISTERS, description, with};
use std::cell::RefCell;
use std::rc::Rc;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};
use virtio_drivers::transport::pci::virtio_device_type;
use xen_eventfd_core::{PciFunction, Width};
use xen_eventfd_virtio::{Bus, Effect, Function, FunctionDescription, Target};

/// Accesses of a guest to the bus.
#[derive(Clone)]
struct Accesses {
    bus: Rc<RefCell<Bus>>,
    effects: Rc<RefCell<Vec<Effect>>>,
}

fn target(at: DeviceFunction, register: u8) -> Target {
    let function = PciFunction::new(at.bus, at.device, at.function).unwrap();
    Target::Config { function, register: register.into() }
}

impl ConfigurationAccess for Accesses {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        let answer = self.bus.borrow_mut().read(target(at, register), Width::Four, |_, _| false);
        answer.value.try_into().unwrap()
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        let answer = self.bus.borrow_mut().write(target(at, register), Width::Four, data.into());
        self.effects.borrow_mut().extend(answer.effects);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

fn root() -> (PciRoot<Accesses>, Accesses) {
    let mut bus = Bus::with_host_bridge();
    bus.insert(PciFunction::from_sbdf(0x08), Function::new(&description()).unwrap());
    let rng = with(|device| (device.device_type, device.config) = (4, Vec::new()));
    let rng = FunctionDescription { registers: 0, doorbell: 0, ..rng };
    bus.insert(PciFunction::from_sbdf(0x48), Function::new(&rng).unwrap());
    let accesses = Accesses { bus: Rc::new(RefCell::new(bus)), effects: Rc::default() };
    (PciRoot::new(accesses.clone()), accesses)
}

#[test]
fn the_bridge_and_each_function_are_found() {
    let (root, _) = root();
    let found: Vec<_> = root
        .enumerate_bus(0)
        .map(|(at, info)| (at.device, info.class, info.subclass, virtio_device_type(&info)))
        .collect();
    let network = Some(DeviceType::Network);
    let entropy = Some(DeviceType::EntropySource);
    assert_eq!(found, [(0, 6, 0, None), (1, 2, 0, network), (9, 0xFF, 0, entropy)]);
}

#[test]
fn bars_are_sized_with_decoding_off_and_are_back_afterwards() {
    let (mut root, accesses) = root();
    let network = DeviceFunction { bus: 0, device: 1, function: 0 };
    root.set_command(network, Command::IO_SPACE | Command::MEMORY_SPACE);
    accesses.effects.take();
    let [Some(registers), Some(doorbell), None, None, None, None] = root.bars(network).unwrap()
    else {
        panic!("a memory BAR and an I/O BAR are expected");
    };
    let memory = BarInfo::Memory {
        address_type: MemoryBarType::Width32,
        prefetchable: false,
        address: REGISTERS.into(),
        size: 0x2000,
    };
    assert_eq!(registers, memory);
    assert_eq!(doorbell, BarInfo::IO { address: DOORBELL.into(), size: 4 });
    let effects = accesses.effects.take();
    let places: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Moved { to, .. } => *to,
            other => panic!("{other:?}"),
        })
        .collect();
    // Six BARs are looked at; at no time is one decoded elsewhere.
    let (memory, port) = (Some(u64::from(REGISTERS)), Some(u64::from(DOORBELL)));
    assert_eq!(places.len(), 6 * 4);
    assert!(places.iter().all(|to| [None, memory, port].contains(to)));
    assert_eq!(places[22..], [memory, port]);
}

#[test]
fn the_capabilities_are_those_of_a_modern_function() {
    let (root, _) = root();
    let network = DeviceFunction { bus: 0, device: 1, function: 0 };
    let kinds: Vec<_> =
        root.capabilities(network).map(|cap| (cap.id, cap.private_header >> 8)).collect();
    assert_eq!(kinds[1..], [(9, 1), (9, 2), (9, 3), (9, 4), (9, 5)]);
    assert_eq!(kinds[0].0, 0x11);
}
