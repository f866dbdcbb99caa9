//! Xenstore's messages as bytes. Nothing here waits, and no input causes a panic.

use crate::linux::sys::xenstore::{ERROR, ERRORS, HEADER, PAYLOAD_MAX};
use core::str;
use rustix::io::Errno;

/// One message, its payload still in the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u32,
    pub(super) request: u32,
    pub(super) transaction: u32,
    pub(super) payload: &'a [u8],
}

/// What a request says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    /// The transaction, or 0.
    pub(super) transaction: u32,
    /// Strings, each of which is terminated by a NUL.
    pub(super) parts: &'a [&'a str],
    /// Bytes at the end, which are not terminated.
    pub(super) value: &'a [u8],
}

/// A message outside of any transaction, each part of its payload terminated by a NUL. Errors as
/// [`encode_body`].
#[cfg(any(test, fuzzing))]
pub(super) fn encode(kind: u32, request: u32, parts: &[&str]) -> Result<Vec<u8>, Errno> {
    encode_body(kind, request, &Body { transaction: 0, parts, value: &[] })
}

/// A request.
///
/// # Errors
/// [`Errno::INVAL`] if a part contains a NUL; [`Errno::TOOBIG`] if the payload is longer than the
/// daemon accepts: it would hang up.
pub(super) fn encode_body(kind: u32, request: u32, body: &Body<'_>) -> Result<Vec<u8>, Errno> {
    let Body { transaction, parts, value } = *body;
    if parts.iter().any(|part| part.contains('\0')) {
        return Err(Errno::INVAL);
    }
    let length = parts.iter().map(|part| part.len() + 1).sum::<usize>() + value.len();
    let length = match u32::try_from(length) {
        Ok(bytes) if length <= PAYLOAD_MAX => bytes,
        _ => return Err(Errno::TOOBIG),
    };
    let mut bytes: Vec<u8> = [kind, request, transaction, length].map(u32::to_ne_bytes).concat();
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(value);
    Ok(bytes)
}

/// The first message of the received bytes, and the bytes after it. `None`: it is not complete.
///
/// # Errors
/// [`Errno::PROTO`] if it is longer than a message can be; the messages after it cannot be found.
pub(super) fn split(bytes: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, Errno> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let (words, _) = header.as_chunks::<4>();
    let word = |index: usize| u32::from_ne_bytes(words[index]);
    let length = usize::try_from(word(3)).map_err(|_| Errno::PROTO)?;
    if length > PAYLOAD_MAX {
        return Err(Errno::PROTO);
    }
    let (kind, request, transaction) = (word(0), word(1), word(2));
    Ok(rest
        .split_at_checked(length)
        .map(|(payload, rest)| (Message { kind, request, transaction, payload }, rest)))
}

/// The payload of a reply to a request of `kind`.
///
/// # Errors
/// The daemon's error; [`Errno::PROTO`] for a reply to another request, or an unknown error.
pub(super) fn answer<'a>(reply: &Message<'a>, kind: u32) -> Result<&'a [u8], Errno> {
    match reply.kind {
        ERROR => Err(strings(reply.payload)
            .next()
            .and_then(|name| ERRORS.iter().find(|(known, _)| *known == name))
            .map_or(Errno::PROTO, |(_, errno)| *errno)),
        found if found == kind => Ok(reply.payload),
        _ => Err(Errno::PROTO),
    }
}

/// The strings of a payload, each terminated by a NUL; strings that are not UTF-8 or not terminated are
/// left out.
pub(super) fn strings(payload: &[u8]) -> impl Iterator<Item = &str> {
    let ended = payload.iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1);
    payload[..ended]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|part| str::from_utf8(part.strip_suffix(&[0])?).ok())
}

/// Whether an event belongs to the watch that was set with `token`.
pub(super) fn is_event_of(payload: &[u8], token: &str) -> bool {
    strings(payload).nth(1) == Some(token)
}

