//! Two programs that exchange bytes by sockets: `sockets connect ADDRESS` and `sockets listen ADDRESS`.
//!
//! The first sends its input, once that has come to its end, and prints what comes back; the second takes one
//! connection, prints what comes, and then sends its own input. Their standard error gets `listening` and `connected`,
//! a line each, once that is so. An ADDRESS is `vsock:CID:PORT`, a Unix socket's `unix:PATH`, or `unix:PATH:PORT` for
//! that by which `vhost-device-vsock` connects to a port of its guest.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use vsock::{VsockListener, VsockStream};

/// A connection, whichever way it goes.
trait Connection: Read + Write {}

impl<C: Read + Write> Connection for C {}

/// Where a connection goes to.
enum Address {
    Vsock { cid: u32, port: u32 },
    Unix { path: String, port: Option<u32> },
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["connect", address] => {
            let mut connection = connect(&parse(address)?)?;
            eprintln!("connected");
            send(&mut *connection, &input()?)?;
            receive(&mut *connection)
        }
        ["listen", address] => {
            let mut connection = accept(&parse(address)?)?;
            eprintln!("connected");
            receive(&mut *connection)?;
            send(&mut *connection, &input()?)
        }
        _ => bail!("sockets connect ADDRESS, or sockets listen ADDRESS"),
    }
}

fn input() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    Ok(input)
}

fn parse(text: &str) -> Result<Address> {
    let words: Vec<&str> = text.split(':').collect();
    match words[..] {
        ["vsock", cid, port] => Ok(Address::Vsock { cid: cid.parse()?, port: port.parse()? }),
        ["unix", path] => Ok(Address::Unix { path: path.to_owned(), port: None }),
        ["unix", path, port] => {
            Ok(Address::Unix { path: path.to_owned(), port: Some(port.parse()?) })
        }
        _ => bail!("{text:?} is no address"),
    }
}

fn connect(address: &Address) -> Result<Box<dyn Connection>> {
    match address {
        Address::Vsock { cid, port } => {
            let stream = VsockStream::connect_with_cid_port(*cid, *port);
            Ok(Box::new(stream.with_context(|| format!("connecting to {cid}:{port}"))?))
        }
        Address::Unix { path, port } => {
            let mut stream =
                UnixStream::connect(path).with_context(|| format!("connecting to {path}"))?;
            if let Some(port) = port {
                // At once: `vhost-device-vsock` takes the line's first part for all of it.
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                let mut answer = String::new();
                // Nothing follows the answer before something is sent.
                BufReader::new(&stream).read_line(&mut answer)?;
                anyhow::ensure!(answer.starts_with("OK "), "{path} answers {answer:?}");
            }
            Ok(Box::new(stream))
        }
    }
}

fn accept(address: &Address) -> Result<Box<dyn Connection>> {
    match address {
        Address::Vsock { cid, port } => {
            let listener = VsockListener::bind_with_cid_port(*cid, *port);
            let listener = listener.with_context(|| format!("listening at {cid}:{port}"))?;
            eprintln!("listening");
            Ok(Box::new(listener.accept()?.0))
        }
        Address::Unix { path, .. } => {
            let listener =
                UnixListener::bind(path).with_context(|| format!("listening at {path}"))?;
            eprintln!("listening");
            Ok(Box::new(listener.accept()?.0))
        }
    }
}

/// Sends the number of bytes, and they.
fn send(connection: &mut dyn Connection, bytes: &[u8]) -> Result<()> {
    connection.write_all(&(bytes.len() as u64).to_le_bytes())?;
    connection.write_all(bytes).context("sending")
}

/// Prints as many bytes as are announced.
fn receive(connection: &mut dyn Connection) -> Result<()> {
    let mut length = [0; 8];
    connection.read_exact(&mut length).context("receiving a length")?;
    let length = u64::from_le_bytes(length);
    let mut output = std::io::stdout();
    let copied = std::io::copy(&mut connection.take(length), &mut output)?;
    // Before the other side can know that all has come.
    output.flush()?;
    anyhow::ensure!(copied == length, "{copied} bytes of {length} have come");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_what_the_other_sent() {
        let folder = std::env::temp_dir().join(format!("sockets-{}", std::process::id()));
        let address = |port| Address::Unix { path: folder.display().to_string(), port };
        let listener = UnixListener::bind(&folder).unwrap();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            writeln!(&stream, "OK 5").unwrap();
            let mut length = [0; 8];
            (&stream).read_exact(&mut length).unwrap();
            let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).unwrap()];
            (&stream).read_exact(&mut bytes).unwrap();
            (line, bytes)
        });
        let mut connection = connect(&address(Some(9))).unwrap();
        send(&mut *connection, b"some bytes").unwrap();
        assert_eq!(served.join().unwrap(), ("CONNECT 9\n".to_owned(), b"some bytes".to_vec()));
        // Then it is closed, which is no length.
        assert!(receive(&mut *connection).is_err());
        std::fs::remove_file(&folder).unwrap();
        assert!(connect(&address(None)).is_err());
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for text in ["", "unix", "vsock:1", "vsock:a:2", "unix:/x:a", "tcp:1:2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
