#!/usr/bin/env bash
# Runs the blocks of shell in pages of docs, each page in one session, against a server in an empty
# folder, and compares what each block prints with the JSON that follows it, where … is any text. A
# block without JSON only has to succeed. The session of a page begins with the first block of
# docs/accounts.md, which signs up.
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
for page in accounts recurrence reminders import; do
  serve "$server"
  mkdir "$dir/client"
  status=0
  (cd "$dir/client" && BASE=$address python3 "$root/tests/docs.py" "$root/docs/$page.md" \
    "$root/docs/accounts.md") || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 20 "$dir/log" >&2
    exit "$status"
  fi
  stop
  rm -r "$dir/run" "$dir/client"
done
