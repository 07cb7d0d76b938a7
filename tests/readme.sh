#!/usr/bin/env bash
# Runs the shell session of README.md verbatim, against a server in an empty folder.
# TODO_SERVER: the program; target/debug/todo-server by default, else target/release/todo-server.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

server=${TODO_SERVER:-}
if [ -z "$server" ]; then
  server=$root/target/debug/todo-server
  [ -x "$server" ] || server=$root/target/release/todo-server
fi
server=$(realpath -m "$server")
if [ ! -x "$server" ]; then
  echo "no server at $server: run cargo build -p todo-server, or name one in TODO_SERVER" >&2
  exit 1
fi

# shellcheck source=tests/serve.sh
. "$root/tests/serve.sh"

# The text between the markers, without the code fence.
sed -n '/^<!-- session:begin -->$/,/^<!-- session:end -->$/p' "$root/README.md" |
  sed -e '/^<!-- /d' -e '/^```/d' >"$dir/session"
if ! grep -q curl "$dir/session"; then
  echo "README.md has no session between its markers" >&2
  exit 1
fi

serve "$server"

fail() {
  echo "README session: $1" >&2
  cat "$dir/out" >&2
  tail -n 20 "$dir/log" >&2
  exit 1
}
BASE=$address sh -eu "$dir/session" >"$dir/out" 2>&1 || fail "a line of it failed"
[ "$(tail -n 1 "$dir/out")" = 404 ] || fail "the deleted todo is not a 404"
for expected in '"title":"Buy milk"' '"total":1' '"description":"oats"' '"completed":true' \
  '"at":"2026-12-07T08:00:00Z"' 'Todo deleted successfully'; do
  grep -qF "$expected" "$dir/out" || fail "no response contains $expected"
done
echo "README session: ok"
