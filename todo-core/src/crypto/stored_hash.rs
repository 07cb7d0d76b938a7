//! Stored password hashes: the supported formats and their maximum cost, for logins and the import.
//! A stored hash is untrusted input: it comes from other programs and from people, and it sets its
//! own cost.

use argon2::{
    Params,
    password_hash::phc::{ParamsString, PasswordHash},
};

use crate::db::{Db, DbError, Statement};

/// OWASP's first choice for Argon2id (Password Storage Cheat Sheet): KiB, passes, lanes.
pub(super) const MEMORY_KIB: u32 = 19_456;
pub(super) const PASSES: u32 = 2;
pub(super) const LANES: u32 = 1;
/// Bytes of the salt and of the output.
const SALT: usize = 16;
const OUTPUT: usize = Params::DEFAULT_OUTPUT_LEN;

/// Maximum cost of a stored hash: Argon2id's KiB, passes and lanes, and bcrypt's cost. A login at
/// the maximum takes about 0.5 s or 2 s, respectively.
const MAX_MEMORY_KIB: u32 = 65_536;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=15;
/// Length of the database column.
const MAX_LENGTH: usize = 255;

/// A stored hash of a supported format.
pub(super) enum StoredHash {
    /// bcrypt in the format of passlib and bcrypt: `$2a$`, `$2b$` or `$2y$`.
    Bcrypt { cost: u32 },
    /// Argon2id as a PHC string with its salt and output.
    Argon2id { hash: Box<PasswordHash>, params: Params },
}

/// The cost of computing hashes, in units that can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Argon2: memory in KiB times passes.
    pub(super) argon2: u64,
    /// bcrypt: two to the power of its cost.
    pub(super) bcrypt: u64,
}

impl Work {
    /// The cost of a hash with the current parameters.
    pub(super) const CURRENT: Self = Self { argon2: MEMORY_KIB as u64 * PASSES as u64, bcrypt: 0 };

    /// The maximum of each field.
    pub(super) fn max(self, other: Self) -> Self {
        Self { argon2: self.argon2.max(other.argon2), bcrypt: self.bcrypt.max(other.bcrypt) }
    }
}

impl StoredHash {
    /// Parses a stored hash; `None` if it is unsupported, incomplete or too costly.
    pub(super) fn parse(stored: &str) -> Option<Self> {
        if let Some(cost) = bcrypt_cost(stored) {
            return Some(Self::Bcrypt { cost });
        }
        if stored.len() > MAX_LENGTH || !stored.starts_with("$argon2id$") {
            return None;
        }
        let hash = PasswordHash::new(stored).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let is_whole = hash.salt.is_some() && hash.hash.is_some();
        // The values of `keyid` and `data` are not supported: they are outside the hash.
        let is_plain = params.keyid().is_empty() && params.data().is_empty();
        let is_version = matches!(hash.version, None | Some(0x10 | 0x13));
        let is_bounded = params.m_cost() <= MAX_MEMORY_KIB
            && params.t_cost() <= MAX_PASSES
            && params.p_cost() <= MAX_LANES;
        (is_whole && is_plain && is_version && is_bounded)
            .then(|| Self::Argon2id { hash: Box::new(hash), params })
    }

    /// The cost of comparing a password with it.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::Bcrypt { cost } => Work { argon2: 0, bcrypt: 1 << cost },
            Self::Argon2id { params, .. } => {
                Work { argon2: u64::from(params.m_cost()) * u64::from(params.t_cost()), bcrypt: 0 }
            }
        }
    }

    /// Whether a hash with the current parameters is stronger.
    pub(super) fn is_weaker(&self) -> bool {
        let Self::Argon2id { hash, params } = self else { return true };
        self.work().argon2 < Work::CURRENT.argon2
            || params.m_cost() < MEMORY_KIB && params.t_cost() <= PASSES
            || hash.version != Some(0x13)
            || hash.salt.as_ref().is_none_or(|salt| salt.len() < SALT)
            || hash.hash.as_ref().is_none_or(|output| output.len() < OUTPUT)
    }
}

/// Whether a stored hash has a supported format and an allowed cost.
#[cfg(feature = "admin")]
pub(crate) fn is_supported_hash(stored: &str) -> bool {
    StoredHash::parse(stored).is_some()
}

/// The cost of a bcrypt hash within the bounds; `None` for other hashes.
fn bcrypt_cost(stored: &str) -> Option<u32> {
    let is_kind = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| stored.starts_with(prefix));
    // The library accepts a sign, too.
    let is_number = stored.get(4..6)?.bytes().all(|byte| byte.is_ascii_digit());
    let parts: bcrypt::HashParts = (is_kind && is_number).then(|| stored.parse().ok())??;
    Some(parts.get_cost()).filter(|cost| BCRYPT_COSTS.contains(cost))
}

/// The current Argon2id parameters, also in the format of a PHC string.
pub(super) fn current_params() -> Option<(Params, ParamsString)> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    let described = ParamsString::try_from(&params).ok()?;
    Some((params, described))
}

/// Condition for hashes without the current parameters. A partial index has exactly these rows.
macro_rules! is_older {
    () => {
        "substr(password_hash, 1, 31) <> '$argon2id$v=19$m=19456,t=2,p=1$'"
    };
}

