//! Days and months in the policy's time zone.
//!
//! The filter has no time-zone database. A zone is a list of offset changes, which the command line has looked up.

/// A time zone: the changes of its offset from UTC, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The time from which each offset holds, in seconds since the Unix epoch, and the offset in seconds, positive to
    /// the east. The first time is `i64::MIN`.
    changes: Vec<(i64, i32)>,
}

/// Remembers the last day and month of a zone, which usually hold the next request too. Each zone needs its own memo.
#[derive(Debug, Clone, Copy, Default)]
pub struct CalendarMemo(Option<(Period, Period)>);

/// One day or one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The number of the period. Later periods have higher numbers.
    pub number: u32,
    /// When it begins, in milliseconds since the Unix epoch.
    pub begins_ms: u64,
    /// When the next one begins, in milliseconds since the Unix epoch.
    pub ends_ms: u64,
}

const DAY: i64 = 86_400;

impl Zone {
    /// Creates a zone with one offset, in seconds.
    pub fn fixed(offset: i32) -> Self {
        Self { changes: vec![(i64::MIN, offset)] }
    }

    /// Parses `UTC`, `+07:00`, or any name whose changes are given.
    ///
    /// # Errors
    /// A message that says what is wrong.
    pub fn new(name: &str, changes: &[(i64, i32)]) -> Result<Self, String> {
        if name == "UTC" || name == "Z" {
            return Ok(Self::fixed(0));
        }
        if let Some(offset) = fixed_offset(name) {
            return Ok(Self::fixed(offset));
        }
        let ordered = changes.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0));
        let sane = changes.iter().all(|(_, offset)| offset.unsigned_abs() < DAY as u32);
        match changes.first() {
            None => Err("is not UTC, a fixed offset like +07:00, or an IANA name like Europe/Berlin".to_owned()),
            Some(_) if !ordered || !sane => {
                Err("has changes that are out of order, or offsets of a day or more".to_owned())
            }
            Some((_, first)) => {
                let mut all = vec![(i64::MIN, *first)];
                all.extend(changes.iter().skip(1));
                Ok(Self { changes: all })
            }
        }
    }

    /// Returns the day and the calendar month that contain this time (milliseconds since the Unix epoch).
    pub fn day_and_month(&self, now_ms: u64, memo: &mut CalendarMemo) -> (Period, Period) {
        let holds = |period: &Period| (period.begins_ms..period.ends_ms).contains(&now_ms);
        match memo.0 {
            Some((day, month)) if holds(&day) && holds(&month) => (day, month),
            _ => *memo.0.insert((self.day(now_ms), self.month(now_ms))),
        }
    }

    /// Returns the day that contains this time (milliseconds since the Unix epoch).
    pub fn day(&self, now_ms: u64) -> Period {
        let day = self.local(now_ms).div_euclid(DAY);
        // A day has at most 25 hours.
        let begins_ms = self.reaches(now_ms.saturating_sub(26 * 3_600_000), day * DAY);
        Period { number: clamp(day), begins_ms, ends_ms: self.reaches(now_ms, (day + 1) * DAY) }
    }

    /// Returns the calendar month that contains this time (milliseconds since the Unix epoch).
    pub fn month(&self, now_ms: u64) -> Period {
        let (year, month) = year_and_month(self.local(now_ms).div_euclid(DAY));
        let next = if month == 12 { first_day(year + 1, 1) } else { first_day(year, month + 1) };
        let begins_ms = self.reaches(now_ms.saturating_sub(32 * 86_400_000), first_day(year, month) * DAY);
        Period { number: clamp(year * 12 + month - 1), begins_ms, ends_ms: self.reaches(now_ms, next * DAY) }
    }

    /// Returns the local clock's time, in seconds.
    fn local(&self, now_ms: u64) -> i64 {
        let now = seconds(now_ms);
        let after = self.changes.partition_point(|(from, _)| *from <= now);
        let offset = after.checked_sub(1).and_then(|i| self.changes.get(i)).map_or(0, |(_, offset)| *offset);
        now + i64::from(offset)
    }

    /// Returns when the local clock first shows `local` or later, at `now_ms` or after it. In milliseconds since the
    /// Unix epoch.
    fn reaches(&self, now_ms: u64, local: i64) -> u64 {
        let now = seconds(now_ms);
        let mut reached = now;
        for (i, (from, offset)) in self.changes.iter().enumerate() {
            let until = self.changes.get(i + 1).map_or(i64::MAX, |(from, _)| *from);
            if until <= now {
                continue;
            }
            reached = (local - i64::from(*offset)).max(*from).max(now);
            if reached < until {
                break;
            }
        }
        u64::try_from(reached).unwrap_or(0).saturating_mul(1000)
    }
}

fn seconds(ms: u64) -> i64 {
    // Clamp to the year 9999.
    (ms / 1000).min(253_402_300_799) as i64
}

