//! What is run on real Xen, in the machines of `xen-eventfd-lab`: one module for each command of
//! `cargo xtask` that boots, named like it.

pub mod bench;
pub mod boots;
pub mod devices;
pub mod hostile;
pub mod kmod;
pub mod lab;
mod modules;
mod page;
pub mod soak;
pub mod tally;
mod upstream;
pub mod vhost;

pub use tally::Tally;

/// Whether something is asked for by one of these parts of its name, or everything is.
fn is_asked_for(name: &str, parts: &[String]) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}
