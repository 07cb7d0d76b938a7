use proptest::prelude::*;

use super::*;

const USER: Uuid = Uuid::from_u128(0x0193_8c6e_90b2_7c33_9a65_1d9b_7a52_c0de);
const EXPIRY: i64 = 1_795_426_200;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn example() -> (String, KeyClaims) {
    encode(USER, Scopes::from_bits(3), EXPIRY, *b"0123456789abcdef").unwrap()
}

#[test]
fn the_checksum_is_the_published_one() {
    // The check value of CRC-32/ISO-HDLC in the RevEng catalogue, and zlib's.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
    assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
}

#[test]
fn base62_is_the_number_in_base_62() {
    for (number, width, digits) in [
        (0_u32, 6, "000000"),
        (61, 6, "00000z"),
        (62, 6, "000010"),
        (0xcbf4_3926, 6, "3jZRME"),
        (u32::MAX, 6, "4gfFC3"),
    ] {
        let mut text = String::new();
        push_base62(&mut text, number.to_be_bytes().into(), width);
        assert_eq!(text, digits);
        assert_eq!(from_base62::<4>(&text), Some(number.to_be_bytes()));
    }
    // One more than the maximum, a digit of no base, and a longer number.
    for digits in ["4gfFC4", "zzzzzz", "00000-", "00000é", "1000000"] {
        assert_eq!(from_base62::<4>(digits), None, "{digits}");
    }
}

#[test]
fn a_key_has_one_form_which_stays() {
    let (key, claims) = example();
    assert_eq!(key.len(), 65);
    assert_eq!(decode(&key), Ok(claims));
    // By another implementation. Stored sessions depend on these values.
    assert_eq!(key, "todo_05D9DULrYC31vkBUffbhz5knqJm4jelddbSNDfX40H7LkxAG8yMKjW0Aq1Sx");
    assert_eq!(claims.session.to_string(), "ad4a22b7-24e1-b182-2d15-50a220f2c2f4");
    let (other, _) = new_key(USER, Scopes::from_bits(3), at(EXPIRY)).unwrap();
    let (third, _) = new_key(USER, Scopes::from_bits(3), at(EXPIRY)).unwrap();
    assert!(other != third && other.len() == 65);
    assert!(new_key(USER, Scopes::from_bits(1), at(-1)).is_err());
    assert!(encode(USER, Scopes::from_bits(1), 1 << 40, [0; 16]).is_none());
    assert!(encode(USER, Scopes::from_bits(u16::MAX), (1 << 40) - 1, [255; 16]).is_some());
}

#[test]
fn a_key_expires_at_its_second() {
    let (key, claims) = example();
    assert_eq!(read(&key, at(EXPIRY - 1)), Ok(claims));
    assert_eq!(read(&key, at(EXPIRY)), Err(KeyError::Expired));
}

#[test]
fn a_key_of_another_version_is_rejected() {
    let (key, _) = example();
    let other = forged(&key, |payload| payload[0] = 2).unwrap();
    assert_eq!(decode(&other), Err(KeyError::Version));
}

proptest! {
    #[test]
    fn each_value_survives(
        user in any::<u128>(),
        bits in any::<u16>(),
        expires_at in 0_i64..1 << 40,
        random in any::<[u8; 16]>(),
    ) {
        let user = Uuid::from_u128(user);
        let scopes = Scopes::from_bits(bits);
        let (key, claims) = encode(user, scopes, expires_at, random).unwrap();
        prop_assert_eq!(key.len(), 65);
        prop_assert_eq!(decode(&key), Ok(claims));
        let session = claims.session;
        prop_assert_eq!(claims, KeyClaims { user_id: user, scopes, expires_at, session });
    }

    #[test]
    fn a_changed_character_is_noticed(place in 0_usize..65, to in 0_usize..62) {
        let (key, _) = example();
        let mut changed = key.into_bytes();
        prop_assume!(changed[place] != DIGITS[to]);
        changed[place] = DIGITS[to];
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(decode(&changed), Err(KeyError::Malformed));
    }

    #[test]
    fn another_payload_is_another_session(bit in 8_usize..320) {
        let (key, claims) = example();
        let other = forged(&key, |payload| payload[bit / 8] ^= 1 << (bit % 8)).unwrap();
        prop_assert_ne!(decode(&other).unwrap().session, claims.session);
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,80}", digits in "[0-9A-Za-z]{54}") {
        prop_assert!(decode(&text).is_err());
        let covered = format!("{PREFIX}{digits}");
        let mut key = covered.clone();
        push_base62(&mut key, crc32(covered.as_bytes()).to_be_bytes().into(), CHECKSUM_CHARS);
        let payload: Option<[u8; PAYLOAD_BYTES]> = from_base62(&digits);
        let is_of_this_version = payload.is_some_and(|payload| payload[0] == VERSION);
        prop_assert_eq!(decode(&key).is_ok(), is_of_this_version);
    }
}
