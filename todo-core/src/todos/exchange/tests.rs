//! The readers read files as programs write them, and what a writer writes.

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::{
    ExportFormat, ImportFormat, csv,
    draft::Item,
    ical,
    import::read,
    json,
    rows::Record,
    sink::{MAX_ERRORS, MAX_ROWS, Sink},
    todotxt,
};
use crate::{
    error::FieldErrors,
    time_zone::TimeZone,
    todos::{Due, Priority, Todo},
};

fn now() -> DateTime<Utc> {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn read_file(format: ImportFormat, file: &[u8]) -> Result<Sink, FieldErrors> {
    read(format, file, Sink::new(now(), TimeZone::parse("UTC").unwrap()))
}

fn errors(sink: &Sink) -> Vec<(&str, &str, u32)> {
    let errors = sink.errors.iter();
    errors.map(|error| (&*error.field, error.code, error.line.unwrap())).collect()
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fixtures/import/", $name))
    };
}

/// The tags of a todo, and the text of its due date with its rule and reminders.
fn plan(item: &Item) -> String {
    let tags: Vec<_> = item.tags.iter().map(crate::todos::Tag::as_str).collect();
    let due = item.due.as_ref().map(|due| {
        let at = due.at().map(|at| at.format(" %H:%M UTC").to_string());
        format!("{}{}", due.date(), at.unwrap_or_default())
    });
    let rule = item.recurrence.as_ref();
    let rule = rule.map(|r| format!("{} from {}", r.rule.as_str(), r.from.as_str()));
    let minutes: Vec<_> = item.reminders.iter().map(|r| r.minutes_before.to_string()).collect();
    [tags.join(","), due.unwrap_or_default(), rule.unwrap_or_default(), minutes.join(",")].join("|")
}

#[test]
fn todoist_tables_are_read() {
    let sink = read_file(ImportFormat::Todoist, fixture!("todoist.csv")).unwrap();
    let [milk, report, proofread] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!(milk.title, "Buy milk");
    assert_eq!(milk.description.as_ref().unwrap(), "two litres,\nfresh\n\nThe blue one");
    assert_eq!(plan(milk), "errand,shop|2026-12-01||");
    assert_eq!((milk.priority, milk.list.as_deref()), (Priority::Medium, None));
    assert_eq!(report.title, "Write report");
    assert_eq!(plan(report), "|2026-11-30 09:00 UTC|FREQ=WEEKLY;BYDAY=MO from due|");
    assert_eq!((report.priority, report.list.as_deref()), (Priority::High, Some("Work")));
    assert_eq!((proofread.title.as_str(), proofread.priority), ("Proofread", Priority::Low));
    assert_eq!(errors(&sink), [("todos/3/due", "invalid", 10)]);
}

#[test]
fn google_lists_are_read() {
    let sink = read_file(ImportFormat::Google, fixture!("google.json")).unwrap();
    let [milk, rent] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!((milk.title.as_str(), milk.list.as_deref()), ("Buy milk", Some("My Tasks")));
    assert_eq!(milk.description.as_ref().unwrap(), "two litres");
    assert_eq!(plan(milk), "|2026-12-01||");
    assert_eq!(milk.created_at.to_rfc3339(), "2026-11-01T08:00:00.123+00:00");
    assert_eq!(milk.completed_at, None);
    assert_eq!(rent.completed_at.unwrap().to_rfc3339(), "2026-11-03T08:00:00+00:00");
    assert_eq!(errors(&sink), [("todos/2/title", "blank", 33)]);
}

