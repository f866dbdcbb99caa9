//! What serde makes of the core's values, for `#[serde(serialize_with = "…")]`: an object with the
//! fields that [`Fields`] lists.

use super::Interface;
use crate::{Counters, DomId, IoServerId};
use serde::ser::{Serialize, SerializeMap, Serializer};
use xen_eventfd_core::status::Field;
pub use xen_eventfd_core::status::Fields;

/// A value as an object.
struct Object<'a, T>(&'a T);

impl<T: Fields> Serialize for Object<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        fields(self.0, to)
    }
}

/// A value as an object.
///
/// # Errors
/// The serializer's.
pub fn fields<T: Fields, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    entries(value, &mut map)?;
    map.end()
}

/// A value as an object, or nothing.
///
/// # Errors
/// The serializer's.
pub fn optional<T: Fields, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Object).serialize(to)
}

/// Values as a list of objects.
///
/// # Errors
/// The serializer's.
pub fn list<T: Fields, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(Object))
}

/// Values as a list of objects, or nothing.
///
/// # Errors
/// The serializer's.
pub fn optional_list<T: Fields, S: Serializer>(
    values: &Option<Vec<T>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let objects = values.as_ref().map(|values| values.iter().map(Object).collect::<Vec<_>>());
    objects.serialize(to)
}

/// Counters as an object, with what the userspace engine alone counts.
///
/// # Errors
/// The serializer's.
pub fn all_counters<S: Serializer>(counters: &Counters, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    entries(counters, &mut map)?;
    map.serialize_entry("failed", &counters.failed)?;
    map.end()
}

fn entries<T: Fields, M: SerializeMap>(value: &T, map: &mut M) -> Result<(), M::Error> {
    value.fields(&mut |name, field| match field {
        Field::Number(number) => map.serialize_entry(name, &number),
        Field::Word(word) => map.serialize_entry(name, word),
        Field::Flag(flag) => map.serialize_entry(name, &flag),
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn interface<S: Serializer>(interface: &Interface, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(interface.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn dom<S: Serializer>(dom: &DomId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(dom.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub(super) fn server<S: Serializer>(id: &IoServerId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(id.0)
}
