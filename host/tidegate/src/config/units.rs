//! Durations and sizes as people write them: `"1m30s"`, `"64KiB"`. It knows units and no keys.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A duration, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) Duration);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// Why a text is no duration or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    /// No number with a unit.
    #[error("not a duration such as \"250ms\", \"30s\" or \"1m30s\"")]
    Time,
    /// No number with a unit.
    #[error("not a size such as \"512B\", \"64KiB\" or \"1MiB\"")]
    Size,
    /// More than the program can count.
    #[error("out of range")]
    Range,
}

const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Time {
    pub(crate) const fn millis(millis: u64) -> Self {
        Time(Duration::from_millis(millis))
    }

    pub(crate) const fn secs(secs: u64) -> Self {
        Time(Duration::from_secs(secs))
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut rest = text;
        let mut sum: u64 = 0;
        if rest.is_empty() {
            return Err(UnitError::Time);
        }
        while !rest.is_empty() {
            let (number, behind) = split(rest, |char| char.is_ascii_digit());
            let (unit, behind) = split(behind, |char| char.is_ascii_alphabetic());
            let factor = factor(&TIMES, unit).ok_or(UnitError::Time)?;
            let number: u64 = parse(number, UnitError::Time)?;
            sum = number
                .checked_mul(factor)
                .and_then(|part| sum.checked_add(part))
                .ok_or(UnitError::Range)?;
            rest = behind;
        }
        Ok(Time::millis(sum))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text, |char| char.is_ascii_digit());
        let factor = factor(&SIZES, unit).ok_or(UnitError::Size)?;
        let number: u64 = parse(number, UnitError::Size)?;
        number.checked_mul(factor).map(Size).ok_or(UnitError::Range)
    }
}

fn split(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|char| !inside(char)).unwrap_or(text.len());
    text.split_at(end)
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    let found = units.iter().find(|(name, _)| *name == unit);
    found.map(|(_, factor)| *factor)
}

/// Digits as a number; no digits at all is a mistake of the kind that is given.
fn parse(digits: &str, none: UnitError) -> Result<u64, UnitError> {
    if digits.is_empty() {
        return Err(none);
    }
    digits.parse().map_err(|_| UnitError::Range)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIMES {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in SIZES {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64KiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "duration",
            "pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$",
            "examples": ["250ms", "30s", "1m30s"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "title": "size",
            "minimum": 0,
            "pattern": "^[0-9]{1,9}(B|KiB|MiB|GiB)$",
            "examples": ["512B", "64KiB", "1MiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1d2h", 93_600_000),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time, Time::millis(millis), "{text}");
            assert_eq!(time.to_string(), text);
        }
        for text in ["", "30", "s", "30 s", "-1s", "1.5s", "30sec", "1s2"] {
            assert_eq!(text.parse::<Time>(), Err(UnitError::Time), "{text}");
        }
        assert_eq!(
            "99999999999999999999s".parse::<Time>(),
            Err(UnitError::Range)
        );
        assert_eq!("999999999999999999d".parse::<Time>(), Err(UnitError::Range));
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("100B", 100),
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(size.to_string(), text);
        }
        for text in ["", "64", "KiB", "64KB", "64kib", "1.5MiB", "1MiB1KiB"] {
            assert_eq!(text.parse::<Size>(), Err(UnitError::Size), "{text}");
        }
        assert_eq!(
            "99999999999999999GiB".parse::<Size>(),
            Err(UnitError::Range)
        );
        assert_eq!(serde_json::from_str::<Size>("7").unwrap(), Size(7));
    }
}
