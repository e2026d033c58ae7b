//! The policy as Envoy delivers it: it is accepted, or refused with its problems, and its days and months are
//! consistent.

use pointsman_core::policy::calendar::CalendarMemo;
use pointsman_core::policy::parse;
use serde_json::Value;

/// 2026-01-30T00:00:00Z
pub const NOW: u64 = 1_769_731_200_000;

pub fn policy(text: &[u8]) {
    let _ = parse::plugin_config(text);
    let tree: Result<Value, _> = serde_json::from_slice(text);
    let named = tree.as_ref().map(parse::from_value);
    if let Ok(Err(problems)) = &named {
        assert!(!problems.is_empty(), "refused without a reason");
    }
    let policy = match parse::from_json(text) {
        Ok(policy) => policy,
        Err(problems) => return assert!(!problems.is_empty(), "refused without a reason"),
    };
    assert!(named.is_ok_and(|named| named.is_ok()), "the module takes what the command line refuses");
    let zone = &policy.counting.zone;
    for now in [0, NOW, NOW + 200 * 86_400_000, 1 << 45] {
        let (day, month) = zone.day_and_month(now, &mut CalendarMemo::default());
        for period in [day, month] {
            assert!(period.begins_ms <= now && now < period.ends_ms, "{now} is not in {period:?}");
        }
        assert!(zone.day(day.ends_ms).number > day.number && zone.month(month.ends_ms).number > month.number);
        assert_eq!((zone.day(now), zone.month(now)), (day, month));
    }
    let _ = (policy.longest_request_ms(), policy.idle_timeouts_ms());
}
