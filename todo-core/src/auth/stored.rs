//! Password hashes as they are stored. What is stored is input too: it comes from other programs and
//! from people, and says itself what it costs to compute. So there is one place that says which kinds
//! are known and what they may cost, for logins and for the import.

use argon2::{
    Params,
    password_hash::phc::{ParamsString, PasswordHash},
};

use crate::db::{Db, Fault, Statement};

/// OWASP's first choice for Argon2id (Password Storage Cheat Sheet): KiB, passes, lanes.
pub(super) const MEMORY_KIB: u32 = 19_456;
pub(super) const PASSES: u32 = 2;
pub(super) const LANES: u32 = 1;
/// Bytes of the salt and of the output.
const SALT: usize = 16;
const OUTPUT: usize = Params::DEFAULT_OUTPUT_LEN;

/// What a stored hash may cost at most: Argon2id's KiB, passes and lanes, and bcrypt's cost. A login
/// takes some 0.5 s then, or 2 s.
const MAX_MEMORY_KIB: u32 = 65_536;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=15;
/// What a column takes.
const MAX_LENGTH: usize = 255;

/// A stored hash that a password can be compared with.
pub(super) enum Stored {
    /// By bcrypt, as passlib and bcrypt write it: `$2a$`, `$2b$` or `$2y$`.
    Bcrypt { cost: u32 },
    /// By Argon2id, as a PHC string with its salt and output.
    Argon2id { hash: Box<PasswordHash>, params: Params },
}

/// How much there is to compute, in units that can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Argon2: memory in KiB times passes.
    pub(super) argon2: u64,
    /// bcrypt: two to the power of its cost.
    pub(super) bcrypt: u64,
}

impl Work {
    /// Of a hash of today's kind.
    pub(super) const TODAY: Self = Self { argon2: MEMORY_KIB as u64 * PASSES as u64, bcrypt: 0 };

    /// The greater of the two, of either kind.
    pub(super) fn max(self, other: Self) -> Self {
        Self { argon2: self.argon2.max(other.argon2), bcrypt: self.bcrypt.max(other.bcrypt) }
    }
}

impl Stored {
    /// Reads a stored hash; none if it is of no known kind, not whole, or costs too much.
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
        // A key or data that the hash only names would have to come from elsewhere.
        let is_plain = params.keyid().is_empty() && params.data().is_empty();
        let is_version = matches!(hash.version, None | Some(0x10 | 0x13));
        let is_bounded = params.m_cost() <= MAX_MEMORY_KIB
            && params.t_cost() <= MAX_PASSES
            && params.p_cost() <= MAX_LANES;
        (is_whole && is_plain && is_version && is_bounded)
            .then(|| Self::Argon2id { hash: Box::new(hash), params })
    }

    /// What it takes to compare a password with it.
    pub(super) fn work(&self) -> Work {
        match self {
            Self::Bcrypt { cost } => Work { argon2: 0, bcrypt: 1 << cost },
            Self::Argon2id { params, .. } => {
                Work { argon2: u64::from(params.m_cost()) * u64::from(params.t_cost()), bcrypt: 0 }
            }
        }
    }

    /// Whether a hash of today's kind is stronger.
    pub(super) fn is_weaker(&self) -> bool {
        let Self::Argon2id { hash, params } = self else { return true };
        self.work().argon2 < Work::TODAY.argon2
            || params.m_cost() < MEMORY_KIB && params.t_cost() <= PASSES
            || hash.version != Some(0x13)
            || hash.salt.as_ref().is_none_or(|salt| salt.len() < SALT)
            || hash.hash.as_ref().is_none_or(|output| output.len() < OUTPUT)
    }
}

/// Whether a stored hash is one that a password can be compared with.
#[cfg(all(feature = "server", feature = "sqlite", feature = "postgres"))]
pub(crate) fn is_known(stored: &str) -> bool {
    Stored::parse(stored).is_some()
}

/// The cost of a bcrypt hash, if it is one and within bounds.
fn bcrypt_cost(stored: &str) -> Option<u32> {
    let is_kind = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| stored.starts_with(prefix));
    // The library takes a sign, too.
    let is_number = stored.get(4..6)?.bytes().all(|byte| byte.is_ascii_digit());
    let parts: bcrypt::HashParts = (is_kind && is_number).then(|| stored.parse().ok())??;
    Some(parts.get_cost()).filter(|cost| BCRYPT_COSTS.contains(cost))
}

/// The parameters of today's Argon2id as a PHC string has them.
pub(super) fn todays_params() -> Option<(Params, ParamsString)> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    let described = ParamsString::try_from(&params).ok()?;
    Some((params, described))
}