fn clamp(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn fixed_offset(text: &str) -> Option<i32> {
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?;
    let (hours, minutes): (i32, i32) = (number(hours)?, number(minutes)?);
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Returns the civil year and month (1 to 12) of a day since 1970-01-01. Howard Hinnant's `civil_from_days`.
fn year_and_month(day: i64) -> (i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month)
}

/// Returns the day since 1970-01-01 on which a civil month begins. Howard Hinnant's `days_from_civil`.
fn first_day(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: &str) -> u64 {
        let time = humantime::parse_rfc3339(time).unwrap();
        time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    /// Berlin in 2026: summer time from 2026-03-29T01:00Z to 2026-10-25T01:00Z.
    fn berlin() -> Zone {
        let second = |time| (ms(time) / 1000) as i64;
        let changes = [(0, 3600), (second("2026-03-29T01:00:00Z"), 7200), (second("2026-10-25T01:00:00Z"), 3600)];
        Zone::new("Europe/Berlin", &changes).unwrap()
    }

    fn hours(zone: &Zone, time: &str) -> u64 {
        let mut start = ms(time);
        let day = zone.day(start);
        while zone.day(start - 1000).number == day.number {
            start -= 1000;
        }
        assert_eq!(day.begins_ms, start);
        (day.ends_ms - start).div_ceil(3_600_000)
    }

    #[test]
    fn a_day_begins_at_midnight_of_its_zone() {
        let utc = Zone::new("UTC", &[]).unwrap();
        let east = Zone::new("+07:00", &[]).unwrap();
        let at = ms("2026-11-21T17:00:00Z");
        assert_eq!(utc.day(at).ends_ms, ms("2026-11-22T00:00:00Z"));
        assert_eq!(east.day(at).ends_ms, ms("2026-11-22T17:00:00Z"));
        assert_eq!(east.day(at).number, utc.day(at).number + 1);
        assert_eq!(east.day(at - 1).number, utc.day(at).number);
        assert_eq!(Zone::new("-03:30", &[]).unwrap().day(at).ends_ms, ms("2026-11-22T03:30:00Z"));
    }

    #[test]
    fn days_of_23_and_25_hours() {
        let zone = berlin();
        assert_eq!(hours(&zone, "2026-03-28T12:00:00Z"), 24);
        assert_eq!(hours(&zone, "2026-03-29T12:00:00Z"), 23);
        assert_eq!(hours(&zone, "2026-10-25T12:00:00Z"), 25);
        assert_eq!(zone.day(ms("2026-03-29T00:30:00Z")).ends_ms, ms("2026-03-29T22:00:00Z"));
        assert_eq!(zone.day(ms("2026-10-25T00:30:00Z")).ends_ms, ms("2026-10-25T23:00:00Z"));
        // A month that contains a change.
        assert_eq!(zone.month(ms("2026-03-01T12:00:00Z")).ends_ms, ms("2026-03-31T22:00:00Z"));
    }

    #[test]
    fn a_midnight_that_does_not_exist_ends_the_day_when_the_clock_leaps() {
        // From 00:00 to 01:00 on 2026-03-22, as formerly in Asuncion.
        let leap = (ms("2026-03-22T03:00:00Z") / 1000) as i64;
        let zone = Zone::new("Some/Where", &[(0, -10_800), (leap, -7_200)]).unwrap();
        assert_eq!(zone.day(ms("2026-03-21T12:00:00Z")).ends_ms, ms("2026-03-22T03:00:00Z"));
        assert_eq!(zone.day(ms("2026-03-22T03:00:00Z")).number, zone.day(ms("2026-03-22T02:59:59Z")).number + 1);
    }

    #[test]
    fn what_is_remembered_is_what_would_be_found() {
        for zone in [Zone::fixed(0), Zone::fixed(-3600), berlin()] {
            let (start, mut memo) = (ms("2026-03-01T00:00:00Z"), CalendarMemo::default());
            // Forwards and backwards, in steps that pass every edge within a second.
            for hour in (0..24 * 260).chain((0..24 * 260).rev()) {
                for second in [0, 1, 3599] {
                    let now = start + hour * 3_600_000 + second * 1000;
                    assert_eq!(zone.day_and_month(now, &mut memo), (zone.day(now), zone.month(now)), "{now}");
                }
            }
        }
    }

    #[test]
    fn months_end_where_they_end() {
        let utc = Zone::fixed(0);
        for (time, end) in [
            ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"),
            ("2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("2100-02-28T12:00:00Z", "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc.month(ms(time)).ends_ms, ms(end), "{time}");
            assert_eq!(utc.month(ms(end)).number, utc.month(ms(time)).number + 1);
            assert_eq!(utc.month(ms(end)).begins_ms, ms(end));
            assert_eq!(utc.month(utc.month(ms(end)).ends_ms - 1).begins_ms, ms(end));
        }
        let (mut month, mut changes) = (utc.month(0).number, 0);
        for day in 0..146_097 {
            let next = utc.month(day * 86_400_000).number;
            changes += next - month;
            month = next;
        }
        assert_eq!(changes, 4800 - 1, "four hundred years");
    }

    #[test]
    fn what_is_no_zone_is_refused_and_absurd_times_do_not_panic() {
        for wrong in ["Europe/Berlin", "+7:00", "+19:00", "+07:60", "", "utc", "+0a:00"] {
            assert!(Zone::new(wrong, &[]).is_err(), "{wrong}");
        }
        assert!(Zone::new("A/B", &[(5, 0), (5, 0)]).is_err());
        assert!(Zone::new("A/B", &[(0, 90_000)]).is_err());
        for zone in [Zone::fixed(-3600), berlin()] {
            for at in [0, 1, u64::MAX] {
                let _ = (zone.day(at), zone.month(at));
            }
        }
    }
}