#[test]
fn microsoft_lists_are_read() {
    let sink = read_file(ImportFormat::Microsoft, fixture!("microsoft.json")).unwrap();
    let [report, rent] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!((report.title.as_str(), report.list.as_deref()), ("Write report", Some("Tasks")));
    let description = "See the notes\n- [x] Outline\n- [ ] Draft";
    assert_eq!(report.description.as_ref().unwrap(), description);
    assert_eq!(report.priority, Priority::High);
    // Due on the second, by a clock east of Greenwich; the reminder is 25 hours before 9 o'clock.
    let rule = "FREQ=WEEKLY;INTERVAL=2;BYDAY=WE;WKST=SU from due";
    assert_eq!(plan(report), format!("blue category|2026-12-02|{rule}|1500"));
    assert_eq!(report.created_at.timestamp_subsec_nanos(), 123_456_000);
    assert_eq!((rent.title.as_str(), rent.description.as_ref()), ("Pay rent", None));
    assert_eq!(rent.completed_at.unwrap().to_rfc3339(), "2026-11-03T00:00:00+00:00");
    assert_eq!(errors(&sink), [("todos/2/importance", "invalid", 51)]);
    let one = br#"{"value": [{"title": "Alone", "isReminderOn": true,
        "reminderDateTime": {"dateTime": "2026-12-01T08:30:00", "timeZone": "Europe/Berlin"}}]}"#;
    let sink = read_file(ImportFormat::Microsoft, one).unwrap();
    assert_eq!(plan(&sink.items[0]), "|2026-12-01 07:30 UTC||0");
}

#[test]
fn todo_txt_is_read() {
    let sink = read_file(ImportFormat::Todotxt, fixture!("todo.txt")).unwrap();
    let [mom, rent, plants, ship] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!((mom.title.as_str(), mom.priority), ("Call Mom", Priority::High));
    assert_eq!(plan(mom), "family,phone|2026-12-01||");
    assert_eq!(mom.created_at.to_rfc3339(), "2026-11-01T00:00:00+00:00");
    assert_eq!((rent.title.as_str(), rent.priority), ("Pay rent", Priority::Low));
    assert_eq!(rent.completed_at.unwrap().to_rfc3339(), "2026-11-03T00:00:00+00:00");
    assert_eq!(plan(plants), "|2026-12-02 08:30 UTC|FREQ=WEEKLY from due|15,60");
    assert_eq!(plan(ship), "|2026-12-05|FREQ=DAILY;INTERVAL=3 from completion|");
    assert_eq!(ship.list.as_deref(), Some("My work"));
    assert_eq!(ship.description.as_ref().unwrap(), "two lines\nhere");
    assert_eq!(errors(&sink), [("todos/4/due/date", "invalid", 6)]);
}

#[test]
fn calendars_are_read_and_what_is_unknown_survives() {
    let sink = read_file(ImportFormat::Ics, fixture!("tasks.ics")).unwrap();
    let [milk, rent] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!((milk.title.as_str(), milk.priority), ("Buy milk, bread; butter", Priority::High));
    let description = "A long description that is folded because it has more than seventy-five \
        octets\nand a second line";
    assert_eq!(milk.description.as_ref().unwrap(), description);
    assert_eq!(milk.list.as_deref(), Some("Personal"));
    assert_eq!(plan(milk), "\"shop\",errand,home garden|2026-12-01 08:30 UTC||15");
    assert_eq!(milk.completed_at, None);
    let kept = "UID:20261101T080000Z-1@example.org\nPRIORITY:3\nSTATUS:IN-PROCESS\n\
        PERCENT-COMPLETE:40\nX-APPLE-SORT-ORDER:664812000\nGEO:52.5;13.4\nBEGIN:VALARM\n\
        ACTION:EMAIL\nATTENDEE:mailto:ann@example.org\nTRIGGER:-PT1H\nEND:VALARM";
    assert_eq!(milk.ical.as_deref(), Some(kept));
    assert_eq!(plan(rent), "|2026-12-01|FREQ=MONTHLY from due|");
    assert_eq!(rent.ical.as_deref(), Some("UID:2"));
    assert!(rent.completed_at.is_some());
    let expected = [("todos/2/due", "invalid", 50), ("todos/2/title", "blank", 50)];
    assert_eq!(errors(&sink), expected);

    // Another program, and this one, find it again.
    let written = write(ExportFormat::Ics, std::slice::from_ref(milk));
    for line in kept.lines() {
        assert!(written.contains(&format!("\r\n{line}\r\n")), "{line}: {written}");
    }
    assert!(!written.contains("STATUS:NEEDS-ACTION") && !written.contains("PRIORITY:1"));
    let again = read_file(ImportFormat::Ics, written.as_bytes()).unwrap();
    assert_eq!(again.items, std::slice::from_ref(milk));
    // A todo that was completed since then is not in process.
    let mut completed = milk.clone();
    completed.completed_at = Some(now());
    let written = write(ExportFormat::Ics, &[completed]);
    assert!(written.contains("STATUS:COMPLETED") && !written.contains("IN-PROCESS"), "{written}");
    assert!(!written.contains("PERCENT-COMPLETE"), "{written}");
}

