//! A xenstored for tests, with configurable misbehaviour.

use super::Connection;
use super::wire::{self, Message};
use crate::linux::sys::xenstore::{
    DIRECTORY, DIRECTORY_PART, ERROR, PAYLOAD_MAX, READ, RM, SET_PERMS, TRANSACTION_END,
    TRANSACTION_START, UNWATCH, WATCH, WATCH_EVENT, WRITE,
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

type Nodes = BTreeMap<String, Vec<u8>>;

struct State {
    nodes: Mutex<Nodes>,
    /// The nodes as each transaction found them, and as it leaves them.
    transactions: Mutex<BTreeMap<u32, (Nodes, Nodes)>>,
    watches: Mutex<BTreeSet<(String, String)>>,
    permissions: Mutex<BTreeMap<String, Vec<String>>>,
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
            nodes: Mutex::new(
                nodes.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect(),
            ),
            transactions: Mutex::default(),
            watches: Mutex::default(),
            permissions: Mutex::default(),
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

    /// What was set last for a node.
    pub(super) fn permissions(&self, path: &str) -> Vec<String> {
        self.0.permissions.lock().unwrap()[path].clone()
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

    /// Does something with the nodes as a transaction sees them.
    fn with<T>(&self, transaction: u32, act: impl FnOnce(&mut Nodes) -> T) -> T {
        match self.transactions.lock().unwrap().get_mut(&transaction) {
            Some((_, changed)) => act(changed),
            None => act(&mut self.nodes.lock().unwrap()),
        }
    }

    fn begin(&self) -> u32 {
        let nodes = self.nodes.lock().unwrap().clone();
        let number = u32::try_from(self.generation.fetch_add(1, Ordering::Relaxed)).unwrap();
        self.transactions.lock().unwrap().insert(number, (nodes.clone(), nodes));
        number
    }

    /// `false`: the nodes have changed since it began.
    fn end(&self, transaction: u32, commit: bool) -> bool {
        let (before, after) = self.transactions.lock().unwrap().remove(&transaction).unwrap();
        let mut nodes = self.nodes.lock().unwrap();
        let same = *nodes == before;
        if commit && same {
            *nodes = after;
        }
        same || !commit
    }

    fn answer(&self, message: &Message<'_>) -> Vec<u8> {
        let mut parts = wire::strings(message.payload);
        let path = parts.next().unwrap();
        let below = format!("{path}/");
        let refuse = |name: &[u8]| reply(ERROR, message.request, name);
        let accept = || reply(message.kind, message.request, b"OK\0");
        let (transaction, given) = (message.transaction, path.to_owned());
        match message.kind {
            READ => {
                let found = self.with(transaction, |nodes| {
                    let next = nodes.range(given..).next();
                    next.map(|(found, value)| (found.clone(), value.clone()))
                });
                match found {
                    Some((found, value)) if found == path => reply(READ, message.request, &value),
                    Some((found, _)) if found.starts_with(&below) => {
                        reply(READ, message.request, b"")
                    }
                    _ => refuse(b"ENOENT\0"),
                }
            }
            WRITE => {
                let value = message.payload[path.len() + 1..].to_vec();
                self.with(transaction, |nodes| nodes.insert(given, value));
                accept()
            }
            RM => {
                let ours = |node: &String| node == path || node.starts_with(&below);
                self.with(transaction, |nodes| nodes.retain(|node, _| !ours(node)));
                accept()
            }
            SET_PERMS => {
                let all = parts.map(str::to_owned).collect();
                self.permissions.lock().unwrap().insert(given, all);
                accept()
            }
            TRANSACTION_START => {
                reply(message.kind, message.request, format!("{}\0", self.begin()).as_bytes())
            }
            TRANSACTION_END if self.end(transaction, path == "T") => accept(),
            TRANSACTION_END => refuse(b"EAGAIN\0"),
            UNWATCH => {
                let watch = (given, parts.next().unwrap().to_owned());
                let known = self.watches.lock().unwrap().remove(&watch);
                if known { accept() } else { refuse(b"ENOENT\0") }
            }
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
                self.watches.lock().unwrap().insert((given, token.to_owned()));
                [event(path, token), reply(WATCH, message.request, b"OK\0")].concat()
            }
            _ => refuse(b"ENOSYS\0"),
        }
    }

    fn children(&self, path: &str) -> Vec<u8> {
        let below = format!("{path}/");
        let nodes = self.nodes.lock().unwrap();
        let inside = nodes.keys().filter_map(|node| node.strip_prefix(&below));
        let leaves: BTreeSet<&str> = inside.filter_map(|rest| rest.split('/').next()).collect();
        leaves.into_iter().flat_map(|leaf| [leaf.as_bytes(), b"\0"].concat()).collect()
    }
}
