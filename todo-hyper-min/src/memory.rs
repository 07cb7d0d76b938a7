//! Returns freed memory to the system after a burst of requests.
//!
//! The C library keeps what was freed in its arenas: after a burst, up to 100 MB for as long as the
//! process lives. The allocator of todo-server returns it, but takes 2 to 3 MB more without load.

use std::time::Duration;

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::interval,
};

/// Interval of the check.
const INTERVAL: Duration = Duration::from_secs(10);
/// Growth of the process from which memory is returned. Less is needed again by the next requests.
const MIN_GROWTH_KIB: usize = 8 << 10;

/// Returns memory while the process is larger than at the call, until the runtime stops.
pub(crate) fn spawn_return() -> JoinHandle<()> {
    let at_start = resident_kib();
    tokio::spawn(async move {
        let Some(at_start) = at_start else { return };
        let mut interval = interval(INTERVAL);
        loop {
            interval.tick().await;
            if resident_kib().is_some_and(|now| now > at_start + MIN_GROWTH_KIB) {
                // Some milliseconds for 100 MB, during which threads wait to allocate.
                let _ = spawn_blocking(trim).await;
            }
        }
    })
}

/// The resident memory of the process in KiB (proc(5), `/proc/pid/status`).
fn resident_kib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[expect(unsafe_code, reason = "the C library has no safe interface for it")]
fn trim() {
    // SAFETY: malloc_trim(3) has no precondition, and is safe to call from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_returned() {
        // Small pieces: the C library maps large ones by themselves, and unmaps them when freed.
        let pieces: Vec<Box<[u8; 1024]>> = (0..64 << 10).map(|_| Box::new([1; 1024])).collect();
        // The last piece keeps the top of the heap in use.
        let last = Box::new([1_u8; 1024]);
        let used = resident_kib().unwrap();
        drop(pieces);
        trim();
        let now = resident_kib().unwrap();
        assert!(now + (48 << 10) < used, "{used} KiB in use, {now} KiB after the return");
        drop(last);
    }
}
