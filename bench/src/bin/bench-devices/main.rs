//! `bench-devices`: measures what requests of a guest to its disk and its card take. In dom0 it has the guest make
//! them and counts who is woken; in the guest it makes them.

mod disk;
mod fetch;
mod guest;
mod ping;
mod processes;
mod rounds;
mod start;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use xen_eventfd_bench::devices::{Disk, Server, Ticks};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// In dom0: how a guest came up, and all its loads; prints a line for each
    Measure {
        /// Who serves the guest, as `Server` names it: pv, kernel, userspace and others
        #[arg(long, value_parser = server)]
        server: Server,
        /// When the guest was asked for, as `now` says it
        #[arg(long)]
        since: u64,
        /// The process of xen-virtio, if that serves
        #[arg(long, requires = "ran")]
        process: Option<u32>,
        /// How long that had run when the guest could, as `ran` says it
        #[arg(long)]
        ran: Option<u64>,
        /// The guest's console, to write to
        #[arg(long)]
        console: PathBuf,
        /// What the guest has written to it
        #[arg(long)]
        log: PathBuf,
        /// The guest's disk
        #[arg(long)]
        disk: PathBuf,
    },
    /// In dom0: how long xen-virtio has run when its guest does, in nanoseconds
    Ran {
        /// The process of xen-virtio
        process: u32,
        /// What it says
        said: PathBuf,
    },
    /// The time, in nanoseconds since this domain has started
    Now,
    /// In the guest: reads or writes a disk
    Disk {
        /// The disk
        path: PathBuf,
        /// The requests, in JSON
        #[arg(value_parser = requests)]
        requests: Disk,
    },
    /// In the guest: pings
    Ping {
        /// Whom
        address: Ipv4Addr,
    },
    /// Fetches a file by HTTP
    Fetch {
        /// From where
        address: Ipv4Addr,
    },
}

fn server(name: &str) -> Result<Server> {
    let named = Server::ALL.into_iter().find(|server| server.name() == name);
    named
        .with_context(|| format!("one of {} is expected", Server::ALL.map(Server::name).join(", ")))
}

fn requests(json: &str) -> Result<Disk> {
    Ok(serde_json::from_str(json)?)
}

fn print(ticks: &Ticks) -> Result<()> {
    println!("{}", serde_json::to_string(ticks)?);
    Ok(())
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Measure { server, since, process, ran, console, log, disk } => {
            let guest = guest::Guest::new(console, log, disk);
            println!("{}", start::started(&guest, server, since, process.zip(ran))?);
            guest.measure(server)
        }
        Command::Ran { process, said } => {
            println!("{}", start::until_it_runs(process, &said)?);
            Ok(())
        }
        Command::Now => {
            println!("{}", start::now());
            Ok(())
        }
        Command::Disk { path, requests } => print(&disk::measure(&path, requests)?),
        Command::Ping { address } => print(&ping::measure(address)?),
        Command::Fetch { address } => print(&fetch::measure(address)?),
    }
}
