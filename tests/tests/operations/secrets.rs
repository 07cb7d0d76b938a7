//! Malformed secrets in every setting that accepts one: no output may contain a fragment of a
//! secret, as text, as decimal bytes, in hexadecimal or in base64.

mod webhooks;

use std::{fs, path::Path};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use todo_tests::{PROGRAMS, Process, STARTING, command, empty_dir};
use tokio::time::timeout;

const SERVER: &str = PROGRAMS[0];
/// The marker used as a password or key.
const PLANTED: &str = "Hu5hPassw0rdXyzzyPl4nted";
/// A start that waits for its database logs nothing else.
const AT_ONCE: (&str, &str) = ("DATABASE_STARTUP_SECONDS", "0");
/// Length in bytes of a fragment: the shortest part of a secret that counts as a leak.
const FRAGMENT: usize = 9;

/// All encodings of a fragment that are searched for.
fn spellings(piece: &[u8]) -> Vec<String> {
    let joined = |each: &dyn Fn(&u8) -> String, with: &str| {
        piece.iter().map(each).collect::<Vec<_>>().join(with)
    };
    let mut spellings = vec![String::from_utf8_lossy(piece).into_owned()];
    for with in [",", ", ", " "] {
        spellings.push(joined(&|byte| byte.to_string(), with));
    }
    for with in ["", " ", ":", ", "] {
        spellings.push(joined(&|byte| format!("{byte:02x}"), with));
        spellings.push(joined(&|byte| format!("{byte:02X}"), with));
    }
    spellings.push(joined(&|byte| format!("0x{byte:02x}"), ", "));
    spellings.push(joined(&|byte| format!("%{byte:02X}"), ""));
    // FRAGMENT is a multiple of three, so its base64 also occurs in the base64 of the whole.
    spellings.push(STANDARD.encode(piece));
    spellings.push(URL_SAFE.encode(piece));
    spellings
}

/// Checks that no fragment of `secret` was printed.
fn assert_absent(printed: &str, secret: &str, about: &str) {
    for piece in secret.as_bytes().windows(FRAGMENT) {
        for spelling in spellings(piece) {
            assert!(!printed.contains(&spelling), "{about} shows {spelling:?}: {printed}");
        }
    }
}

/// Runs a program that must fail, and returns all its output.
async fn run_to_failure(
    program: &str,
    dir: &Path,
    settings: &[(&str, &str)],
    arguments: &[&str],
) -> String {
    let mut command = command(program, dir, settings);
    let output = timeout(STARTING, command.args(arguments).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {arguments:?} does not exit"));
    let output = output.expect("the program runs");
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{program} {arguments:?} succeeded: {printed}");
    assert!(!printed.trim().is_empty() && !printed.contains("panicked"), "{program}: {printed}");
    printed
}

/// Negative control of `assert_absent`.
#[test]
fn every_spelling_is_found() {
    let spelt = [
        format!("x{PLANTED}y"),
        format!("{:?}", PLANTED.as_bytes()),
        PLANTED.bytes().map(|byte| format!("{byte:02x}")).collect(),
        STANDARD.encode(format!("a{PLANTED}")),
        URL_SAFE_NO_PAD.encode(format!("ab{PLANTED}")),
    ];
    for printed in spelt {
        let found = std::panic::catch_unwind(|| assert_absent(&printed, PLANTED, "it"));
        assert!(found.is_err(), "{printed}");
    }
}

fn issued() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
}

