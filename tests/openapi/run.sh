#!/usr/bin/env bash
# Holds the OpenAPI document of todo-server to the rules of two linters, redocly's recommended ones and
# Spectral's for OpenAPI: no error and no warning.
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
# Neither asks anything of the network from here on.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true NO_UPDATE_NOTIFIER=1

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# lint NAME [SETTING...]: the document as these settings present it.
lint() {
  local document="$dir/$1.json" said
  shift
  # In an empty folder and environment, so that no setting of the caller's reaches the server.
  (cd "$dir" && env -i PATH="$PATH" "$@" "$server" openapi >"$document")
  # It ends well on warnings: its own count is what decides.
  said=$(node_modules/.bin/redocly lint --config redocly.yaml --format json "$document" || true)
  if ! node -e 'const { totals } = JSON.parse(process.argv[1]);
    process.exit(totals.errors + totals.warnings === 0 ? 0 : 1)' "$said"; then
    echo "$said" >&2
    exit 1
  fi
  node_modules/.bin/spectral lint --ruleset .spectral.yaml --fail-severity hint "$document"
}
lint plain
lint public PUBLIC_URL=https://todo.example.org/todo API_V1_PREFIX=/api/v1
echo "the document breaks no rule of redocly's or Spectral's"
