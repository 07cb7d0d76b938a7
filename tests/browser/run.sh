#!/usr/bin/env bash
# Drives the documentation pages of todo-server in headless Chromium.
# TODO_SERVER: the program, target/debug/todo-server by default. CHROMIUM: the browser, if it is not
# on the PATH. SHOTS: a folder for pictures of the pages.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
server=$(realpath -m "${TODO_SERVER:-$here/../../target/debug/todo-server}")

for name in chromium chromium-browser google-chrome; do
  CHROMIUM=${CHROMIUM:-$(command -v "$name" || true)}
done
if [ ! -x "$CHROMIUM" ]; then
  echo "no Chromium found: install it (Debian: apt-get install chromium) or name it in CHROMIUM" >&2
  exit 1
fi
if ! command -v npm >/dev/null; then
  echo "no npm found: install Node.js 20 or later (Debian: apt-get install nodejs npm)" >&2
  exit 1
fi
if [ ! -x "$server" ]; then
  echo "no server at $server: run cargo build -p todo-server, or name one in TODO_SERVER" >&2
  exit 1
fi
export CHROMIUM
if [ -n "${SHOTS:-}" ]; then
  mkdir -p "$SHOTS"
  SHOTS=$(realpath "$SHOTS")
  export SHOTS
fi

cd "$here"
npm ci --ignore-scripts --no-audit --no-fund

# shellcheck source=tests/serve.sh
. ../serve.sh
serve "$server"
export BASE_URL="$address"
if ! node --test docs.test.mjs; then
  tail -n 40 "$dir/log" >&2
  exit 1
fi
