//! The command as a process: its output, its signals, what it hands on, and what it does when its
//! guest reboots. The guest is one of a model that lives in the process (`examples/on_model.rs`).

mod environment;
mod json;
mod on_model;
mod output;
mod reboots;
mod signals;
