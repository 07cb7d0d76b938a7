#!/usr/bin/env bash
# Builds the servers and the driver, and runs the benchmark; `bench/run.sh --help` lists the
# options. README.md describes the measurements. Installs wrk if it is missing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
temp=${TMPDIR:-/tmp}
if [ "$(stat -f -c %T "$temp")" = tmpfs ]; then
  echo "$temp is in memory: set TMPDIR to a directory on the disk to measure" >&2
  exit 1
fi
# pgbench and PostgreSQL of the same version: Debian keeps both off the path.
newest=$(compgen -G '/usr/lib/postgresql/*/bin/pgbench' | sort -V | tail -n 1 || true)
if [ -n "$newest" ]; then
  PATH=$(dirname "$newest"):$PATH
elif ! command -v pgbench >/dev/null; then
  echo "pgbench is missing: install it, for instance with \`apt-get install postgresql\`" >&2
  exit 1
fi
bash "$root/tests/install.sh" wrk >/dev/null
build() { (cd "$root" && cargo build --release --locked "$@"); }
# Not in one build with the driver: its dependency, the test harness, would enable features in the
# servers that a release does not have.
build -p todo-server -p todo-hyper-min
build -p todo-bench
exec cargo run --release --locked --quiet --manifest-path "$root/Cargo.toml" -p todo-bench \
  --bin todo-bench -- "$@"
