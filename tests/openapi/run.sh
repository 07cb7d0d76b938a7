#!/usr/bin/env bash
# Checks the OpenAPI document of todo-server with two linters: redocly's recommended rules and
# Spectral's rules for OpenAPI. Fails on errors and on warnings.
# TODO_SERVER: the program, target/debug/todo-server by default.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
server=$(realpath -m "${TODO_SERVER:-$here/../../target/debug/todo-server}")
if ! command -v npm >/dev/null; then
  echo "no npm found: install Node.js 20 or later (Debian: apt-get install nodejs npm)" >&2
  exit 1
fi
if [ ! -x "$server" ]; then
  echo "no server at $server: run cargo build -p todo-server, or name one in TODO_SERVER" >&2
  exit 1
fi

cd "$here"
npm ci --ignore-scripts --no-audit --no-fund
# From here on neither linter uses the network.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true NO_UPDATE_NOTIFIER=1

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# lint NAME [SETTING...]: checks the document of a server with these settings.
lint() {
  local document="$dir/$1.json" result
  shift
  # An empty folder and environment: the caller's settings must not reach the server.
  (cd "$dir" && env -i PATH="$PATH" "$@" "$server" openapi >"$document")
  # redocly exits with 0 on warnings, so the check uses its counts.
  result=$(node_modules/.bin/redocly lint --config redocly.yaml --format json "$document" || true)
  if ! node -e 'const { totals } = JSON.parse(process.argv[1]);
    process.exit(totals.errors + totals.warnings === 0 ? 0 : 1)' "$result"; then
    echo "$result" >&2
    exit 1
  fi
  node_modules/.bin/spectral lint --ruleset .spectral.yaml --fail-severity hint "$document"
}
lint plain
lint public PUBLIC_URL=https://todo.example.org/todo API_V1_PREFIX=/api/v1
echo "redocly and Spectral report no errors or warnings"
