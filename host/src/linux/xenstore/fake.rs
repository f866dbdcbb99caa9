//! A xenstored for tests, with configurable misbehaviour.

use super::Connection;
use super::wire::{self, Message};
use crate::linux::sys::xenstore::{
    DIRECTORY, DIRECTORY_PART, ERROR, PAYLOAD_MAX, READ, WATCH, WATCH_EVENT,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A daemon with some nodes, which answers every connection in a thread of its own.
pub(in crate::linux) struct Daemon(Arc<State>);

struct State {
    nodes: BTreeMap<String, String>,
    restless: bool,
    chatty: AtomicBool,
    generation: AtomicUsize,
    /// The daemon's ends of the connections.
    streams: Mutex<Vec<UnixStream>>,
}

impl Daemon {
    pub(in crate::linux) fn new(nodes: &[(&str, &str)]) -> Self {
        Self::with(nodes, false)
    }

    /// A daemon whose directories change all the time.
    pub(super) fn restless(nodes: &[(&str, &str)]) -> Self {
        Self::with(nodes, true)
    }

    fn with(nodes: &[(&str, &str)], restless: bool) -> Self {
        Self(Arc::new(State {
            nodes: nodes.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect(),
            restless,
            chatty: AtomicBool::new(false),
            generation: AtomicUsize::new(1),
            streams: Mutex::default(),
        }))
    }

    pub(in crate::linux) fn connect(&self) -> Connection {
        let (server, client) = UnixStream::pair().unwrap();
        self.0.streams.lock().unwrap().push(server.try_clone().unwrap());
        let state = Arc::clone(&self.0);
        thread::spawn(move || state.serve(server));
        Connection::to(client)
    }

    /// From now on, events and answers to other requests precede each answer, in pieces.
    pub(super) fn chatter(&self) {
        self.0.chatty.store(true, Ordering::Relaxed);
    }

    pub(in crate::linux) fn hang_up(&self) {
        for stream in self.0.streams.lock().unwrap().iter() {
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }

    /// Sends an event to every connection, with a watch or without.
    pub(in crate::linux) fn fire(&self, path: &str, token: &str) {
        for stream in self.0.streams.lock().unwrap().iter_mut() {
            stream.write_all(&event(path, token)).unwrap();
        }
    }
}

fn event(path: &str, token: &str) -> Vec<u8> {
    wire::encode(WATCH_EVENT, 0, &[path, token]).unwrap()
}

fn reply(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[kind, request, 0, length].map(u32::to_ne_bytes).concat(), payload].concat()
}

impl State {
    fn serve(&self, mut stream: UnixStream) {
        let (mut received, mut bytes) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = stream.read(&mut bytes) {
            received.extend_from_slice(&bytes[..length]);
            while let Some((message, rest)) = wire::split(&received).unwrap() {
                let answer = self.answer(&message);
                let used = received.len() - rest.len();
                received.drain(..used);
                if self.chatty.load(Ordering::Relaxed) {
                    let noise = [event("/a", "b"), reply(READ, 77, b"late"), answer].concat();
                    for piece in noise.chunks(7) {
                        stream.write_all(piece).unwrap();
                    }
                } else if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        }
    }

    fn answer(&self, message: &Message<'_>) -> Vec<u8> {
        let mut parts = wire::strings(message.payload);
        let path = parts.next().unwrap();
        let refuse = |name: &[u8]| reply(ERROR, message.request, name);
        match message.kind {
            READ => match self.nodes.range(path.to_owned()..).next() {
                Some((found, value)) if found == path => {
                    reply(READ, message.request, value.as_bytes())
                }
                Some((found, _)) if found.starts_with(&format!("{path}/")) => {
                    reply(READ, message.request, b"")
                }
                _ => refuse(b"ENOENT\0"),
            },
            DIRECTORY => match self.children(path) {
                names if names.len() > PAYLOAD_MAX => refuse(b"E2BIG\0"),
                names => reply(DIRECTORY, message.request, &names),
            },
            DIRECTORY_PART => {
                let offset: usize = parts.next().unwrap().parse().unwrap();
                let step = usize::from(self.restless);
                let generation = self.generation.fetch_add(step, Ordering::Relaxed);
                let mut payload = format!("{generation}\0").into_bytes();
                let names = self.children(path);
                let room = PAYLOAD_MAX - payload.len();
                for name in names[offset..].split_inclusive(|byte| *byte == 0) {
                    if payload.len() + name.len() > room {
                        break;
                    }
                    payload.extend_from_slice(name);
                }
                reply(DIRECTORY_PART, message.request, &payload)
            }
            // The first event precedes the answer, as the protocol allows.
            WATCH => {
                let token = parts.next().unwrap();
                [event(path, token), reply(WATCH, message.request, b"OK\0")].concat()
            }
            _ => refuse(b"ENOSYS\0"),
        }
    }

    fn children(&self, path: &str) -> Vec<u8> {
        let below = format!("{path}/");
        let inside = self.nodes.keys().filter_map(|node| node.strip_prefix(&below));
        let leaves: BTreeSet<&str> = inside.filter_map(|rest| rest.split('/').next()).collect();
        leaves.into_iter().flat_map(|leaf| [leaf.as_bytes(), b"\0"].concat()).collect()
    }
}
