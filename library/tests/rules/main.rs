//! The engine's rules, on the model: one test each.

mod alone;
mod bench;
mod descriptors;
mod driven;
mod eventfds;
mod faults;
mod find;
mod guarded;
mod irqfds;
mod kicks;
mod lifetimes;
mod masks;
mod orphans;
mod random;
mod refusals;
mod run_dir;
mod stale;
mod status;
mod steps;
mod teardown;
