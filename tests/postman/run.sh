#!/usr/bin/env bash
# Runs the Postman collection on both servers, each in an empty folder.
# TODO_TARGET: where the programs are, target/debug by default.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=$(realpath -m "${TODO_TARGET:-$here/../../target/debug}")
if ! command -v npm >/dev/null; then
  echo "no npm found: install Node.js 20 or later (Debian: apt-get install nodejs npm)" >&2
  exit 1
fi

cd "$here"
npm ci --ignore-scripts --no-audit --no-fund

for server in todo-server todo-hyper-min; do
  if [ ! -x "$target/$server" ]; then
    echo "no server at $target/$server: run cargo build, or name a folder in TODO_TARGET" >&2
    exit 1
  fi
  echo "$server"
  (
    # shellcheck source=tests/serve.sh
    . ../serve.sh
    serve "$target/$server"
    if ! node_modules/.bin/newman run ../../examples/postman/todo.postman_collection.json \
      -e ../../examples/postman/todo.postman_environment.json --env-var "base_url=$address" \
      --timeout-request 30000; then
      tail -n 40 "$dir/log" >&2
      exit 1
    fi
  )
done
