//! The page of results: the environment, and a table for each case. The README explains the
//! numbers.

use std::{
    ffi::OsStr,
    fmt::{self, Write},
    fs,
};

use crate::{
    args::Args,
    browse::ClientMode,
    cases::{Case, ServerKind, Target},
    load::{Sample, version},
    measure::{Results, median},
    servers::beside,
    testbed::Storm,
};

/// The whole page in Markdown, with the versions that the databases report.
pub(crate) fn page(results: &Results, args: &Args, databases: &[String]) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, results, args, databases);
    page
}

fn write(page: &mut String, results: &Results, args: &Args, databases: &[String]) -> fmt::Result {
    writeln!(page, "# Results\n")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    writeln!(page, "- command: `{}`", ["bench/run.sh", &arguments.join(" ")].join(" ").trim())?;
    let Args { seconds, rounds, .. } = args;
    writeln!(page, "- {seconds} s each, in turn, medians of {rounds} rounds")?;
    writeln!(page, "- machine: {}", machine())?;
    writeln!(page, "- versions: {}", versions(databases))?;
    for &case in &args.cases {
        table(page, results, case)?;
    }
    browsed(page, results)?;
    storms(page, results)
}

/// todo-hyper-min does not compress, so `Accept-Encoding` does not affect it: its latency is the
/// reference for compressed responses of todo-server.
fn browsed(page: &mut String, results: &Results) -> fmt::Result {
    if results.browsed.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## list 100, one connection, as browsers ask\n")?;
    writeln!(page, "| | | p50 | p99 | of todo-hyper-min's p50 | beyond it |")?;
    writeln!(page, "|---|---|---:|---:|---:|---:|")?;
    let of = |key: (ServerKind, ClientMode), of: fn(&Sample) -> Option<f64>| {
        median(results.browsed.get(&key)?.iter().map(of).collect::<Option<_>>()?)
    };
    for (&(kind, mode), samples) in &results.browsed {
        let [p50, p99] =
            [of((kind, mode), |sample| sample.p50), of((kind, mode), |sample| sample.p99)];
        let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
        let errors = if errors > 0 { format!(" **{errors} errors**") } else { String::new() };
        let like =
            if mode == ClientMode::Plain { ClientMode::Plain } else { ClientMode::Compressed };
        let hyper = of((kind.hyper(), like), |sample| sample.p50).filter(|_| kind != kind.hyper());
        let beside = p50.zip(hyper).map(|(p50, hyper)| {
            format!("{} | {} |", percent(p50 / hyper), milliseconds(p50 - hyper))
        });
        writeln!(
            page,
            "| {kind} | {}{errors} | {} | {} | {}",
            mode.name(),
            p50.map(milliseconds).unwrap_or_default(),
            p99.map(milliseconds).unwrap_or_default(),
            beside.as_deref().unwrap_or("| |"),
        )?;
    }
    Ok(())
}

