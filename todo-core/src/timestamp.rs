//! Serialization of times: RFC 3339 in UTC, ending in `Z`, with 0, 3 or 6 digits of the second. The
//! text is the same as chrono's, which takes ten times as long: a page of todos has a hundred
//! times.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::{Serialize, Serializer};

/// `2026-11-23T09:30:00.123456Z`
const MAX_LEN: usize = 27;

/// Serializes a field: `#[serde(serialize_with = "timestamp::serialize")]`.
pub(crate) fn serialize<S: Serializer>(
    time: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut text = [0; MAX_LEN];
    match write(time, &mut text).and_then(|length| std::str::from_utf8(text.get(..length)?).ok()) {
        Some(text) => serializer.serialize_str(text),
        None => time.serialize(serializer),
    }
}

/// As [`serialize`], with null for `None`.
#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(crate) fn serialize_option<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// The text of a time.
pub(crate) fn text(time: &DateTime<Utc>) -> String {
    let mut text = [0; MAX_LEN];
    let length = write(time, &mut text);
    let written = length.and_then(|length| std::str::from_utf8(text.get(..length)?).ok());
    written.map_or_else(|| time.to_rfc3339_opts(SecondsFormat::AutoSi, true), str::to_owned)
}

/// Writes `time` and returns the length; `None` for years without four digits and for nanoseconds,
/// which [`Clock`](crate::Clock) never returns.
fn write(time: &DateTime<Utc>, text: &mut [u8; MAX_LEN]) -> Option<usize> {
    // `DateTime` would add the offset again for each part.
    let time = time.naive_utc();
    let year = u32::try_from(time.year()).ok().filter(|year| *year <= 9999)?;
    let nanos = time.nanosecond();
    // A leap second has a nanosecond value of at least 10^9.
    if nanos >= 1_000_000_000 || !nanos.is_multiple_of(1000) {
        return None;
    }
    *text = *b"0000-00-00T00:00:00.000000Z";
    let mut digits = |at: usize, count: usize, mut value: u32| {
        for digit in text[at..at + count].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
            value /= 10;
        }
    };
    digits(0, 4, year);
    digits(5, 2, time.month());
    digits(8, 2, time.day());
    digits(11, 2, time.hour());
    digits(14, 2, time.minute());
    digits(17, 2, time.second());
    digits(20, 6, nanos / 1000);
    let length = match nanos {
        0 => 20,
        _ if nanos.is_multiple_of(1_000_000) => 24,
        _ => return Some(MAX_LEN),
    };
    text[length - 1] = b'Z';
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Serialize)]
    struct Ours(
        #[serde(serialize_with = "serialize")] DateTime<Utc>,
        #[serde(serialize_with = "serialize_option")] Option<DateTime<Utc>>,
    );

    fn equal(time: DateTime<Utc>) {
        let ours = serde_json::to_string(&Ours(time, Some(time))).unwrap();
        assert_eq!(ours, serde_json::to_string(&(time, Some(time))).unwrap());
    }

    #[test]
    fn edge_cases_equal_chronos_text() {
        for text in [
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "+10000-01-01T00:00:00Z",
            "-0001-12-31T23:59:59Z",
            "2026-11-23T09:30:00.001Z",
            "2026-11-23T09:30:00.000001Z",
            "2026-11-23T09:30:00.000000001Z",
            "2016-12-31T23:59:60.5Z",
        ] {
            equal(text.parse().unwrap());
        }
        assert_eq!(
            serde_json::to_string(&Ours(DateTime::UNIX_EPOCH, None)).unwrap(),
            r#"["1970-01-01T00:00:00Z",null]"#
        );
    }

    proptest! {
        #[test]
        fn every_time_equals_chronos_text(
            micros in -70_000_000_000_000_000_i64..260_000_000_000_000_000, cut in 0_u32..=6,
        ) {
            let whole = 10_i64.pow(cut);
            equal(DateTime::from_timestamp_micros(micros / whole * whole).unwrap());
        }
    }
}
