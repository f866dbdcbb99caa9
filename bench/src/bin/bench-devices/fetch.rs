//! A file by HTTP, past the file system of the one who fetches it.

use crate::rounds;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;
use xen_eventfd_bench::devices::{FILE, Ticks};

/// Longer than any server needs to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Fetches the file `file`: once to warm up, and once to be measured.
pub(crate) fn measure(address: Ipv4Addr) -> Result<Ticks> {
    fetch(address)?;
    rounds::measure(1, 1, || fetch(address))
}

fn fetch(address: Ipv4Addr) -> Result<()> {
    let mut stream = TcpStream::connect((address, 80)).context("no HTTP server answers")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n")?;
    let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => length += read as u64,
        }
    }
    // With a header, and with an error's text in its place.
    ensure!(length > FILE, "{length} bytes came");
    Ok(())
}
