use super::*;

fn hash(password: &[u8]) -> Result<String> {
    HashContext { blocks: &mut Vec::new(), hashes_total: &AtomicU64::new(0) }.hash(password)
}

fn verify_at(max_work: Work, password: &[u8], stored: Option<&str>) -> (Verified, u64) {
    let hashes_total = AtomicU64::new(0);
    let mut blocks = Vec::new();
    let mut context = HashContext { blocks: &mut blocks, hashes_total: &hashes_total };
    let verified = super::verify(password, stored, &Mutex::new(max_work), &mut context).unwrap();
    (verified, hashes_total.into_inner())
}

fn verify(password: &[u8], stored: Option<&str>) -> Verified {
    verify_at(Work::CURRENT, password, stored).0
}

#[test]
fn hashes_are_phc_strings_of_the_stated_cost() {
    let stored = hash(b"Passw0rd").unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    assert!(verify(b"Passw0rd", Some(&stored)).matches);
    assert!(!verify(b"passw0rd", Some(&stored)).matches);
    assert_ne!(hash(b"Passw0rd").unwrap(), stored, "the salt is fresh");
}

#[test]
fn no_password_matches_a_missing_account() {
    for password in [&b""[..], &[b'x'; 4096], b"Passw0rd"] {
        let (verified, hashes) = verify_at(Work::CURRENT, password, None);
        assert!(!verified.matches && !verified.is_unusable);
        assert_eq!(hashes, 1);
    }
}

#[test]
fn a_bcrypt_hash_is_verified_and_upgraded() {
    let stored = bcrypt::hash("Passw0rd", 4).unwrap();
    for kind in ["$2a$", "$2b$", "$2y$"] {
        let stored = stored.replacen("$2b$", kind, 1);
        let verified = verify(b"Passw0rd", Some(&stored));
        assert!(verified.matches);
        assert!(verified.upgrade.unwrap().starts_with("$argon2id$"));
        let wrong = verify(b"wrong", Some(&stored));
        assert!(!wrong.matches && wrong.upgrade.is_none());
    }
}

/// bcrypt reads 72 bytes: a longer password may have a wrong end, one of 72 may lack its end.
#[test]
fn bytes_that_bcrypt_ignores_are_never_stored() {
    for length in [8, 71, 72, 73, 512, 513, 4096] {
        let right = "x".repeat(length);
        let stored = bcrypt::hash(&right, 4).unwrap();
        let cut = &right[..length.min(72)];
        let mut wrong_end = right.clone();
        wrong_end.replace_range(length - 1.., "y");
        for _ in 0..2 {
            for typed in [&*right, cut, &wrong_end, &format!("{right}x")] {
                let verified = verify(typed.as_bytes(), Some(&stored));
                let is_right = typed == right;
                let is_alike = typed.len() >= 72 && length >= 72 && typed[..72] == right[..72];
                assert_eq!(verified.matches, is_right || is_alike, "{length}: {typed}");
                assert_eq!(verified.upgrade.is_some(), is_right && length < 72, "{length}");
            }
        }
    }
}

#[test]
fn only_a_weaker_argon2id_hash_is_upgraded() {
    for (memory, passes, is_upgraded) in [(64, 3, true), (19_456, 1, true), (19_456, 3, false)] {
        let other = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            Params::new(memory, passes, 1, None).unwrap(),
        );
        let stored = argon2::PasswordHasher::hash_password(&other, b"Passw0rd").unwrap();
        let verified = verify(b"Passw0rd", Some(&stored.to_string()));
        assert!(verified.matches);
        assert_eq!(verified.upgrade.is_some(), is_upgraded, "m={memory},t={passes}");
    }
}

#[test]
fn a_hash_over_the_cost_limit_is_not_computed() {
    let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
    for stored in [
        format!("$argon2id$v=19$m=2097152,t=1,p=1${tail}"),
        "$2b$31$abcdefghijklmnopqrstuuNv1iackAIV2mEXgrppy1ihBy6JTPzWy".into(),
        "Passw0rd".into(),
    ] {
        let (verified, hashes) = verify_at(Work::CURRENT, b"Passw0rd", Some(&stored));
        assert!(!verified.matches && verified.is_unusable, "{stored}");
        assert_eq!(hashes, 1, "{stored}");
    }
}