#[test]
fn tables_are_read() {
    let sink = read_file(ImportFormat::Csv, fixture!("todos.csv")).unwrap();
    let [milk, sum] = &*sink.items else { panic!("{}", sink.errors) };
    assert_eq!((milk.title.as_str(), milk.priority), ("Buy milk", Priority::High));
    assert_eq!(plan(milk), "errand,home|2026-12-01 08:30 UTC||");
    assert_eq!((sum.title.as_str(), sum.completed_at), ("=SUM(A1)", Some(now())));
    let expected = [
        ("todos/2/completed", "invalid", 4),
        ("todos/2/priority", "invalid", 4),
        ("todos/2/due/date", "invalid", 4),
        ("todos/2/title", "blank", 4),
    ];
    assert_eq!(errors(&sink), expected);
    // As a program for tables saves it.
    let saved = "\u{feff}Title,Description\r\n\"a\r\nb\",c\r\n,\r\n";
    let sink = read_file(ImportFormat::Csv, saved.as_bytes()).unwrap();
    assert_eq!(sink.items[0].title, "a\r\nb");
    assert_eq!(errors(&sink), [("todos/1/title", "blank", 4)]);
}

#[test]
fn files_of_another_format_are_an_error_with_a_line() {
    let code = |format, file: &[u8]| {
        let errors = read_file(format, file).err().expect("an error");
        (errors[0].field.clone().into_owned(), errors[0].code, errors[0].line)
    };
    let file = || "file".to_owned();
    assert_eq!(
        code(ImportFormat::Json, b"{\n\"todos\": [\n{\"a\" 1}]}"),
        (file(), "invalid", Some(3))
    );
    assert_eq!(code(ImportFormat::Json, b"{\"items\": []}"), (file(), "invalid", Some(1)));
    assert_eq!(code(ImportFormat::Json, b"[]"), (file(), "invalid", Some(1)));
    let later = br#"{"version": 2, "todos": []}"#;
    assert_eq!(code(ImportFormat::Json, later), ("version".to_owned(), "unsupported", Some(1)));
    assert_eq!(code(ImportFormat::Csv, b"name,b\n"), (file(), "invalid", Some(1)));
    assert_eq!(code(ImportFormat::Todoist, b""), (file(), "invalid", Some(1)));
    assert_eq!(code(ImportFormat::Ics, b"x"), (file(), "invalid", Some(1)));
    assert_eq!(code(ImportFormat::Ics, b""), (file(), "invalid", Some(1)));
    let cut = b"BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:x\n";
    assert_eq!(code(ImportFormat::Ics, cut), (file(), "invalid", Some(2)));
    let nested = ["BEGIN:VCALENDAR\nBEGIN:VTODO\n", &"BEGIN:A\n".repeat(5)].concat();
    assert_eq!(code(ImportFormat::Ics, nested.as_bytes()), (file(), "invalid", Some(7)));
    assert_eq!(code(ImportFormat::Todotxt, b"a\nb\xff"), (file(), "invalid", Some(2)));
    let deep = format!("{{\"todos\":[{{\"title\":{}1", "[".repeat(500_000));
    assert_eq!(code(ImportFormat::Json, deep.as_bytes()), (file(), "invalid", Some(1)));
}

