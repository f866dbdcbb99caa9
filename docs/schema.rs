//! `json.schema.json`, to hold against it what a command prints.

use serde_json::Value;
use std::collections::BTreeSet;

/// The version of the schema.
pub const VERSION: u32 = 1;
/// No integer is greater: 2^53 - 1.
pub const GREATEST: u64 = (1 << 53) - 1;

/// The schema, and which types have been seen.
#[derive(Debug)]
pub struct Schema {
    schema: Value,
    seen: BTreeSet<String>,
}

impl Default for Schema {
    fn default() -> Self {
        let schema = serde_json::from_str(include_str!("json.schema.json"));
        Self { schema: schema.expect("the schema is JSON"), seen: BTreeSet::new() }
    }
}

impl Schema {
    /// The types of objects that no line had yet.
    pub fn unseen(&self) -> BTreeSet<String> {
        self.types().difference(&self.seen).cloned().collect()
    }

    /// The types of objects.
    fn types(&self) -> BTreeSet<String> {
        let all = self.schema["oneOf"].as_array().unwrap().iter();
        all.map(|one| one["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect()
    }

    /// Checks that each line is an object of the schema. Returns their types.
    ///
    /// # Panics
    /// One is not.
    pub fn lines(&mut self, text: &str) -> Vec<String> {
        text.lines().map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> String {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert_eq!(object["schema"], VERSION, "{line}");
        let kind = object["type"].as_str().unwrap_or_else(|| panic!("no type: {line}")).to_owned();
        assert!(self.types().contains(&kind), "{kind:?} is not documented: {line}");
        self.check(&kind, &object, &self.schema["$defs"][&kind]);
        self.seen.insert(kind.clone());
        kind
    }

    /// The part of JSON Schema that the file uses. A member that it does not name is one too many.
    fn check(&self, place: &str, value: &Value, schema: &Value) {
        let wrong = |why: &str| panic!("{place} is {value}, {why}: {schema}");
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/$defs/").unwrap();
            return self.check(place, value, &self.schema["$defs"][name]);
        }
        if let Some(either) = schema["oneOf"].as_array() {
            let [schema, null] = &either[..] else { panic!("{schema}") };
            assert_eq!(null["type"], "null");
            if !value.is_null() {
                self.check(place, value, schema);
            }
            return;
        }
        if let Some(only) = schema.get("const") {
            assert_eq!(value, only, "{place}");
            return;
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let types = match &schema["type"] {
            Value::Array(types) => types.clone(),
            one => vec![one.clone()],
        };
        if !types.iter().any(|one| one == kind || one == "number" && kind == "integer") {
            wrong("of another type");
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            wrong("none of those");
        }
        if let Some(number) = value.as_i64().filter(|_| kind == "integer") {
            let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
            let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
            assert!(number.unsigned_abs() <= GREATEST, "{place} is {number}");
            if !(least..=most).contains(&number) {
                wrong("out of range");
            }
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            assert_eq!(pattern, "^0x[0-9a-f]{1,16}$", "the only one that this test knows");
            let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
            let digits = digits.filter(|digits| (1..=16).contains(&digits.len()));
            let lower = |digit: char| matches!(digit, '0'..='9' | 'a'..='f');
            if !digits.is_some_and(|digits| digits.chars().all(lower)) {
                wrong("no such number");
            }
        }
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&format!("{place}[{at}]"), item, &schema["items"]);
        }
        let (Some(members), Some(known)) = (value.as_object(), schema["properties"].as_object())
        else {
            return;
        };
        for required in schema["required"].as_array().into_iter().flatten() {
            let name = required.as_str().unwrap();
            assert!(members.contains_key(name), "{place} has no {name}: {value}");
        }
        for (name, member) in members {
            let schema = known.get(name);
            let schema =
                schema.unwrap_or_else(|| panic!("{place}.{name} is not documented: {value}"));
            self.check(&format!("{place}.{name}"), member, schema);
        }
    }
}
