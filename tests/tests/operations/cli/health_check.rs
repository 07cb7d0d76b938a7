//! The health check tells a live server from a dead one, over plain HTTP and TLS.

use std::net::TcpListener;

use todo_tests::{PROGRAMS, Process, empty_dir};

use super::{certificate, is_empty, run};

#[tokio::test]
async fn a_health_check_distinguishes_a_live_server_from_a_dead_one() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = Process::start(program, dir.path(), &[("HOST", "0.0.0.0")]).await;
        let port = process.addr.port().to_string();
        let asked = [("HOST", "0.0.0.0"), ("PORT", port.as_str())];
        let elsewhere = empty_dir();
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 0, "{program}: {err}");
        process.stop().await;
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!((code, err.lines().count()), (1, 1), "{program}: {err}");
        assert!(is_empty(elsewhere.path()), "a check creates no file");

        // A server that accepts and never responds.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("an address").port().to_string();
        let asked = [("PORT", port.as_str())];
        let (code, _, err) = run(program, elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(code, 1, "{program}");
        assert!(err.contains("3 s"), "{err}");
    }
}

#[tokio::test]
async fn a_health_check_over_tls_trusts_the_configured_certificate_only() {
    let (dir, elsewhere) = (empty_dir(), empty_dir());
    let [cert, key] = certificate(dir.path(), "own", 2090);
    let [other, other_key] = certificate(dir.path(), "other", 2090);
    let settings = [("TLS_CERT", &*cert), ("TLS_KEY", &*key)];
    let process = Process::start("todo-server", dir.path(), &settings).await;
    let port = process.addr.port().to_string();
    let port = ("PORT", &*port);
    for (cert, key, code, named) in [
        (&cert, &key, 0, ""),
        (&other, &other_key, 1, "not the one in TLS_CERT"),
        (&String::new(), &String::new(), 1, "health check of "),
        (&dir.path().join("none").display().to_string(), &key, 1, "none: "),
    ] {
        let asked = [port, ("TLS_CERT", &**cert), ("TLS_KEY", &**key)];
        let (found, _, err) = run("todo-server", elsewhere.path(), &asked, &["healthcheck"]).await;
        assert_eq!(found, code, "{cert}: {err}");
        assert!(err.contains(named), "{err}");
    }
    process.stop().await;
}
