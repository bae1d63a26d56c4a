//! JSON in which no name stands twice: of two members of one name, one reader takes the first and another the last (RFC 8725
//! section 2.4 is about such differences). Nesting is bounded by serde_json. And JSON as text: serde_json's own writer would bring
//! twenty kilobytes of tables for the shortest form of a number.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value without doubles.
struct Unique(Value);

/// Reads an object; none if it is no JSON, no object, or has a member twice.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Unique>(bytes) {
        Ok(Unique(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// Writes a value behind what a text has.
pub(crate) fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(value) => number(value, out),
        Value::String(text) => string(text, out),
        Value::Array(list) => {
            out.push('[');
            for (index, one) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(one, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (index, (name, one)) in object.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                string(name, out);
                out.push(':');
                write(one, out);
            }
            out.push('}');
        }
    }
}

/// Writes a number.
pub(crate) fn number(number: &Number, out: &mut String) {
    let text = match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(number), ..) => number.to_string(),
        (_, Some(number), _) => number.to_string(),
        (.., Some(number)) => number.to_string(),
        _ => return,
    };
    out.push_str(&text);
}

/// Writes a text with its quotes.
pub(crate) fn string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter < ' ' => {
                out.push_str("\\u00");
                out.push_str(&crate::api_key::hex(&[letter as u8]));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Unique)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let text = r#"{"a":[1,-2,1.5,1e300,18446744073709551615,"x\"\\\u0001\u00e4",null,true,false],"b":{"c":{},"d":[]}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let mut out = String::new();
        write(&value, &mut out);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), value, "{out}");
        assert!(out.contains("\\u0001"), "{out}");
    }

    #[test]
    fn doubles_are_found_at_any_depth() {
        let text = br#"{"a": [1, -2, 1e3, "x", null, true], "b": {"c": {}}}"#;
        let plain: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(object(text).map(Value::Object), Some(plain));
        for bad in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": [{"b": 1, "b": 2}]}"#,
            "{\"a\": 1, \"\\u0061\": 2}",
            "[]",
            "{} {}",
            "",
        ] {
            assert_eq!(object(bad.as_bytes()), None, "{bad}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(object(format!("{{\"a\":{deep}").as_bytes()), None);
    }
}