/// For the fuzzer: messages are split at their lengths, and no input causes a panic.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let mut left = bytes;
    while let Ok(Some((message, rest))) = split(left) {
        assert_eq!(HEADER + message.payload.len() + rest.len(), left.len());
        let _ = answer(&message, message.kind);
        let _ = is_event_of(message.payload, "token");
        let parts: Vec<&str> = strings(message.payload).collect();
        let again = encode(message.kind, message.request, &parts).unwrap();
        let (same, rest_of_it) = split(&again).unwrap().unwrap();
        assert!(strings(same.payload).eq(parts) && rest_of_it.is_empty());
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::sys::xenstore::{READ, WATCH_EVENT};

    fn message(kind: u32, payload: &[u8]) -> Message<'_> {
        Message { kind, request: 1, transaction: 0, payload }
    }

    #[test]
    fn an_encoded_message_can_be_split() {
        let bytes = encode(READ, 7, &["/local/domain/1", "x"]).unwrap();
        let (found, rest) = split(&bytes).unwrap().unwrap();
        assert_eq!((found.kind, found.request), (READ, 7));
        assert_eq!((found.payload, rest), (&b"/local/domain/1\0x\0"[..], &b""[..]));
    }

    #[test]
    fn a_message_is_incomplete_before_its_last_byte() {
        let bytes = encode(READ, 7, &["/a"]).unwrap();
        assert!((0..bytes.len()).all(|length| split(&bytes[..length]) == Ok(None)));
        let two = [&bytes[..], &bytes[..3]].concat();
        assert_eq!(split(&two).unwrap().unwrap().1.len(), 3);
    }

    #[test]
    fn a_payload_has_a_limit_in_both_directions() {
        let longest = "x".repeat(PAYLOAD_MAX - 1);
        assert!(split(&encode(READ, 1, &[&longest]).unwrap()).unwrap().is_some());
        assert_eq!(encode(READ, 1, &[&longest, ""]), Err(Errno::TOOBIG));
        assert_eq!(encode(READ, 1, &["a\0b"]), Err(Errno::INVAL));
        for length in [PAYLOAD_MAX + 1, 0xFFFF_FFFF] {
            let length = u32::try_from(length).unwrap();
            let header = [READ, 1, 0, length].map(u32::to_ne_bytes).concat();
            assert_eq!(split(&header), Err(Errno::PROTO));
        }
    }

    #[test]
    fn errors_are_parsed_by_name() {
        assert_eq!(answer(&message(ERROR, b"ENOENT\0"), READ), Err(Errno::NOENT));
        for odd in [&b"ENOENT"[..], b"", b"\0", b"EWHAT\0", b"\xFF\0"] {
            assert_eq!(answer(&message(ERROR, odd), READ), Err(Errno::PROTO));
        }
    }

    #[test]
    fn an_answer_must_match_the_request() {
        assert_eq!(answer(&message(READ, b"value"), READ), Ok(&b"value"[..]));
        assert_eq!(answer(&message(WATCH_EVENT, b"a\0b\0"), READ), Err(Errno::PROTO));
    }

    #[test]
    fn unterminated_strings_are_left_out() {
        assert!(strings(b"0\x001\0\xFF\0tail").eq(["0", "1"]));
        assert!(strings(b"").eq([""; 0]) && strings(b"tail").eq([""; 0]));
        assert!(strings(b"\0\0").eq(["", ""]));
    }

    #[test]
    fn an_event_belongs_to_its_token() {
        assert!(is_event_of(b"@releaseDomain\0token\0", "token"));
        assert!(!is_event_of(b"@releaseDomain\0token", "token"));
        assert!(!is_event_of(b"token\0other\0", "token"));
        assert!(!is_event_of(b"", "token"));
    }

    /// Every short sequence of a few significant bytes is parsed without a panic, and never past its end.
    #[test]
    fn no_short_input_causes_a_panic() {
        const SIGNIFICANT: [u8; 4] = [0, 1, 4, 0xFF];
        let header = encode(READ, 1, &[]).unwrap();
        for run in 0..4_usize.pow(6) {
            let tail: Vec<u8> = (0..6).map(|at| SIGNIFICANT[(run >> (2 * at)) & 3]).collect();
            let bytes = [&header[..12], &tail].concat();
            if let Ok(Some((found, rest))) = split(&bytes) {
                assert_eq!(HEADER + found.payload.len() + rest.len(), bytes.len());
                let _ = answer(&found, READ);
            }
            let _ = answer(&message(ERROR, &tail), READ);
            let _ = is_event_of(&tail, "");
        }
    }
}
