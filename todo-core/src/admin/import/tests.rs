use super::*;

#[test]
fn control_characters_in_imported_names_become_spaces() {
    assert_eq!(printable_name("\tAda\nLovelace\u{7f}").unwrap().as_str(), "Ada Lovelace");
    assert!(printable_name("Ada\0").is_err() && printable_name("\n\n\n").is_err());
}

#[test]
fn times_with_and_without_a_zone_are_parsed() {
    let noon = Some("2024-05-06T12:00:00.123456Z".parse().unwrap());
    for text in [
        "2024-05-06T12:00:00.123456",
        "2024-05-06T14:00:00.123456+02:00",
        "2024-05-06 12:00:00.123456",
        "2024-05-06 12:00:00.1234569",
        "2024-05-06 12:00:00.123456+00:00",
    ] {
        assert_eq!(time_of(text), noon, "{text}");
    }
    for text in ["", "infinity", "2024-05-06", "0044-03-15T00:00:00 BC", "1715000000"] {
        assert_eq!(time_of(text), None, "{text}");
    }
}