/// The work of a failure, counted in hashes.
#[test]
fn all_failures_cost_the_same_work() {
    let current = hash(b"Passw0rd").unwrap();
    let cheap = bcrypt::hash("Passw0rd", 4).unwrap();
    let dear = bcrypt::hash("Passw0rd", 6).unwrap();
    let max_work = Work { bcrypt: 1 << 6, ..Work::CURRENT };
    let hashes = |stored: Option<&str>| verify_at(max_work, b"wrong", stored).1;
    assert_eq!(hashes(None), 2);
    assert_eq!(hashes(Some(&current)), 2);
    assert_eq!(hashes(Some(&dear)), 2);
    assert_eq!(hashes(Some("unknown")), 2);
    // 16 rounds for its hash, then dummy ones of 16 and 32: the 64 of the others.
    assert_eq!(hashes(Some(&cheap)), 4);

    // A costlier hash raises the maximum.
    let max_work = Mutex::new(Work::CURRENT);
    let (mut blocks, hashes_total) = (Vec::new(), AtomicU64::new(0));
    let mut context = HashContext { blocks: &mut blocks, hashes_total: &hashes_total };
    super::verify(b"wrong", Some(&dear), &max_work, &mut context).unwrap();
    assert_eq!(*lock(&max_work), Work { bcrypt: 1 << 6, ..Work::CURRENT });
}

/// Compares times, so it needs an idle machine.
#[test]
#[ignore = "compares times"]
fn all_failures_take_the_same_time() {
    let current = hash(b"Passw0rd").unwrap();
    let [cheap, dear] = [8, 11].map(|cost| bcrypt::hash("Passw0rd", cost).unwrap());
    let max_work = Work { bcrypt: 1 << 11, ..Work::CURRENT };
    let median = |stored: Option<&str>| {
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                let start = tokio::time::Instant::now();
                verify_at(max_work, b"wrong", stored);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[4]
    };
    let times = [None, Some(&*current), Some(&*cheap), Some(&*dear), Some("x")].map(median);
    let (shortest, longest) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*longest < *shortest * 3 / 2, "{times:?}");
}

#[test]
fn reused_memory_does_not_affect_the_next_hash() {
    let (mut blocks, hashes_total) = (Vec::new(), AtomicU64::new(0));
    let mut context = HashContext { blocks: &mut blocks, hashes_total: &hashes_total };
    let max_work = Mutex::new(Work::CURRENT);
    let stored = context.hash(b"Passw0rd").unwrap();
    let mut matches = |password: &[u8], stored: &str| {
        super::verify(password, Some(stored), &max_work, &mut context).unwrap().matches
    };
    for _ in 0..2 {
        assert!(matches(b"Passw0rd", &stored));
        assert!(!matches(b"Passw0rD", &stored));
    }
    // Another parameter set in the same memory.
    let small = Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        Params::new(64, 3, 2, Some(24)).unwrap(),
    );
    let small = argon2::PasswordHasher::hash_password(&small, b"Passw0rd").unwrap().to_string();
    assert!(matches(b"Passw0rd", &small));
    assert!(matches(b"Passw0rd", &stored));
}

#[tokio::test]
async fn memory_is_kept_only_while_hashes_wait() {
    let hasher = Hasher::new();
    let kept = || hasher.memory.0.lock().unwrap().len();
    let permit = || hasher.permit(None, None).unwrap();
    let (first, second) = (permit(), permit());
    let fill = |context: &mut HashContext<'_>| {
        context.blocks.resize(1, Block::default());
        Ok(())
    };
    first.run(fill).await.unwrap();
    assert_eq!(kept(), 1);
    assert_eq!(
        second.run(|context| Ok(context.blocks.len())).await.unwrap(),
        1,
        "the memory was not reused"
    );
    assert_eq!(kept(), 0);
}

#[tokio::test]
async fn the_queue_is_bounded_and_a_finished_hash_leaves_it() {
    let hasher = Hasher::new();
    let permit = || hasher.permit(None, None);
    let held: Vec<_> = (0..MAX_QUEUED).map(|_| permit().unwrap()).collect();
    assert!(matches!(permit(), Err(Error::Busy)));
    drop(held);
    // If each failure takes three times as long, the capacity is a third.
    hasher.set_max_work(Work { bcrypt: 1 << 10, ..Work::default() });
    let held: Vec<_> = (0..MAX_QUEUED / 3).map(|_| permit().unwrap()).collect();
    assert!(matches!(permit(), Err(Error::Busy)));
    drop(held);
    let password = Password::parse("Passw0rd").unwrap();
    permit().unwrap().hash(password).await.unwrap();
    assert_eq!(hasher.queue.len(), 0);
}

#[tokio::test]
async fn a_cancelled_caller_does_not_free_its_core() {
    let hasher = Hasher::new();
    let (started, wait) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let permit = hasher.permit(None, None).unwrap();
    let caller = tokio::spawn(permit.run(move |_| {
        started.send(()).unwrap();
        held.recv().unwrap();
        Ok(())
    }));
    tokio::task::spawn_blocking(move || wait.recv().unwrap()).await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.queue.len(), 1, "the hash still runs");
    release.send(()).unwrap();
}