/// Returns the cost of the costliest stored hash without the current parameters.
pub(crate) async fn max_stored_work(db: &Db) -> Result<Work, DbError> {
    // Skips through the index from one kind to the next, so the number of users does not matter.
    const KINDS: &str = concat!(
        "WITH RECURSIVE kinds (kind) AS \
         (SELECT min(substr(password_hash, 1, 7)) FROM users WHERE ",
        is_older!(),
        " UNION ALL SELECT (SELECT min(substr(password_hash, 1, 7)) FROM users WHERE ",
        is_older!(),
        " AND substr(password_hash, 1, 7) > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL) \
         SELECT kind FROM kinds WHERE kind IS NOT NULL LIMIT 256"
    );
    // Only an import from another program stores these, and then all with the same parameters.
    const OTHERS: &str = concat!(
        "SELECT password_hash FROM users WHERE ",
        is_older!(),
        " AND substr(password_hash, 1, 7) = '$argon2' LIMIT 1000"
    );
    let kinds: Vec<(String,)> = db.fetch(Statement::new(KINDS)).await?;
    let mut max = Work::default();
    for (kind,) in &kinds {
        let cost = kind.strip_prefix("$2").and_then(|rest| rest.get(2..4)?.parse().ok());
        if let Some(cost) = cost.filter(|cost| BCRYPT_COSTS.contains(cost)) {
            max = max.max(Work { argon2: 0, bcrypt: 1 << cost });
        }
    }
    if kinds.iter().any(|(kind,)| kind == "$argon2") {
        let others: Vec<(String,)> = db.fetch(Statement::new(OTHERS)).await?;
        for stored in others.iter().filter_map(|(stored,)| StoredHash::parse(stored)) {
            max = max.max(stored.work());
        }
    }
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2b$10$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy";
    const TAIL: &str = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";

    fn argon2(params: &str) -> String {
        format!("$argon2id$v=19${params}${TAIL}")
    }

    #[test]
    fn bcrypt_is_supported_up_to_a_cost_of_15() {
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let stored = BCRYPT.replacen("$2b$", kind, 1);
            assert_eq!(
                StoredHash::parse(&stored).unwrap().work(),
                Work { argon2: 0, bcrypt: 1024 }
            );
            assert!(StoredHash::parse(&stored).unwrap().is_weaker());
        }
        for cost in ["04", "15"] {
            assert!(StoredHash::parse(&BCRYPT.replacen("$10$", &format!("${cost}$"), 1)).is_some());
        }
        for cost in ["00", "03", "16", "17", "31", "99", "+9", "xx", "-1"] {
            let stored = BCRYPT.replacen("$10$", &format!("${cost}$"), 1);
            assert!(StoredHash::parse(&stored).is_none(), "{stored}");
        }
        for bad in [&BCRYPT[..59], &BCRYPT.replacen("$2b$", "$2x$", 1), &format!("{BCRYPT}a")] {
            assert!(StoredHash::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn argon2id_is_supported_within_bounds_and_if_complete() {
        for valid in ["m=19456,t=2,p=1", "m=65536,t=10,p=4", "m=8,t=1,p=1"] {
            assert!(StoredHash::parse(&argon2(valid)).is_some(), "{valid}");
        }
        for bad in [
            argon2("m=65537,t=1,p=1"),
            argon2("m=2097152,t=1,p=1"),
            argon2("m=19456,t=11,p=1"),
            argon2("m=19456,t=2,p=5"),
            argon2("m=19456,t=2,p=1,keyid=AAAA"),
            argon2("m=19456,t=2,p=1,data=AAAA"),
            argon2("m=19456,t=2,p=1").replace("argon2id", "argon2i"),
            argon2("m=19456,t=2,p=1").replace("argon2id", "argon2d"),
            argon2("m=19456,t=2,p=1").replace("v=19", "v=18"),
            "$argon2id$v=19$m=19456,t=2,p=1$dG9kby1ub2JvZHktc2FsdA".into(),
            "$argon2id$v=19$m=19456,t=2,p=1".into(),
            "$argon2id$".into(),
            argon2("m=19456,t=2,p=1") + &"A".repeat(200),
            String::new(),
            "Brown2fox".into(),
        ] {
            assert!(StoredHash::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_hash_weaker_than_the_current_parameters_is_upgraded() {
        let is_weaker = |text: &str| StoredHash::parse(text).unwrap().is_weaker();
        assert!(!is_weaker(&argon2("m=19456,t=2,p=1")));
        assert!(!is_weaker(&argon2("m=65536,t=3,p=4")));
        assert!(!is_weaker(&argon2("m=47104,t=1,p=1")), "OWASP's second choice");
        assert!(is_weaker(&argon2("m=4096,t=3,p=1")));
        assert!(is_weaker(&argon2("m=19456,t=1,p=1")));
        assert!(is_weaker(&argon2("m=19456,t=2,p=1").replace("v=19$", "v=16$")));
        assert!(is_weaker("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$ZG9lcy1ub3QtbWF0Y2g"));
    }

    /// The index and the statement have the current parameters as text.
    #[test]
    fn the_index_excludes_the_current_parameters() {
        let (_, described) = current_params().unwrap();
        let current = format!("$argon2id$v=19${described}$");
        assert_eq!(current.len(), 31);
        assert!(is_older!().contains(&format!("'{current}'")));
        let (on_sqlite, on_postgres) = (
            include_str!("../../migrations/sqlite/0004_second_line.up.sql"),
            include_str!("../../migrations/postgres/0004_second_line.up.sql"),
        );
        assert!(on_sqlite.contains(is_older!()) && on_postgres.contains(is_older!()));
    }
}
