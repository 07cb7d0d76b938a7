#!/usr/bin/env bash
# Runs the session of docs/mail.md, verbatim, against a server that writes its mails into a folder.
# TODO_SERVER: the program; target/debug/todo-server by default.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
server=$(realpath -m "${TODO_SERVER:-$root/target/debug/todo-server}")
if [ ! -x "$server" ]; then
  echo "no server at $server: run cargo build -p todo-server, or name one in TODO_SERVER" >&2
  exit 1
fi
# shellcheck source=tests/serve.sh
. "$root/tests/serve.sh"
export MAILS="$dir/mails"
serve "$server" SMTP_URL="file://$MAILS" MAIL_FROM=todo@example.com APP_URL=https://app.example.com
# Without the code fences.
session=$(sed -n '/^<!-- session:begin -->/,/^<!-- session:end -->/p' "$root/docs/mail.md" |
  sed -n '/^```sh/,/^```$/{/^```/!p}')
output=$(BASE=$address bash -euo pipefail -c "$session" 2>&1) || { echo "$output" >&2; exit 1; }
for expected in '"email_verified":true' '"Password changed successfully"' '"ada@example.org"'; do
  grep -qF "$expected" <<<"$output" || { echo "no $expected in: $output" >&2; exit 1; }
done
echo "the session of docs/mail.md: ok"
