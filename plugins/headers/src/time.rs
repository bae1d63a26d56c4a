//! Moments as text, in UTC. Reads no clock.

use crate::number::{write, write_padded};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

struct Date {
    year: u64,
    /// From 1.
    month: u64,
    day: u64,
    /// Days since 1970-01-01, a Thursday.
    since: u64,
}

/// The day of a moment in seconds since 1970, found by going through the years' lengths in cycles of 400 years.
fn date(seconds: u64) -> Date {
    const CYCLE: u64 = 146_097;
    let since = seconds / 86_400;
    // 1970 is not the beginning of a cycle, but leap years repeat every 400 years from anywhere.
    let mut year = 1970 + 400 * (since / CYCLE);
    let mut rest = since % CYCLE;
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    let lengths = [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    Date {
        year,
        month,
        day: rest + 1,
        since,
    }
}

/// `2026-11-24T16:00:00Z` (RFC 3339).
pub(crate) fn rfc3339(seconds: u64) -> Vec<u8> {
    let date = date(seconds);
    let mut out = Vec::with_capacity(20);
    write_padded(date.year, 4, &mut out);
    out.push(b'-');
    write_padded(date.month, 2, &mut out);
    out.push(b'-');
    write_padded(date.day, 2, &mut out);
    out.push(b'T');
    time_of_day(seconds, &mut out);
    out.push(b'Z');
    out
}

/// `Tue, 24 Nov 2026 16:00:00 GMT` (RFC 9110 section 5.6.7).
pub(crate) fn http(seconds: u64) -> Vec<u8> {
    let date = date(seconds);
    let mut out = Vec::with_capacity(29);
    out.extend_from_slice(name(&DAYS, date.since % 7));
    out.extend_from_slice(b", ");
    write_padded(date.day, 2, &mut out);
    out.push(b' ');
    out.extend_from_slice(name(&MONTHS, date.month - 1));
    out.push(b' ');
    write(date.year, &mut out);
    out.push(b' ');
    time_of_day(seconds, &mut out);
    out.extend_from_slice(b" GMT");
    out
}

fn time_of_day(seconds: u64, out: &mut Vec<u8>) {
    write_padded(seconds / 3600 % 24, 2, out);
    out.push(b':');
    write_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    write_padded(seconds % 60, 2, out);
}

fn name(names: &[&'static str], index: u64) -> &'static [u8] {
    let index = usize::try_from(index).unwrap_or_default();
    names.get(index).copied().unwrap_or_default().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_standards_ask() {
        for (seconds, iso, http_date) in [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (
                784_111_777,
                "1994-11-06T08:49:37Z",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ),
            (
                951_782_400,
                "2000-02-29T00:00:00Z",
                "Tue, 29 Feb 2000 00:00:00 GMT",
            ),
            (
                1_767_225_599,
                "2025-12-31T23:59:59Z",
                "Wed, 31 Dec 2025 23:59:59 GMT",
            ),
            (
                4_107_542_400,
                "2100-03-01T00:00:00Z",
                "Mon, 01 Mar 2100 00:00:00 GMT",
            ),
        ] {
            assert_eq!(String::from_utf8(rfc3339(seconds)).unwrap(), iso);
            assert_eq!(String::from_utf8(http(seconds)).unwrap(), http_date);
        }
    }
}
