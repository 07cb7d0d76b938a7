//! A program reads its settings from the environment, an env file and files with secrets. It
//! reports bad settings by name and without a secret.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use todo_tests::{PROGRAMS, Process, SECRET, STARTING, command, empty_dir, startup_error};
use tokio::time::timeout;

use super::{account, call, files, is_database, me_status, sign_up};

#[tokio::test]
async fn a_bad_setting_is_named_in_one_line_with_what_is_allowed() {
    let dir = empty_dir();
    for program in PROGRAMS {
        for (name, value, allowed) in [
            ("PORT", "http", "65535"),
            ("PORT", "65536", "65535"),
            ("PORT", "-1", "65535"),
            ("HOST", "not a host", ""),
            ("DATABASE_URL", "mysql://localhost/todo", "postgres"),
            ("DATABASE_URL", "todo.db", "sqlite"),
            ("SECRET_KEY", "short", "32"),
            ("SECRET_KEY_PREVIOUS", "short", "32"),
            ("ALGORITHM", "none", "HS256"),
            ("ALGORITHM", "RS256", "HS256"),
            ("ACCESS_TOKEN_EXPIRE_DAYS", "0", "1"),
            ("ACCESS_TOKEN_EXPIRE_DAYS", "week", "1"),
            ("ALLOWED_ORIGINS", "example.com", "http"),
            ("ALLOWED_ORIGINS", "https://app.example/path", ""),
            ("RATE_LIMIT_PER_MINUTE", "-1", "0"),
            ("RATE_LIMIT_PER_MINUTE", "5/minute", "0"),
            ("PUBLIC_URL", "todo.example.org", "https://example.com/todo"),
            ("PUBLIC_URL", "https://todo.example.org/?x", "https://example.com/todo"),
            ("TRUSTED_PROXIES", "10.0.0.0/33", ""),
            ("TRUSTED_PROXIES", "the proxy", ""),
            ("ENVIRONMENT", "prod", "production"),
            ("DEBUG", "maybe", "true"),
            ("LOG_LEVEL", "loud", "info"),
            ("API_V1_PREFIX", "api", "/"),
            ("DATABASE_POOL_MAX", "0", "1"),
            ("DATABASE_POOL_MIN", "-1", "0"),
            ("DATABASE_POOL_MIN", "many", "0"),
            ("REQUEST_TIMEOUT_SECONDS", "0", "1"),
            ("MAX_BODY_BYTES", "64K", ""),
        ] {
            let log = startup_error(program, dir.path(), &[(name, value)]).await;
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let [line] = lines[..] else { panic!("{program} {name}={value}: {log}") };
            assert!(line.contains(name), "{program} {name}={value}: {line}");
            assert!(line.contains(allowed), "{program} {name}={value}: {line}");
        }
        let pool = [("DATABASE_POOL_MIN", "9"), ("DATABASE_POOL_MAX", "3")];
        let log = startup_error(program, dir.path(), &pool).await;
        assert!(log.contains("DATABASE_POOL_M"), "{program}: {log}");
    }
    assert_eq!(files(dir.path()), BTreeMap::new(), "a refused start creates no files");
}

#[tokio::test]
async fn all_bad_settings_are_named_together() {
    let dir = empty_dir();
    let bad =
        [("PORT", "x"), ("ENVIRONMENT", "prod"), ("ALGORITHM", "none"), ("LOG_LEVEL", "loud")];
    for program in PROGRAMS {
        let log = startup_error(program, dir.path(), &bad).await;
        for (name, _) in bad {
            assert!(log.contains(name), "{program}: {name} in {log}");
        }
    }
}

