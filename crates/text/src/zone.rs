//! The local time zone, which Python's `datetime.now()` goes by: from `TZ`, else from the system's file.

use std::path::Path;

use crate::clock::{civil, days_before};
use crate::files;

/// Largest file of a time zone, in bytes.
const ZONE_BYTES: u64 = 1 << 20;

/// Seconds that local time is ahead of UTC at `time`, in seconds since 1970; 0 where nothing is known.
pub(crate) fn offset(time: u64) -> i64 {
    let time = i64::try_from(time).unwrap_or(i64::MAX);
    let file = |path: &Path| from_file(&files::read(path, ZONE_BYTES).ok()??, time);
    let found = match std::env::var("TZ") {
        Err(_) => file(Path::new("/etc/localtime")),
        Ok(name) => {
            let name = name.trim_start_matches(':');
            let inside = !name.is_empty() && !name.split('/').any(|part| part.is_empty() || part == "..");
            let known = inside.then(|| file(&Path::new("/usr/share/zoneinfo").join(name)));
            known.flatten().or_else(|| from_rule(name, time))
        }
    };
    found.unwrap_or(0)
}

/// The offset that a compiled zone file (RFC 9636) gives: its list of changes, and after the last its rule.
fn from_file(bytes: &[u8], time: i64) -> Option<i64> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let counts = |at: usize| -> Option<[usize; 6]> {
        (bytes.get(at..at + 4)? == b"TZif").then_some(())?;
        let mut counts = [0; 6];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = word(at + 20 + index * 4)?;
        }
        Some(counts)
    };
    let [utc, std, leaps, times, types, letters] = counts(0)?;
    let second = 44 + times * 5 + types * 6 + letters + leaps * 8 + std + utc;
    let [utc, std, leaps, times, types, letters] = counts(second)?;
    let start = second + 44;
    let change = |index: usize| {
        let at = start + index * 8;
        Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let footer = start + times * 9 + types * 6 + letters + leaps * 12 + std + utc;
    let rule = std::str::from_utf8(bytes.get(footer..)?).ok()?.trim();
    let passed = (0..times).take_while(|&index| change(index).is_some_and(|at| at <= time)).count();
    if passed == times && !rule.is_empty() {
        return from_rule(rule, time);
    }
    let kind = passed.checked_sub(1).map_or(Some(0), |last| bytes.get(start + times * 8 + last).copied())?;
    word(start + times * 9 + usize::from(kind) * 6).map(|offset| i64::from(offset as u32 as i32))
}

/// The offset by a rule as POSIX has it: `CET-1CEST,M3.5.0,M10.5.0/3`.
fn from_rule(rule: &str, time: i64) -> Option<i64> {
    let mut parts = rule.split(',');
    let (standard, rest) = name_and_offset(parts.next()?)?;
    let standard = standard?;
    if rest.is_empty() {
        return Some(standard);
    }
    let summer = name_and_offset(rest)?.0.unwrap_or(standard + 3600);
    let year = civil(u64::try_from(time.saturating_add(standard)).ok()? / 86_400).0;
    let starts = moment(parts.next()?, year)? - standard;
    let ends = moment(parts.next()?, year)? - summer;
    let inside = if starts < ends { (starts..ends).contains(&time) } else { !(ends..starts).contains(&time) };
    Some(if inside { summer } else { standard })
}

/// An offset after the name of a time, which counts west of Greenwich; what follows it.
fn name_and_offset(text: &str) -> Option<(Option<i64>, &str)> {
    let name = match text.strip_prefix('<') {
        Some(_) => text.find('>')? + 1,
        None => text.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(text.len()),
    };
    let rest = text.get(name..).filter(|_| name >= 3)?;
    let end = rest.find(|char: char| !char.is_ascii_digit() && !"+-:".contains(char)).unwrap_or(rest.len());
    let (offset, rest) = rest.split_at(end);
    Some((if offset.is_empty() { None } else { Some(-seconds(offset)?) }, rest))
}

/// `[+-]hours[:minutes[:seconds]]`.
fn seconds(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let parts: Vec<i64> = text
        .trim_start_matches(['+', '-'])
        .split(':')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let scaled = parts.iter().zip([3600, 60, 1]).map(|(part, scale)| part.clamp(&0, &1000) * scale);
    Some(sign * scaled.sum::<i64>())
}

/// When a rule's day comes in a year, in seconds since 1970 of that day's own time.
fn moment(rule: &str, year: u64) -> Option<i64> {
    let (day, hour) = rule.split_once('/').map_or((rule, Some(7200)), |(day, hour)| (day, seconds(hour)));
    let first = i64::try_from(days_before(year)).ok()?;
    let leap = days_before(year + 1) - days_before(year) == 366;
    let days = if let Some(rule) = day.strip_prefix('M') {
        let mut numbers = rule.split('.').map(|part| part.parse::<i64>().ok());
        let (month, week, weekday) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let starts_at =
            |month: i64| (0..366).find(|&day| i64::from(civil((first + day) as u64).1 as u32) == month);
        let begin = first + starts_at(month)?;
        let end = starts_at(month + 1).map_or(first + 365 + i64::from(leap), |day| first + day);
        let day = begin + (weekday - (begin + 4)).rem_euclid(7) + (week - 1).clamp(0, 4) * 7;
        if day >= end { day - 7 } else { day }
    } else if let Some(day) = day.strip_prefix('J') {
        let day: i64 = day.parse().ok()?;
        first + day - 1 + i64::from(leap && day >= 60)
    } else {
        first + day.parse::<i64>().ok()?
    };
    Some(days * 86_400 + hour?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn rules() {
        let hour = |rule, time| super::from_rule(rule, time).unwrap() as f64 / 3600.0;
        let year = |rule| [1_768_000_000, 1_784_000_000].map(|time| hour(rule, time));
        assert_eq!(year("CET-1CEST,M3.5.0,M10.5.0/3"), [1.0, 2.0]);
        assert_eq!(year("NZST-12NZDT,M9.5.0,M4.1.0/3"), [13.0, 12.0]);
        assert_eq!(year("<-0330>3:30"), [-3.5, -3.5]);
    }
}