/// The PEM's base64 without its first and last line.
fn body_of(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

/// A key damaged as people and tools damage it. Without line breaks, the whole key is one line, and
/// a library's error contains it.
fn damaged(pem: &str) -> Vec<String> {
    let body = body_of(pem);
    vec![
        pem.replace('\n', ""),
        pem.trim_end().replace('\n', "\\n"),
        pem.replace('\n', " "),
        pem.replace("KEY-----\n", "KEY-----"),
        pem.replace("-----END", "END"),
        pem.replace("-----END", "-----END OTHER"),
        pem.replace('\n', "\n!"),
        pem.replacen(&body[..1], "", 1),
        format!("{pem}-----BEGIN PRIVATE KEY-----{body}\n").replacen("PRIVATE", "UNKNOWN", 2),
        pem.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        body,
    ]
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_shown() {
    let valid = issued();
    let pem = valid.signing_key.serialize_pem();
    let body = body_of(&pem);
    for (nth, text) in damaged(&pem).into_iter().enumerate() {
        for name in ["TLS_KEY", "TLS_CERT"] {
            let dir = empty_dir();
            fs::write(dir.path().join("cert.pem"), valid.cert.pem()).expect("a file");
            fs::write(dir.path().join("key.pem"), &pem).expect("a file");
            fs::write(dir.path().join("damaged.pem"), &text).expect("a file");
            let files = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem"), (name, "damaged.pem")];
            for arguments in [&[][..], &["doctor"]] {
                let printed = run_to_failure(SERVER, dir.path(), &files, arguments).await;
                let about = format!("{name} {nth} {arguments:?}");
                assert!(printed.contains(name), "{about}: {printed}");
                assert_absent(&printed, &body, &about);
            }
        }
    }
}

#[tokio::test]
async fn a_reload_of_a_damaged_key_does_not_show_it() {
    let valid = issued();
    let pem = valid.signing_key.serialize_pem();
    let dir = empty_dir();
    fs::write(dir.path().join("cert.pem"), valid.cert.pem()).expect("a file");
    fs::write(dir.path().join("key.pem"), &pem).expect("a file");
    let settings = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem"), ("LOG_LEVEL", "trace")];
    let mut process = Process::start(SERVER, dir.path(), &settings).await;
    for text in damaged(&pem) {
        fs::write(dir.path().join("key.pem"), &text).expect("a file");
        process.signal("HUP");
        process.wait_for_line("certificate reload failed").await;
    }
    let printed = process.stop().await;
    assert!(printed.contains("line breaks lost"), "{printed}");
    assert_absent(&printed, &body_of(&pem), "a reload");
}

/// A common mistake: the variable contains the file's content.
#[tokio::test]
async fn a_key_given_instead_of_its_path_is_not_shown() {
    let pem = issued().signing_key.serialize_pem();
    let body = body_of(&pem);
    let dir = empty_dir();
    for key in [&pem, &pem.replace('\n', "\\n"), &pem.replace('\n', ""), &body] {
        let settings = [("TLS_CERT", "cert.pem"), ("TLS_KEY", key.as_str())];
        for arguments in [&[][..], &["doctor"], &["healthcheck"], &["migrate"]] {
            let printed = run_to_failure(SERVER, dir.path(), &settings, arguments).await;
            assert!(printed.contains("TLS_KEY must be the path"), "{printed}");
            assert_absent(&printed, &body, "TLS_KEY");
        }
        assert_absent(
            &run_to_failure(PROGRAMS[1], dir.path(), &settings, &[]).await,
            &body,
            "TLS_KEY",
        );
    }
}

/// Invalid or unreachable database URLs with the marker in one part.
fn database_urls() -> Vec<String> {
    [
        "postgres://ann:{}@127.0.0.1:1/todo",
        "postgres://ann:{}@127.0.0.1:99999/todo",
        "postgres://ann:{}@local host/todo",
        "postgres://ann:pass/{}@127.0.0.1:1/todo",
        "postgres://ann:pass?{}@127.0.0.1:1/todo",
        "postgres://ann:pass#{}@127.0.0.1:1/todo",
        "postgres://ann:pass@{}@127.0.0.1:1/todo",
        "postgres://ann:%ff{}@127.0.0.1:1/todo",
        "postgres://127.0.0.1:1/todo?password={}",
        "postgres://127.0.0.1:1/todo?password={}&sslmode=no",
        "postgres://127.0.0.1:1/todo?passwrd={}",
        "postgres://127.0.0.1:1/todo?{}=1",
        "postgres://127.0.0.1:1/todo?sslmode={}",
        "postgres://127.0.0.1:1/todo?port={}",
        "postgres://127.0.0.1:1/todo?hostaddr={}",
        "postgres://127.0.0.1:1/todo?statement-cache-capacity={}",
        "postgres://127.0.0.1:1/todo?options={}",
        "postgres://[::1:{}/todo",
        "postgresql+asyncpg://ann:{}@/todo?host=/nowhere",
        "postgresql+other://ann:{}@h/todo",
        "postgres:{}",
        "{}://h/todo",
        "{}",
        "mysql://ann:{}@h/todo",
        "sqlite://todo.db?mode={}",
        "sqlite://todo.db?cache={}",
        "sqlite://todo.db?immutable={}",
        "sqlite://todo.db?vfs={}",
        "sqlite://todo.db?key={}",
        "sqlite://todo.db?{}=1",
    ]
    .iter()
    .map(|address| address.replace("{}", PLANTED))
    .collect()
}

#[tokio::test]
async fn an_invalid_database_url_is_not_shown() {
    let dir = empty_dir();
    for address in database_urls() {
        for program in PROGRAMS {
            let settings = [("DATABASE_URL", &*address), AT_ONCE, ("LOG_LEVEL", "trace")];
            let printed = run_to_failure(program, dir.path(), &settings, &[]).await;
            assert_absent(&printed, PLANTED, &format!("{program} {address}"));
        }
        let settings = [
            ("DATABASE_URL", &*address),
            ("IMPORT_FROM", &address),
            ("COPY_FROM", &address),
            AT_ONCE,
        ];
        let copy = ["copy", "--to", "sqlite://other.db"];
        for arguments in [&["doctor"][..], &["migrate", "--status"], &copy, &["import"]] {
            let printed = run_to_failure(SERVER, dir.path(), &settings, arguments).await;
            assert_absent(&printed, PLANTED, &format!("{arguments:?} {address}"));
        }
        let settings = [
            ("DATABASE_URL", "postgres://127.0.0.1:1/todo"),
            ("MIGRATIONS_DATABASE_URL", &address),
            AT_ONCE,
        ];
        for arguments in [&[][..], &["doctor"]] {
            let printed = run_to_failure(SERVER, dir.path(), &settings, arguments).await;
            assert_absent(&printed, PLANTED, &format!("MIGRATIONS {arguments:?} {address}"));
        }
    }
}

#[tokio::test]
async fn an_argument_that_may_be_a_url_is_not_repeated() {
    let dir = empty_dir();
    let address = format!("postgres://ann:{PLANTED}@h/todo");
    for arguments in [
        &["copy", &address][..],
        &[&address],
        &["copy", "--form", &address],
        &["copy", &format!("--form={address}")],
        &["copy", &format!("-x{address}")],
        &["import", "--from", "sqlite://a.db", &address],
        &["copy", "--from", &address],
        &["copy", "--from", &address, "--from", &address, "--to", &address],
    ] {
        for program in PROGRAMS {
            let printed = run_to_failure(program, dir.path(), &[], arguments).await;
            assert_absent(&printed, PLANTED, &format!("{program} {arguments:?}"));
        }
    }
    let printed = run_to_failure(SERVER, dir.path(), &[], &["dance"]).await;
    assert!(printed.contains("'dance'"), "a plain word may be printed: {printed}");
}

#[tokio::test]
async fn a_secret_in_the_wrong_setting_is_not_shown() {
    let dir = empty_dir();
    let path = dir.path().join("secret");
    let file = path.display().to_string();
    fs::write(&path, format!("{PLANTED}\n\u{0}")).expect("a file");
    let wrong = [
        ("SECRET_KEY", PLANTED.to_owned()),
        ("SECRET_KEY_PREVIOUS", PLANTED.to_owned()),
        ("OAUTH_GOOGLE_CLIENT_SECRET", PLANTED.to_owned()),
        ("OAUTH_GITHUB_CLIENT_SECRET", PLANTED.to_owned()),
        ("OAUTH_OIDC_CLIENT_SECRET", PLANTED.to_owned()),
        ("OAUTH_OIDC_CLIENT_SECRET_FILE", PLANTED.to_owned()),
        ("SECRET_KEY_FILE", PLANTED.to_owned()),
        ("SECRET_KEY_FILE", file.clone()),
        ("DATABASE_URL_FILE", PLANTED.to_owned()),
        ("DATABASE_URL_FILE", file),
        ("ALLOWED_ORIGINS", format!("https://ann:{PLANTED}@app.example")),
        ("TRUSTED_PROXIES", PLANTED.to_owned()),
        ("PORT", PLANTED.to_owned()),
        ("HOST", PLANTED.to_owned()),
        ("LOG_LEVEL", PLANTED.to_owned()),
    ];
    for (name, value) in &wrong {
        for (program, arguments) in [
            (PROGRAMS[0], &[][..]),
            (PROGRAMS[1], &[]),
            (SERVER, &["doctor"]),
            (SERVER, &["migrate"]),
        ] {
            let printed = run_to_failure(program, dir.path(), &[(name, value)], arguments).await;
            assert_absent(&printed, PLANTED, &format!("{program} {arguments:?} {name}"));
        }
    }
}

#[tokio::test]
async fn a_line_of_the_env_file_is_not_shown() {
    let unreadable: [(&[u8], &str); 6] = [
        (b"A=1\nSECRET_KEY='{}\n", "line 2: SECRET_KEY"),
        (b"A=1\n\nSECRET_KEY='{}' {}\n", "line 3: SECRET_KEY"),
        (b"A=1\nSECRET_KEY={}\xff\n", "line 2 is not UTF-8"),
        (b"\xff\xfeS\0", "UTF-16"),
        (b"PORT={}\n", "PORT must be"),
        (b"not ours {}\n{} more\nPORT=x\n", ".env: line 2 is not NAME=value"),
    ];
    for (text, expected) in unreadable {
        let dir = empty_dir();
        let text: Vec<u8> = text.to_vec();
        let parts: Vec<&[u8]> = text.split(|byte| *byte == b'{').collect();
        let parts: Vec<_> =
            parts.iter().map(|part| part.strip_prefix(b"}").unwrap_or(part)).collect();
        fs::write(dir.path().join(".env"), parts.join(PLANTED.as_bytes())).expect("a file");
        for (program, arguments) in
            [(PROGRAMS[0], &[][..]), (PROGRAMS[1], &[]), (SERVER, &["doctor"])]
        {
            let mut command = command(program, dir.path(), &[]);
            command.env_remove("PORT").args(arguments);
            let output = timeout(STARTING, command.output())
                .await
                .expect("an exit in time")
                .expect("the program runs");
            let printed = [output.stdout, output.stderr].concat();
            let printed = String::from_utf8_lossy(&printed).into_owned();
            assert_eq!(output.status.code(), Some(1), "{printed}");
            assert!(printed.contains(expected), "{expected}: {printed}");
            assert_absent(&printed, PLANTED, &format!("{program} {arguments:?} {expected}"));
        }
    }
}

/// Another program's `.env` does not prevent a start, and none of its values is printed.
#[tokio::test]
async fn an_env_file_of_another_program_is_read_and_bad_lines_are_reported_by_number() {
    let text = format!(
        "\u{feff}PROJECT_NAME=My Todo API # ours\r\nnpm run {PLANTED}\r\n[section {PLANTED}]\r\n\
         PATH_TO={PLANTED}$HOME\\x it's\r\nSECRET_KEY='abc$defghij{PLANTED}'\r\n"
    );
    for program in PROGRAMS {
        for environment in ["development", "production"] {
            let dir = empty_dir();
            fs::write(dir.path().join(".env"), &text).expect("a file");
            let settings = [("ENVIRONMENT", environment), ("LOG_LEVEL", "trace")];
            let process = Process::start(program, dir.path(), &settings).await;
            let printed = process.stop().await;
            for line in [2, 3] {
                let expected = format!(".env: line {line} is not NAME=value");
                assert_eq!(printed.matches(&expected).count(), 1, "{program}: {printed}");
            }
            assert_absent(&printed, PLANTED, program);
            let is_json = printed.lines().all(|line| line.starts_with('{'));
            assert_eq!(is_json, environment == "production", "{printed}");
        }
    }
}

#[tokio::test]
async fn a_directory_named_env_is_reported() {
    let dir = empty_dir();
    fs::create_dir(dir.path().join(".env")).expect("a directory");
    for program in PROGRAMS {
        let printed = run_to_failure(program, dir.path(), &[], &[]).await;
        assert_eq!(printed, "error: cannot read .env: it is a directory, and must be a file\n");
    }
}

/// The Python backend's example secrets, with which anyone can sign tokens.
#[tokio::test]
async fn published_secrets_are_refused_in_production() {
    for example in [
        "your-secret-key-here-change-in-production",
        "dev-secret-key-change-in-production",
        "your-super-secret-key-change-in-production",
        "change-me-change-me-change-me-change-me",
        "0123456789abcdef0123456789abcdef",
    ] {
        let dir = empty_dir();
        let path = dir.path().join("key");
        fs::write(&path, example).expect("a file");
        let path = path.display().to_string();
        let own = ("SECRET_KEY", "6b1f0a0d9b3c4e5f8a7d6c5b4a392817");
        for settings in [
            &[("SECRET_KEY", example)][..],
            &[("SECRET_KEY_FILE", &*path)],
            &[own, ("SECRET_KEY_PREVIOUS", example)],
        ] {
            let production = [settings, &[("ENVIRONMENT", "production")]].concat();
            for (program, arguments) in
                [(PROGRAMS[0], &[][..]), (PROGRAMS[1], &[]), (SERVER, &["doctor"])]
            {
                let printed = run_to_failure(program, dir.path(), &production, arguments).await;
                assert!(printed.contains("must be a secret of your own"), "{program}: {printed}");
                assert_eq!(printed.lines().count(), 1, "{printed}");
                assert!(!printed.contains(example), "{program}: {printed}");
            }
        }
        assert_eq!(
            fs::read_dir(dir.path()).expect("a directory").count(),
            1,
            "no file was created"
        );
        let program = PROGRAMS[example.len() % 2];
        let process = Process::start(program, dir.path(), &[("SECRET_KEY", example)]).await;
        let printed = process.stop().await;
        let warned = printed.lines().filter(|line| line.contains("WARN"));
        let warned: Vec<_> = warned.filter(|line| line.contains("SECRET_KEY: it ")).collect();
        assert_eq!(warned.len(), 1, "{program}: {printed}");
        assert!(!printed.contains(example), "{program}: {printed}");
    }
}