#[tokio::test]
async fn a_settings_error_contains_no_secret() {
    let dir = empty_dir();
    for program in PROGRAMS {
        for (name, value) in [
            ("SECRET_KEY", "hunter2"),
            ("SECRET_KEY_PREVIOUS", "hunter2"),
            ("DATABASE_URL", "mysql://ann:hunter2@localhost/todo"),
            ("DATABASE_URL", "postgres://ann:hunter2@local host/todo"),
            ("DATABASE_URL", "postgres://ann:hunter2@127.0.0.1:99999/todo"),
            // No server listens on port 1.
            ("DATABASE_URL", "postgres://ann:hunter2@127.0.0.1:1/todo"),
        ] {
            // A start that waits for the database logs nothing else.
            const AT_ONCE: (&str, &str) = ("DATABASE_STARTUP_SECONDS", "0");
            let log = startup_error(program, dir.path(), &[(name, value), AT_ONCE]).await;
            assert!(!log.trim().is_empty(), "{program} {name}={value} prints nothing");
            assert!(!log.contains("hunter2"), "{program}: {log}");
        }
    }
}

#[tokio::test]
async fn production_requires_its_own_secret() {
    let dir = empty_dir();
    let base = [("ENVIRONMENT", "production"), ("ALLOWED_ORIGINS", "https://app.example")];
    for program in PROGRAMS {
        let log = startup_error(program, dir.path(), &base).await;
        assert!(log.contains("SECRET_KEY"), "{program}: {log}");
        let mut unfit = vec!["short".to_owned(), "x".repeat(31), "x".repeat(64)];
        unfit.push("your-secret-key-here-min-32-characters-long".to_owned());
        unfit.extend(example_secret());
        for secret in unfit {
            let settings = [&base[..], &[("SECRET_KEY", &secret)]].concat();
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("SECRET_KEY"), "{program} with {secret}: {log}");
        }
        for origins in ["*", "https://app.example,*", "https://*.example"] {
            let settings = [
                ("ENVIRONMENT", "production"),
                ("SECRET_KEY", SECRET),
                ("ALLOWED_ORIGINS", origins),
            ];
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("ALLOWED_ORIGINS"), "{program} with {origins}: {log}");
        }
    }
    assert_eq!(files(dir.path()), BTreeMap::new(), "a refused start creates no files");
    for program in PROGRAMS {
        let settings = [&base[..], &[("SECRET_KEY", SECRET)]].concat();
        let process = Process::start(program, dir.path(), &settings).await;
        let log = process.stop().await;
        assert!(!log.contains(SECRET), "{program}: {log}");
        for line in log.lines() {
            let logged: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{program} logs no JSON ({error}): {line}"));
            assert!(logged.is_object(), "{program}: {line}");
        }
        assert!(
            files(dir.path()).keys().all(|name| is_database(name)),
            "no secret is written to a file"
        );
    }
}

/// The placeholder secret of `.env.example`, if it has one. It must be refused if copied unchanged.
fn example_secret() -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example");
    let text = fs::read_to_string(path).ok()?;
    let values = text.lines().filter_map(|line| {
        line.trim_start_matches(['#', ' ']).strip_prefix("SECRET_KEY=").map(str::trim)
    });
    values.map(|value| value.trim_matches('"').to_owned()).find(|value| !value.is_empty())
}

#[tokio::test]
async fn an_env_file_holds_settings_and_the_environment_overrides_it() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let text = "# settings\nPROJECT_NAME=\"From the file\"\nMAX_BODY_BYTES=1024\n\
                    DATABASE_URL=sqlite://elsewhere.db\n";
        fs::write(dir.path().join(".env"), text).expect("a .env");
        let process = Process::start(program, dir.path(), &[]).await;
        let (_, index) = call(process.addr, "GET", "/", "", Value::Null).await;
        assert_eq!(index["name"], "From the file", "{program}");
        let mut large = account("ann@example.com");
        large["padding"] = "x".repeat(1024).into();
        let (status, _) = call(process.addr, "POST", "/api/auth/signup", "", large).await;
        assert_eq!(status, 413, "{program}: MAX_BODY_BYTES");
        process.stop().await;
        let files = files(dir.path());
        assert!(files.contains_key("elsewhere.db") && !files.contains_key("todo.db"), "{files:?}");

        let settings = [("PROJECT_NAME", "From outside"), ("MAX_BODY_BYTES", "4096")];
        let process = Process::start(program, dir.path(), &settings).await;
        let (_, index) = call(process.addr, "GET", "/", "", Value::Null).await;
        assert_eq!(index["name"], "From outside", "{program}");
        sign_up(process.addr, "ann@example.com").await;
        process.stop().await;

        fs::write(dir.path().join(".env"), "PORT=none\n").expect("a .env");
        let mut command = command(program, dir.path(), &[]);
        command.env_remove("PORT");
        let output = timeout(STARTING, command.output()).await.expect("an end in time");
        let output = output.expect("the program runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && log.contains("PORT"), "{program}: {log}");
    }
}

