#!/usr/bin/env bash
# Uses examples/better-auth with todo-server in headless Chromium. TODO_SERVER: the program,
# target/debug/todo-server by default. CHROMIUM: the browser, if it is not on the PATH.
set -euo pipefail
cd "$(dirname "$0")"
server=$(realpath -m "${TODO_SERVER:-../../target/debug/todo-server}")

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
export CHROMIUM
npm ci --ignore-scripts --no-audit --no-fund
(cd ../../examples/better-auth && npm ci --ignore-scripts --no-audit --no-fund)

# shellcheck source=tests/serve.sh
. ../serve.sh
# Each program has the other's address.
port=$(node -e 'const server = require("net").createServer().listen(0, "127.0.0.1",
  () => { console.log(server.address().port); server.close(); })')
BASE_URL=http://127.0.0.1:$port
serve "$server" AUTH_ISSUER="$BASE_URL" AUTH_AUDIENCE=todo ALLOWED_ORIGINS="$BASE_URL"
export BASE_URL TODO_URL=$address
HOST=127.0.0.1 PORT=$port node ../../examples/better-auth/server.mjs >"$dir/better-auth.log" 2>&1 &
better_auth=$!
trap 'kill "$better_auth" 2>/dev/null || true; finish' EXIT
for _ in $(seq 100); do
  grep -q listening "$dir/better-auth.log" && break
  sleep 0.1
done
if ! node --test better-auth.test.mjs; then
  tail -n 40 "$dir/log" "$dir/better-auth.log" >&2
  exit 1
fi
