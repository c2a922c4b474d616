//! `strftime_now` for templates: a date, written by the common C directives.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::zone;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Local time in seconds, as if it were seconds since 1970 in UTC; 0 for a clock set before that.
pub(crate) fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    time.saturating_add_signed(zone::offset(time))
}

/// Writes `seconds` since 1970 by `format`. Directives it does not know stay as they are.
pub(crate) fn strftime(seconds: u64, format: &str) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = ((days + 4) % 7) as usize;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let day_of_year = days - days_before(year) + 1;
    let (weekday_name, month_name) = (DAYS[weekday], MONTHS[month as usize - 1]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let directive = chars.next();
        let unpadded = directive == Some('-');
        let directive = if unpadded { chars.next() } else { directive };
        let width = |width: usize| if unpadded { 1 } else { width };
        let number = |value: u64, digits: usize| format!("{value:0digits$}", digits = width(digits));
        let text = match directive {
            Some('Y') => number(year, 4),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:digits$}", digits = width(2)),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('j') => number(day_of_year, 3),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).into(),
            Some('A') => weekday_name.into(),
            Some('a') => weekday_name[..3].into(),
            Some('w') => weekday.to_string(),
            Some('u') => ((weekday + 6) % 7 + 1).to_string(),
            Some('B') => month_name.into(),
            Some('b' | 'h') => month_name[..3].into(),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('D' | 'x') => format!("{month:02}/{day:02}/{:02}", year % 100),
            Some('R') => format!("{hour:02}:{minute:02}"),
            Some('X') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('c') => strftime(seconds, "%a %b %e %H:%M:%S %Y"),
            Some('n') => "\n".into(),
            Some('t') => "\t".into(),
            // The date that Python's `datetime.now()` gives knows no zone.
            Some('Z' | 'z') => String::new(),
            Some('%') => "%".into(),
            Some(other) => format!("%{other}"),
            None => "%".into(),
        };
        out.push_str(&text);
    }
    out
}

/// Days from 1970-01-01 to the first day of a year.
pub(crate) fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

/// Year, month and day of a day since 1970-01-01.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut rest = days - days_before(year);
    for month in 1..=12 {
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if rest < length {
            return (year, month, rest + 1);
        }
        rest -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, format, expected) in [
            (0, "%Y-%m-%d %H:%M:%S %a %j", "1970-01-01 00:00:00 Thu 001"),
            (951_782_400, "%d %b %Y, %A", "29 Feb 2000, Tuesday"),
            (1_735_603_199, "%F %T %-d %-m %I %p", "2024-12-30 23:59:59 30 12 11 PM"),
            (1_735_689_599, "%B %e %j %u %w", "December 31 366 2 2"),
            (4_102_444_800, "%F %y %Z%z", "2100-01-01 00 "),
            (5_097_600, "%e|%-d|%q|%", " 1|1|%q|%"),
        ] {
            assert_eq!(strftime(seconds, format), expected);
        }
    }

    #[test]
    fn every_day_follows_the_last() {
        let mut last = (1969, 12, 31);
        for day in 0..200_000 {
            let date = civil(day);
            let next = date == (last.0, last.1, last.2 + 1)
                || date == (last.0, last.1 + 1, 1)
                || date == (last.0 + 1, 1, 1) && last.1 == 12;
            assert!(next, "{last:?} then {date:?}");
            last = date;
        }
    }
}
