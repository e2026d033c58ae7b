//! Expands the policy's time zone: an IANA name becomes its offset changes, since the module has no time-zone database.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// The years for which changes are written. They are fixed, so the same policy always renders to the same file. After
/// them the last offset holds.
const FROM: &str = "2025-01-01T00:00:00Z";
const TO: &str = "2050-01-01T00:00:00Z";

/// Adds `quota.time_zone_changes` to a policy that names an IANA time zone. Other names are left to policy validation.
pub fn fill(policy: &mut Value) {
    let Some(quota) = policy.get_mut("quota").and_then(Value::as_object_mut) else { return };
    let Some(name) = quota.get("time_zone").and_then(Value::as_str) else { return };
    // The module handles UTC and offsets without changes.
    if quota.contains_key("time_zone_changes") || name == "UTC" || name.starts_with(['+', '-']) {
        return;
    }
    if let Some(changes) = changes(name) {
        quota.insert("time_zone_changes".to_owned(), json!(changes));
    }
}

/// Returns the offset changes of a zone: seconds since the Unix epoch, and the offset from then on in seconds.
fn changes(name: &str) -> Option<Vec<(i64, i32)>> {
    let zone = TimeZone::get(name).ok()?;
    let (from, to): (Timestamp, Timestamp) = (FROM.parse().ok()?, TO.parse().ok()?);
    let mut all = vec![(from.as_second(), zone.to_offset(from).seconds())];
    for change in zone.following(from).take_while(|change| change.timestamp() < to) {
        let (at, offset) = (change.timestamp().as_second(), change.offset().seconds());
        if all.last().is_some_and(|(_, last)| *last != offset) {
            all.push((at, offset));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(zone: &str) -> Value {
        let mut policy = json!({"quota": {"time_zone": zone}});
        fill(&mut policy);
        policy["quota"].get("time_zone_changes").cloned().unwrap_or(Value::Null)
    }

    #[test]
    fn a_name_becomes_its_changes_and_what_is_no_name_stays() {
        let berlin = filled("Europe/Berlin");
        // 2026-03-29T01:00:00Z, when summer time begins.
        assert!(berlin.as_array().unwrap().contains(&json!([1_774_746_000, 7200])), "{berlin}");
        assert_eq!(berlin.as_array().unwrap().len(), 51);
        assert_eq!(filled("Asia/Ho_Chi_Minh"), json!([[1_735_689_600, 25_200]]));
        assert_eq!(filled("Japan"), json!([[1_735_689_600, 32_400]]));
        for other in ["UTC", "+07:00", "Mars/Olympus", "", "../etc/passwd"] {
            assert_eq!(filled(other), Value::Null, "{other}");
        }
    }

    #[test]
    fn days_in_a_named_zone_are_those_of_its_database() {
        use pointsman_core::policy::calendar::Zone;
        let name = "America/New_York";
        let (zone, of_jiff) = (Zone::new(name, &changes(name).unwrap()).unwrap(), TimeZone::get(name).unwrap());
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut lengths = std::collections::BTreeMap::new();
        for hour in 0..(3 * 366 * 24) {
            let ms = (start.as_second() + hour * 3600) as u64 * 1000;
            let local = of_jiff.to_datetime(Timestamp::from_millisecond(ms as i64).unwrap());
            let tomorrow = local.date().tomorrow().unwrap().to_zoned_datetime(of_jiff.clone()).unwrap();
            assert_eq!(zone.day(ms).ends_ms, tomorrow.timestamp().as_millisecond() as u64, "{local}");
            let next = local.date().last_of_month().tomorrow().unwrap().to_zoned_datetime(of_jiff.clone()).unwrap();
            assert_eq!(zone.month(ms).ends_ms, next.timestamp().as_millisecond() as u64, "{local}");
            *lengths.entry(zone.day(ms).number).or_insert(0) += 1;
        }
        let of = |hours| lengths.values().filter(|length| **length == hours).count();
        assert_eq!((of(23), of(25)), (3, 3));
    }
}
