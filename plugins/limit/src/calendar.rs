//! When a window of the calendar ends: seconds, minutes, hours, days, weeks and months of UTC. Reads no clock.

use crate::words::{Cut, Period};

const DAY: u64 = 86_400_000;

/// The end of the window in which a moment lies; both in milliseconds since 1970.
pub(crate) fn window_end(now: u64, period: Period) -> u64 {
    match period.cut {
        Cut::Even => next_multiple(now, period.length.max(1)),
        // 1970 began on a Thursday: the Monday before is three days earlier.
        Cut::Week => next_multiple(now.saturating_add(3 * DAY), 7 * DAY).saturating_sub(3 * DAY),
        Cut::Month => month_end(now / DAY).saturating_mul(DAY),
    }
}

fn next_multiple(now: u64, length: u64) -> u64 {
    (now / length).saturating_add(1).saturating_mul(length)
}

/// The day on which the next month begins, both counted from 1970-01-01. Years are taken to begin in March, so that the
/// day that leap years add is the last of a year.
fn month_end(day: u64) -> u64 {
    let day = day.saturating_add(719_468);
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months in March's order have 153 days in five.
    let month = (5 * day_of_year + 2) / 153;
    let begins = |month: u64| (153 * month + 2) / 5;
    let length = if month < 11 {
        begins(month + 1) - begins(month)
    } else {
        // February: up to the first day of the next year.
        let year = year_of_era + 1;
        let leap = year % 4 == 0 && (year % 100 != 0 || year == 400);
        28 + u64::from(leap)
    };
    era * 146_097 + (day_of_era - day_of_year) + day_of_year - (day_of_year - begins(month))
        + length
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of a date, by counting days one by one.
    fn at(year: u64, month: u64, day: u64) -> u64 {
        let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
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
        let before: u64 = lengths
            .iter()
            .take(usize::try_from(month - 1).unwrap())
            .sum();
        (days + before + day - 1) * DAY
    }

    fn end(period: &str, now: u64) -> u64 {
        window_end(now, Period::parse(period).unwrap())
    }

    #[test]
    fn days_and_hours_end_where_clocks_say() {
        let noon = at(2026, 11, 24) + DAY / 2;
        assert_eq!(end("day", noon), at(2026, 11, 25));
        assert_eq!(end("day", at(2026, 11, 24)), at(2026, 11, 25));
        assert_eq!(end("day", at(2026, 11, 25) - 1), at(2026, 11, 25));
        assert_eq!(end("hour", noon + 1), noon + 3_600_000);
        assert_eq!(end("10s", noon + 9_999), noon + 10_000);
        assert_eq!(end("second", u64::MAX), u64::MAX);
    }

    #[test]
    fn weeks_end_on_mondays() {
        // 2026-11-23 is a Monday.
        assert_eq!(end("week", at(2026, 11, 22)), at(2026, 11, 23));
        assert_eq!(end("week", at(2026, 11, 23)), at(2026, 11, 30));
        assert_eq!(end("week", 0), at(1970, 1, 5));
    }

    #[test]
    fn months_end_where_the_next_begins_in_every_year() {
        for year in 1970..2110 {
            for month in 1..=12 {
                let next = if month == 12 {
                    at(year + 1, 1, 1)
                } else {
                    at(year, month + 1, 1)
                };
                for now in [at(year, month, 1), at(year, month, 15) + 7, next - 1] {
                    assert_eq!(end("month", now), next, "{year}-{month}");
                }
            }
        }
        assert_eq!(end("month", at(2000, 2, 29)), at(2000, 3, 1));
        assert_eq!(end("month", at(2400, 2, 29)), at(2400, 3, 1));
    }
}