#[test]
fn todos_and_errors_of_a_file_are_limited() {
    let lines = |count| "a\n".repeat(count);
    let sink = read_file(ImportFormat::Todotxt, lines(MAX_ROWS).as_bytes()).unwrap();
    assert_eq!(sink.items.len(), MAX_ROWS);
    let errors = read_file(ImportFormat::Todotxt, lines(MAX_ROWS + 1).as_bytes()).err().unwrap();
    assert_eq!((errors[0].code, errors[0].line), ("too_many", Some(5_001)));
    let bad = "a due:x\n".repeat(MAX_ERRORS + 1);
    let sink = read_file(ImportFormat::Todotxt, bad.as_bytes()).unwrap();
    assert_eq!((sink.errors.len(), sink.invalid), (MAX_ERRORS, MAX_ERRORS + 1));
}

#[test]
fn times_of_a_file_are_consistent() {
    let json = |members: &str| format!("{{\"todos\":[{{\"title\":\"a\",{members}}}]}}");
    let times = |members: &str| {
        let sink = read_file(ImportFormat::Json, json(members).as_bytes()).unwrap();
        let item = sink.items.into_iter().next().unwrap_or_else(|| panic!("{:?}", sink.errors));
        let text = |time: DateTime<Utc>| time.format("%m-%dT%H").to_string();
        [Some(item.created_at), Some(item.updated_at), item.completed_at].map(|time| time.map(text))
    };
    let expected = |times: [&str; 3]| times.map(|t| Some(t.to_owned()).filter(|t| !t.is_empty()));
    assert_eq!(times("\"a\":1"), expected(["11-27T12", "11-27T12", ""]));
    let created = "\"created_at\":\"2026-11-01T00:00:00Z\"";
    assert_eq!(times(created), expected(["11-01T00", "11-01T00", ""]));
    let completed = "\"completed\":true,\"completed_at\":\"2026-11-02T00:00:00Z\"";
    assert_eq!(times(completed), expected(["11-02T00", "11-02T00", "11-02T00"]));
    let both = format!("{created},{completed},\"updated_at\":\"2026-10-01T00:00:00Z\"");
    assert_eq!(times(&both), expected(["11-01T00", "11-01T00", "11-02T00"]));
    let pending = "\"completed\":false,\"completed_at\":\"2026-11-02T00:00:00Z\"";
    assert_eq!(times(pending)[2], None);
    for bad in ["9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z", "yesterday"] {
        let sink =
            read_file(ImportFormat::Json, json(&format!("\"updated_at\":\"{bad}\"")).as_bytes());
        assert_eq!(sink.unwrap().errors[0].field, "todos/0/updated_at", "{bad}");
    }
}

/// The file of a format with todos.
fn write(format: ExportFormat, items: &[Item]) -> String {
    let mut out = Vec::new();
    match format {
        ExportFormat::Json => json::begin(&mut out, std::iter::empty()).unwrap(),
        ExportFormat::Csv => csv::begin(&mut out).unwrap(),
        ExportFormat::Todotxt => {}
        ExportFormat::Ics => ical::begin(&mut out),
    }
    for (number, item) in items.iter().enumerate() {
        let todo = todo(item);
        let record = Record {
            todo: &todo,
            list: item.list.as_deref(),
            position: item.position.as_deref(),
            ical: item.ical.as_deref(),
            deleted_at: None,
        };
        match format {
            ExportFormat::Json => json::write(&mut out, &record, number == 0),
            ExportFormat::Csv => csv::write(&mut out, &record),
            ExportFormat::Todotxt => todotxt::write(&mut out, &record),
            ExportFormat::Ics => ical::write(&mut out, &record),
        }
        .unwrap();
    }
    match format {
        ExportFormat::Json => json::end(&mut out),
        ExportFormat::Ics => ical::end(&mut out),
        ExportFormat::Csv | ExportFormat::Todotxt => {}
    }
    String::from_utf8(out).unwrap()
}

