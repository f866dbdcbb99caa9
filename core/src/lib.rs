//! The rules of xen-eventfd, and nothing else.
//!
//! What a valid registration is and which two collide ([`doorbell`], [`table`]), which bytes of a
//! guest are ours ([`claims`]), what happens to a kick that none waits for yet ([`held`]), and how
//! a slot of the ioreq page moves through its states ([`slot`]). Every engine obeys these rules by
//! calling them: the thread in userspace through cargo, the kernel module by including
//! `protocol/mod.rs` by path. Hence: no memory of its own, no unsafe code, no dependency, edition
//! 2021 and Rust 1.85, and inside `protocol` only `self` and `super` paths.
//!
//! The way of a kick, and the module for each stop:
//!
//! ```text
//! guest writes  ->  slot  ->  ioreq  ->  table  ->  (an eventfd, the engine's)
//!                                          \-> held, if none waits for it yet
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod protocol;

pub use protocol::*;