fn table(page: &mut String, results: &Results, case: Case) -> fmt::Result {
    let rows: Vec<_> = results.samples.iter().filter(|((of, ..), _)| *of == case).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let reference = case.references().first().copied();
    let reference =
        reference.filter(|target| rows.iter().any(|((.., measured), _)| measured == target));
    // A page must cost the same for any length of the list: this is reported separately.
    let shorter = (case == Case::ListMillion).then_some(Case::List);
    let mut columns = vec!["connections", "", "req/s", "p50", "p99", "of bare"];
    let of_reference = reference.map(|reference| format!("of {reference}"));
    columns.extend(of_reference.as_deref());
    let of_shorter = shorter.map(|case| format!("of {}", case.name()));
    columns.extend(of_shorter.as_deref());
    writeln!(page, "\n## {}\n\n| {} |", case.name(), columns.join(" | "))?;
    writeln!(page, "|---:|---|{}", "---:|".repeat(columns.len() - 2))?;
    for (&key, samples) in rows {
        let (_, connections, target) = key;
        let rate = results.median(key, |sample| Some(sample.rate)).unwrap_or_default();
        let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
        let errors = if errors > 0 { format!(" **{errors} errors**") } else { String::new() };
        write!(page, "| {connections} | {target} | {}{errors} |", rounded(rate))?;
        for of in [|sample: &Sample| sample.p50, |sample: &Sample| sample.p99] {
            write!(page, " {} |", results.median(key, of).map(milliseconds).unwrap_or_default())?;
        }
        let kind = match target {
            Target::Server(kind) => Some(kind),
            _ => None,
        };
        let mut share = |of: Option<(Case, Target)>| {
            let ratio = of.and_then(|(case, of)| results.ratio(key, (case, connections, of)));
            write!(page, " {} |", ratio.map(percent).unwrap_or_default())
        };
        share(kind.map(|kind| (case, kind.bare())))?;
        if let Some(reference) = reference {
            // SQLite runs in the process: it is not compared with a database server.
            let on_sqlite = kind.is_some_and(ServerKind::on_sqlite);
            let comparable = kind.filter(|_| reference == Target::Argon2 || !on_sqlite);
            share(comparable.map(|_| (case, reference)))?;
        }
        if let Some(shorter) = shorter {
            share(kind.map(|_| (shorter, target)))?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn storms(page: &mut String, results: &Results) -> fmt::Result {
    if results.storms.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## get one during a login storm\n")?;
    writeln!(page, "| | p99 alone | p99 during it | ratio | logins/s meanwhile |")?;
    writeln!(page, "|---|---:|---:|---:|---:|")?;
    for (kind, storms) in &results.storms {
        let of = |of: &dyn Fn(&Storm) -> f64| {
            median(storms.iter().map(of).collect()).unwrap_or_default()
        };
        let [alone, during] = [
            of(&|storm| storm.alone.p99.unwrap_or_default()),
            of(&|storm| storm.during.p99.unwrap_or_default()),
        ];
        let ratio =
            of(&|storm| storm.during.p99.unwrap_or_default() / storm.alone.p99.unwrap_or_default());
        let logins = of(&|storm| storm.logins.rate);
        let failed = storms.iter().flat_map(|storm| [storm.alone, storm.during, storm.logins]);
        let errors: u64 = failed.map(|sample| sample.errors).sum();
        let errors = if errors > 0 { format!(" **{errors} errors**") } else { String::new() };
        let [alone, during] = [alone, during].map(milliseconds);
        let logins = rounded(logins);
        writeln!(page, "| {kind} | {alone} | {during} | {ratio:.1} | {logins}{errors} |")?;
    }
    Ok(())
}

fn rounded(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { thousands(rate) }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn milliseconds(micros: f64) -> String {
    let digits = if micros < 10_000.0 { 2 } else { 0 };
    format!("{:.digits$} ms", micros / 1000.0)
}

fn percent(ratio: f64) -> String {
    let digits = usize::from(ratio < 0.1);
    format!("{:.digits$} %", ratio * 100.0)
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    // With autogroup, each connection of PostgreSQL, a separate session, gets as much CPU time as a
    // whole server.
    let autogroup = match read("/proc/sys/kernel/sched_autogroup_enabled").trim() {
        "1" => "on",
        _ => "off",
    };
    let model = model.unwrap_or("unknown CPU");
    format!("{cores} cores, {model}, Linux {}, autogroup {autogroup}", kernel.trim())
}

fn versions(databases: &[String]) -> String {
    let mut versions: Vec<_> = ["todo-server", "todo-hyper-min"]
        .iter()
        .filter_map(|name| Some(version(beside(name).ok()?.as_os_str())))
        .collect();
    versions.extend_from_slice(databases);
    let wrk = version(OsStr::new("wrk"));
    versions.push(wrk.split(" Copyright").next().unwrap_or_default().to_owned());
    versions.push(version(OsStr::new("rustc")));
    versions.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_readers() {
        let rates = [7.25, 99.96, 999.6, 12_345.6, 1_234_567.0].map(rounded);
        assert_eq!(rates, ["7.2", "100.0", "1,000", "12,346", "1,234,567"]);
        assert_eq!([123.0, 45_678.0].map(milliseconds), ["0.12 ms", "46 ms"]);
        assert_eq!([0.0042, 0.5, 1.04].map(percent), ["0.4 %", "50 %", "104 %"]);
    }
}
