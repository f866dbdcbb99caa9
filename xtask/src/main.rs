//! Part of xen-eventfd.
fn main() {}
