#!/usr/bin/env bash
# Size, idle memory and time to the first response of both programs, on an existing SQLite file.
# Fails if a limit is exceeded. TODO_TARGET: the programs' folder, target/release by default.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=$(realpath -m "${TODO_TARGET:-$root/target/release}")
if [ ! -x "$target/todo-server" ] || [ ! -x "$target/todo-hyper-min" ]; then
  (cd "$root" && cargo build --release --locked -p todo-server -p todo-hyper-min)
fi
dir=$(mktemp -d)
pid=
end() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=
  fi
}
trap 'end; rm -rf "$dir"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# start PROGRAM: sets `took` to the microseconds until the first response.
start() {
  local begin=${EPOCHREALTIME/./} tries=0
  (cd "$dir" && exec env -i PATH="$PATH" PORT="$port" "$target/$1" 2>"$dir/log") &
  pid=$!
  # A socket of bash: curl itself takes as long to start as the server.
  until { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || [ $((tries += 1)) -gt 10000 ]; then
      cat "$dir/log" >&2
      exit 1
    fi
    sleep 0.001
  done
  printf 'GET /health/db HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  local line
  read -r -t 10 line <&3
  took=$((${EPOCHREALTIME/./} - begin))
  exec 3>&-
  case $line in *' 200 '*) ;; *) echo "$1 responds: $line" >&2; exit 1 ;; esac
}

failed=0
printf '%-16s %10s %12s %14s\n' program size idle 'first response'
for limits in todo-server:30 todo-hyper-min:18; do
  program=${limits%:*} limit=${limits#*:}
  rm -f "$dir"/todo.db*
  start "$program"
  end
  best= rss=
  # The best of several runs: other load only adds time. Most of the memory is pages of the program's
  # file, and the kernel maps more of them than are used, by what its page cache holds nearby.
  for _ in {1..10}; do
    end
    start "$program"
    if [ -z "$best" ] || [ "$took" -lt "$best" ]; then best=$took; fi
    sleep 1
    now=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status")
    if [ -z "$rss" ] || [ "$now" -lt "$rss" ]; then rss=$now; fi
  done
  end
  printf '%-16s %7d KB %9d KB %11d ms\n' "$program" "$(($(stat -c %s "$target/$program") / 1024))" \
    "$rss" "$((best / 1000))"
  if [ "$rss" -gt $((limit * 1024)) ] || [ "$best" -gt 50000 ]; then
    echo "$program: more than $limit MB idle, or 50 ms to the first response" >&2
    failed=1
  fi
done
exit "$failed"