/// What begins a hash that is not of today's kind: an index has these rows, and only these.
macro_rules! is_older {
    () => {
        "substr(password_hash, 1, 31) <> '$argon2id$v=19$m=19456,t=2,p=1$'"
    };
}

/// What the costliest hash takes that is stored, of the kinds that there are beside today's.
pub(crate) async fn survey(db: &Db) -> Result<Work, Fault> {
    // From one kind to the next by the index: how many users there are does not matter.
    const KINDS: &str = concat!(
        "WITH RECURSIVE kinds (kind) AS \
         (SELECT min(substr(password_hash, 1, 7)) FROM users WHERE ",
        is_older!(),
        " UNION ALL SELECT (SELECT min(substr(password_hash, 1, 7)) FROM users WHERE ",
        is_older!(),
        " AND substr(password_hash, 1, 7) > kinds.kind) FROM kinds WHERE kinds.kind IS NOT NULL) \
         SELECT kind FROM kinds WHERE kind IS NOT NULL LIMIT 256"
    );
    // Only an import from elsewhere leaves such ones, and then all of one kind.
    const OTHERS: &str = concat!(
        "SELECT password_hash FROM users WHERE ",
        is_older!(),
        " AND substr(password_hash, 1, 7) = '$argon2' LIMIT 1000"
    );
    let kinds: Vec<(String,)> = db.read(Statement::new(KINDS)).await?;
    let mut most = Work::default();
    for (kind,) in &kinds {
        let cost = kind.strip_prefix("$2").and_then(|rest| rest.get(2..4)?.parse().ok());
        if let Some(cost) = cost.filter(|cost| BCRYPT_COSTS.contains(cost)) {
            most = most.max(Work { argon2: 0, bcrypt: 1 << cost });
        }
    }
    if kinds.iter().any(|(kind,)| kind == "$argon2") {
        let others: Vec<(String,)> = db.read(Statement::new(OTHERS)).await?;
        for stored in others.iter().filter_map(|(stored,)| Stored::parse(stored)) {
            most = most.max(stored.work());
        }
    }
    Ok(most)
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
    fn bcrypt_is_known_up_to_a_cost_of_15() {
        for kind in ["$2a$", "$2b$", "$2y$"] {
            let stored = BCRYPT.replacen("$2b$", kind, 1);
            assert_eq!(Stored::parse(&stored).unwrap().work(), Work { argon2: 0, bcrypt: 1024 });
            assert!(Stored::parse(&stored).unwrap().is_weaker());
        }
        for cost in ["04", "15"] {
            assert!(Stored::parse(&BCRYPT.replacen("$10$", &format!("${cost}$"), 1)).is_some());
        }
        for cost in ["00", "03", "16", "17", "31", "99", "+9", "xx", "-1"] {
            let stored = BCRYPT.replacen("$10$", &format!("${cost}$"), 1);
            assert!(Stored::parse(&stored).is_none(), "{stored}");
        }
        for bad in [&BCRYPT[..59], &BCRYPT.replacen("$2b$", "$2x$", 1), &format!("{BCRYPT}a")] {
            assert!(Stored::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn argon2id_is_known_within_bounds_and_whole() {
        for good in ["m=19456,t=2,p=1", "m=65536,t=10,p=4", "m=8,t=1,p=1"] {
            assert!(Stored::parse(&argon2(good)).is_some(), "{good}");
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
            assert!(Stored::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_weaker_than_today_is_upgraded() {
        let is_weaker = |text: &str| Stored::parse(text).unwrap().is_weaker();
        assert!(!is_weaker(&argon2("m=19456,t=2,p=1")));
        assert!(!is_weaker(&argon2("m=65536,t=3,p=4")));
        assert!(!is_weaker(&argon2("m=47104,t=1,p=1")), "OWASP's other choice");
        assert!(is_weaker(&argon2("m=4096,t=3,p=1")));
        assert!(is_weaker(&argon2("m=19456,t=1,p=1")));
        assert!(is_weaker(&argon2("m=19456,t=2,p=1").replace("v=19$", "v=16$")));
        assert!(is_weaker("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$ZG9lcy1ub3QtbWF0Y2g"));
    }

    /// The index and the statement name today's kind in text.
    #[test]
    fn today_is_what_the_index_leaves_out() {
        let (_, described) = todays_params().unwrap();
        let today = format!("$argon2id$v=19${described}$");
        assert_eq!(today.len(), 31);
        assert!(is_older!().contains(&format!("'{today}'")));
        let (on_sqlite, on_postgres) = (
            include_str!("../../../migrations/sqlite/0004_second_line.up.sql"),
            include_str!("../../../migrations/postgres/0004_second_line.up.sql"),
        );
        assert!(on_sqlite.contains(is_older!()) && on_postgres.contains(is_older!()));
    }
}