fn todo(item: &Item) -> Todo {
    Todo {
        id: uuid::Uuid::nil().into(),
        user_id: uuid::Uuid::nil().into(),
        title: item.title.clone(),
        description: item.description.clone(),
        priority: item.priority,
        completed: item.completed_at.is_some(),
        created_at: item.created_at,
        updated_at: item.updated_at,
        completed_at: item.completed_at,
        tags: item.tags.clone(),
        due: item.due.clone(),
        recurrence: item.recurrence.clone(),
        reminders: item.reminders.clone(),
        list_id: None,
    }
}

/// A text with what a format may take for its own.
fn texts(max: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -~]{1,6}",
        1 => "[\u{e4}\u{df}\u{20ac}\u{1f600}\u{a0}]{1,3}",
        2 => prop::sample::select(vec![
            "\n", "\r\n", "\t", "'", "=1", "@x", "+x", "%20", ",", ";", "\\n", "\"", "x ", "due:1",
            "BEGIN:VTODO", ":", "(A)", "\u{feff}", "\u{7f}", "\u{85}", "\u{2028}",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 1..max).prop_map(|pieces| pieces.concat())
}

prop_compose! {
    fn items()(
        title in texts(8),
        description in prop::option::of(texts(12)),
        priority in prop::sample::select(Priority::ALL),
        tags in prop::collection::vec(texts(3), 0..4),
        days in prop::option::of(1_u64..20_000),
        minute in prop::option::of(0_u32..1440),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
        recurs in any::<bool>(),
        minutes in prop::collection::vec(0_i64..=40_320, 0..5),
        list in prop::option::of(texts(4)),
        times in (0_i64..1_700_000_000_000_000, 0_i64..1_000_000_000, prop::option::of(0_i64..1_700_000_000_000_000)),
    ) -> Option<Item> {
        use crate::todos::{Description, Recurrence, Reminder, Reminders, Tag, Tags, Title};
        let due = days.map(|days| {
            let date = Due::FIRST + chrono::Days::new(days);
            match minute {
                None => Due::on(date),
                Some(minute) => Due::at_time(
                    date,
                    chrono::NaiveTime::from_num_seconds_from_midnight_opt(minute * 60, 0).unwrap(),
                    TimeZone::parse(zone).unwrap(),
                ),
            }
            .unwrap()
        });
        let time = |micros| DateTime::from_timestamp_micros(micros).unwrap();
        let tags: Vec<_> = tags.iter().filter_map(|tag| Tag::parse(tag).ok()).collect();
        Some(Item {
            title: Title::parse(&title).ok()?,
            description: description.map(|text| Description::parse(&text).unwrap()),
            priority,
            tags: Tags::parse(tags).unwrap(),
            recurrence: due.as_ref().filter(|_| recurs).map(|_| {
                Recurrence::new("FREQ=WEEKLY;INTERVAL=2".parse().unwrap())
            }),
            reminders: match due {
                None => Reminders::default(),
                Some(_) => Reminders::new(
                    minutes.into_iter().map(|minutes| Reminder::before(minutes).unwrap()),
                ).unwrap(),
            },
            due,
            list: list.and_then(|name| super::draft::list_name("list", &name).ok()),
            completed_at: times.2.map(time),
            created_at: time(times.0),
            updated_at: time(times.0 + times.1),
            position: None,
            ical: None,
        })
    }
}

/// The item, with what calendars and lines of todo.txt do not have taken away.
fn without_fractions(mut item: Item) -> Item {
    let cut = |time: DateTime<Utc>| DateTime::from_timestamp(time.timestamp(), 0).unwrap();
    item.created_at = cut(item.created_at);
    item.updated_at = cut(item.updated_at);
    item.completed_at = item.completed_at.map(cut);
    item
}

