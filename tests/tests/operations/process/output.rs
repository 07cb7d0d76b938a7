//! A log that nobody reads blocks no request, and a closed output changes no exit status.

use std::net::SocketAddr;

use todo_tests::{PROGRAMS, STARTING, STOPPING, at_once, built, command, empty_dir, raw};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// The listen address of a program, from its standard error, which is read only up to that line.
async fn read_listen_address(stderr: &mut (impl AsyncBufReadExt + Unpin)) -> SocketAddr {
    let mut line = String::new();
    let listens = async {
        loop {
            line.clear();
            assert_ne!(
                stderr.read_line(&mut line).await.expect("a readable stream"),
                0,
                "the stream ended"
            );
            if let Some((_, address)) = line.split_once("listening on http://") {
                let address = address.split_whitespace().next().expect("an address");
                return address.parse().expect("an address");
            }
        }
    };
    timeout(STARTING, listens).await.expect("a listen address in time")
}

/// Requests `/health` `count` times on one connection and counts the responses.
async fn count_health_responses(addr: SocketAddr, count: usize) -> usize {
    let (mut reader, mut writer) =
        TcpStream::connect(addr).await.expect("a connection").into_split();
    let sender = tokio::spawn(async move {
        let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
        for _ in 0..count / 50 {
            if writer.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        writer
    });
    let (mut seen, mut chunk, mut last) = (0, [0; 8192], Vec::new());
    let counting = async {
        while let Ok(read @ 1..) = reader.read(&mut chunk).await {
            last.extend_from_slice(&chunk[..read]);
            seen += last.windows(12).filter(|bytes| bytes == b"HTTP/1.1 200").count();
            // A status line may be cut in two.
            last.drain(..last.len().saturating_sub(11));
            if seen == count {
                break;
            }
        }
    };
    let _ = timeout(STARTING, counting).await;
    sender.abort();
    seen
}

/// An unread log fills its pipe after some 300 requests. Requests beyond that, and beyond the
/// server's buffer of log lines, are still answered, and a stop is as prompt as otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_log_blocks_nothing() {
    const EACH: usize = 2500;
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut child = command(program, dir.path(), &[]).spawn().expect("the program runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let addr = read_listen_address(&mut stderr).await;
        let answered = at_once(4, |_| count_health_responses(addr, EACH)).await;
        assert_eq!(answered, [EACH; 4], "{program}");
        let metrics = String::from_utf8_lossy(
            &raw(addr, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await,
        )
        .into_owned();
        let dropped =
            metrics.lines().find_map(|line| line.strip_prefix("log_lines_dropped_total "));
        let dropped: f64 = dropped.expect(&metrics).parse().expect("a number");
        println!("{program}: {dropped} of {} lines were dropped", 4 * EACH);
        assert!(dropped > 0.0, "{program}: no line was dropped, so nothing was tested");

        let id = child.id().expect("a running process").to_string();
        let sent = std::process::Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(sent.expect("kill runs").success());
        let ended = timeout(STOPPING, child.wait()).await.expect("an exit in time");
        assert!(ended.expect("a status").success(), "{program}");
        drop(stderr);
    }
}

/// Once the log is read again, it contains the number of dropped lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_read_again_reports_the_dropped_lines() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let mut child = command(program, dir.path(), &[]).spawn().expect("the program runs");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let addr = read_listen_address(&mut stderr).await;
        assert_eq!(
            at_once(4, |_| count_health_responses(addr, 2500)).await,
            [2500; 4],
            "{program}"
        );
        let mut line = String::new();
        let reported = async {
            while !line.contains("log lines were dropped") {
                line.clear();
                assert_ne!(stderr.read_line(&mut line).await.expect("a readable stream"), 0);
            }
        };
        timeout(STARTING, reported).await.expect("a log line in time");
        assert!(line.contains("lines="), "{program}: {line}");
        child.kill().await.expect("a kill");
    }
}

/// A reader such as `head` closes the pipe before all output is written.
#[tokio::test]
async fn a_closed_output_pipe_does_not_change_the_exit_status() {
    for (program, argument) in
        [(PROGRAMS[0], "--help"), (PROGRAMS[1], "--help"), (PROGRAMS[1], "-V")]
    {
        let dir = empty_dir();
        let mut command = command("bash", dir.path(), &[]);
        // The reader exits before the program writes.
        let script = "exec 3> >(:); sleep 0.3; \"$0\" \"$1\" >&3";
        let output = command.args(["-c", script]).arg(built(program)).arg(argument).output();
        let output = timeout(STARTING, output).await.expect("in time").expect("the program runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.is_empty(), "{program} {argument}: {log}");
    }
}
