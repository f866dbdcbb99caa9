//! What `--json` prints, and how: `docs/json.md` and `docs/json.schema.json` are its reference.
//!
//! Each object is one line. It begins with the version of the schema and the object's type. Numbers are
//! such that every reader of JSON holds them exactly: what a guest writes and where (the members of
//! [`HEXADECIMAL`]) are strings as the command line takes them, and a counter ends at [`GREATEST`].

use serde::Serialize;
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// The version of the schema. It changes when a member goes, or changes its meaning; not when one comes.
pub const SCHEMA: u32 = 1;
/// 2^53 - 1, above which a double-precision number is not exact. At a million kicks in a second, a
/// counter gets there in 285 years.
pub const GREATEST: u64 = (1 << 53) - 1;
/// Members that are addresses, values or masks of 64 bits: strings like `"0xfe000050"`.
pub const HEXADECIMAL: [&str; 4] = ["addr", "registers", "value", "mask"];

#[derive(Serialize)]
struct Line<'a, T> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// An object of a type, without an end of line.
///
/// # Errors
/// When `body` is no object.
pub fn line(kind: &str, body: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, Exact::default());
    Line { schema: SCHEMA, kind, body }.serialize(&mut serializer)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes numbers as [`line`] promises.
#[derive(Debug, Default)]
struct Exact {
    /// The key of the member whose value is written.
    key: String,
    in_key: bool,
}

impl Formatter for Exact {
    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if HEXADECIMAL.contains(&self.key.as_str()) {
            return write!(writer, "\"{value:#x}\"");
        }
        write!(writer, "{}", value.min(GREATEST))
    }

    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        self.write_i128(writer, value.into())
    }

    fn write_u128<W: ?Sized + Write>(&mut self, writer: &mut W, value: u128) -> io::Result<()> {
        write!(writer, "{}", value.min(GREATEST.into()))
    }

    fn write_i128<W: ?Sized + Write>(&mut self, writer: &mut W, value: i128) -> io::Result<()> {
        let greatest = i128::from(GREATEST);
        write!(writer, "{}", value.clamp(-greatest, greatest))
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.key.clear();
        self.in_key = true;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.in_key = false;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if self.in_key {
            self.key.push_str(fragment);
        }
        writer.write_all(fragment.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_begins_with_its_version_and_its_type() {
        assert_eq!(
            line("list", &json!({"guests": []})).unwrap(),
            r#"{"schema":1,"type":"list","guests":[]}"#
        );
    }

    #[test]
    fn what_a_guest_writes_is_a_string_and_no_number_is_beyond_what_javascript_holds() {
        let body = json!({
            "addr": u64::MAX, "value": 0, "mask": 255,
            "delivered": u64::MAX, "lost": i64::MIN, "most": GREATEST, "ports": [u64::MAX],
            "inner": {"addr": 80, "len": 4}, "after": 9_007_199_254_740_993_u64,
        });
        let text = line("x", &body).unwrap();
        for member in [
            r#""addr":"0xffffffffffffffff""#,
            r#""value":"0x0""#,
            r#""mask":"0xff""#,
            r#""delivered":9007199254740991"#,
            r#""lost":-9007199254740991"#,
            r#""most":9007199254740991"#,
            r#""ports":[9007199254740991]"#,
            r#"{"addr":"0x50","len":4}"#,
            r#""after":9007199254740991"#,
        ] {
            assert!(text.contains(member), "no {member} in {text}");
        }
    }

    #[test]
    fn a_key_with_escapes_is_a_key() {
        assert_eq!(
            line("x", &json!({"a\"addr": 80})).unwrap(),
            r#"{"schema":1,"type":"x","a\"addr":80}"#
        );
    }
}