#[tokio::test]
async fn secrets_are_read_from_the_named_files() {
    let dir = empty_dir();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a written file");
        path.display().to_string()
    };
    let url = file("url", "sqlite://of-a-file.db\r\n");
    let secret = file("secret", &format!("{SECRET}\n"));
    let next = file("next", &"0123456789".repeat(4));
    for program in PROGRAMS {
        let settings = [("DATABASE_URL_FILE", &*url), ("SECRET_KEY_FILE", &secret)];
        let first = Process::start(program, dir.path(), &settings).await;
        let token = sign_up(first.addr, &format!("{program}@example.com")).await;
        first.stop().await;
        assert!(dir.path().join("of-a-file.db").is_file(), "{program}");
        // The trailing newline of the file is not part of the key.
        let settings = [("DATABASE_URL_FILE", &*url), ("SECRET_KEY", SECRET)];
        let second = Process::start(program, dir.path(), &settings).await;
        assert_eq!(me_status(second.addr, &token).await, 200, "{program}");
        second.stop().await;
        let settings = [
            ("DATABASE_URL_FILE", &*url),
            ("MIGRATIONS_DATABASE_URL_FILE", &url),
            ("SECRET_KEY_FILE", &next),
            ("SECRET_KEY_PREVIOUS_FILE", &secret),
        ];
        let third = Process::start(program, dir.path(), &settings).await;
        assert_eq!(me_status(third.addr, &token).await, 200, "{program}: the previous key");
        third.stop().await;
    }
}

#[tokio::test]
async fn an_unusable_secret_file_is_reported_by_its_setting_name_only() {
    let dir = empty_dir();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a written file");
        path.display().to_string()
    };
    let valid = file("valid", SECRET.as_bytes());
    let unfit = [
        dir.path().join("hunter2").display().to_string(),
        dir.path().display().to_string(),
        file("empty", b"\n"),
        file("short", b"hunter2\n"),
        file("binary", &[0xff; 64]),
        file("large", &[b'x'; 65537]),
        // An endless file.
        "/dev/zero".to_owned(),
    ];
    let names = ["DATABASE_URL", "MIGRATIONS_DATABASE_URL", "SECRET_KEY", "SECRET_KEY_PREVIOUS"];
    for program in PROGRAMS {
        for unfit in &unfit {
            let settings = [("SECRET_KEY_FILE", &**unfit)];
            let log = startup_error(program, dir.path(), &settings).await;
            assert!(log.contains("SECRET_KEY") && log.lines().count() == 1, "{unfit}: {log}");
            assert!(!log.contains("hunter2"), "{program}: {log}");
        }
        for name in names {
            let named = format!("{name}_FILE");
            let log = startup_error(program, dir.path(), &[(&named, "hunter2")]).await;
            assert!(log.starts_with(&format!("error: bad settings: {named} must")), "{log}");
            assert!(!log.contains("hunter2"), "{program}: {log}");
            let both = [(name, SECRET), (&named, &valid)];
            let log = startup_error(program, dir.path(), &both).await;
            assert!(log.contains(&format!("{named} must be unset")), "{program}: {log}");
            assert!(!log.contains(SECRET), "{program}: {log}");
        }
    }
    assert!(!dir.path().join("todo.db").exists(), "a refused start creates no files");
}

/// With TLS configured, it would still transmit passwords in the clear.
#[tokio::test]
async fn the_minimal_server_refuses_a_certificate() {
    let dir = empty_dir();
    let settings = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")];
    let log = startup_error(PROGRAMS[1], dir.path(), &settings).await;
    assert!(log.contains("plain http") && log.contains("todo-server"), "{log}");
    assert!(files(dir.path()).is_empty(), "no file was created");
}