proptest! {
    #[test]
    fn what_is_written_as_json_is_read_as_it_was(items in prop::collection::vec(items(), 0..4)) {
        let items: Vec<Item> = items.into_iter().flatten().collect();
        let written = write(ExportFormat::Json, &items);
        let sink = read_file(ImportFormat::Json, written.as_bytes()).unwrap();
        prop_assert!(sink.errors.is_empty(), "{} {}", sink.errors, written);
        prop_assert_eq!(&sink.items, &items);
        prop_assert_eq!(write(ExportFormat::Json, &sink.items), written);
    }

    #[test]
    fn what_is_written_as_a_table_is_read_as_it_was(items in prop::collection::vec(items(), 0..4)) {
        let items: Vec<Item> = items.into_iter().flatten().collect();
        let written = write(ExportFormat::Csv, &items);
        let sink = read_file(ImportFormat::Csv, written.as_bytes()).unwrap();
        prop_assert!(sink.errors.is_empty(), "{} {}", sink.errors, written);
        prop_assert_eq!(&sink.items, &items);
    }

    #[test]
    fn what_is_written_as_a_calendar_is_read_as_it_was(item in items()) {
        let Some(mut item) = item.map(without_fractions) else { return Ok(()) };
        // A line has a break or not, and no other control character.
        let line = |text: &str| ical_text(text);
        let Ok(title) = line(item.title.as_str()).replace('\n', " ").parse() else {
            return Ok(());
        };
        item.title = title;
        item.description = item.description.map(|text| line(text.as_str()).parse().unwrap());
        let written = write(ExportFormat::Ics, std::slice::from_ref(&item));
        let sink = read_file(ImportFormat::Ics, written.as_bytes()).unwrap();
        prop_assert!(sink.errors.is_empty(), "{} {}", sink.errors, written);
        let mut read = sink.items.into_iter().next().unwrap();
        prop_assert_eq!(read.ical.take(), Some(format!("UID:{}", uuid::Uuid::nil())));
        prop_assert_eq!(read, item, "{}", written);
    }

    #[test]
    fn what_is_written_as_todo_txt_keeps_its_plan(item in items()) {
        let Some(mut item) = item else { return Ok(()) };
        // A word of the title may be a mark.
        item.title = "Buy milk".parse().unwrap();
        item.description = item.description.filter(|text| !text.as_str().is_empty());
        let written = write(ExportFormat::Todotxt, std::slice::from_ref(&item));
        prop_assert_eq!(written.lines().count(), 1);
        let sink = read_file(ImportFormat::Todotxt, written.as_bytes()).unwrap();
        prop_assert!(sink.errors.is_empty(), "{} {}", sink.errors, written);
        let read = &sink.items[0];
        prop_assert_eq!(plan(read), plan(&item), "{}", written);
        prop_assert_eq!((&read.title, &read.description), (&item.title, &item.description));
        prop_assert_eq!((&read.list, read.priority), (&item.list, item.priority));
        prop_assert_eq!(read.completed_at.map(|at| at.date_naive()), item.completed_at.map(|at| at.date_naive()));
        prop_assert_eq!(read.created_at.date_naive(), item.created_at.date_naive());
    }

    #[test]
    fn no_file_is_a_panic(
        format in prop::sample::select(ImportFormat::ALL),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = read_file(format, &bytes);
    }

    #[test]
    fn no_damage_of_a_file_is_a_panic(
        which in 0_usize..7,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let (format, file): (ImportFormat, &[u8]) = match which {
            0 => (ImportFormat::Todoist, fixture!("todoist.csv")),
            1 => (ImportFormat::Google, fixture!("google.json")),
            2 => (ImportFormat::Microsoft, fixture!("microsoft.json")),
            3 => (ImportFormat::Todotxt, fixture!("todo.txt")),
            4 => (ImportFormat::Ics, fixture!("tasks.ics")),
            5 => (ImportFormat::Csv, fixture!("todos.csv")),
            _ => (ImportFormat::Json, br#"{"lists":[{"name":"a"}],"todos":[{"title":"a","due":{"date":"2026-12-01"}}]}"#),
        };
        let mut file = file.to_vec();
        for (index, byte) in damage {
            let index = index.index(file.len());
            file[index] = byte;
        }
        let _ = read_file(format, &file);
    }
}

/// A text as a calendar can have it.
fn ical_text(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}
