# Starts a server in an empty folder and stops it when the script ends; sourced by the scripts that
# need one.
# shellcheck shell=bash

# serve SERVER: sets `address` to where it listens. `dir` is a temporary folder, its log
# `$dir/log`. Ends the script if it never listens.
serve() {
  # An environment of its own, so that no setting of the caller's reaches the server.
  mkdir "$dir/run"
  (cd "$dir/run" && exec env -i PATH="$PATH" HOST=127.0.0.1 PORT=0 "$1" 2>"$dir/log") &
  pid=$!
  address=
  for _ in $(seq 300); do
    address=$(sed -n 's|.*listening on \(http://127\.0\.0\.1:[0-9]*\).*|\1|p;T;q' \
      "$dir/log" 2>/dev/null || true)
    if [ -n "$address" ] || ! kill -0 "$pid" 2>/dev/null; then
      break
    fi
    sleep 0.1
  done
  if [ -z "$address" ]; then
    echo "the server did not say where it listens:" >&2
    cat "$dir/log" >&2
    exit 1
  fi
}

finish() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  rm -rf "$dir"
}

dir=$(mktemp -d)
pid=
trap finish EXIT
