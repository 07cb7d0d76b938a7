# Starts a server in an empty folder and stops it when the script ends; sourced by other
# scripts.
# shellcheck shell=bash

# serve SERVER [NAME=VALUE...]: starts a server and sets `address` to its URL. `dir` is a temporary
# folder, its log `$dir/log`, its working directory `$dir/run`. Exits if it does not listen.
serve() {
  local server=$1
  shift
  # A clean environment: the caller's settings must not reach the server.
  mkdir -p "$dir/run"
  # The log of the previous server has another address.
  rm -f "$dir/log"
  (cd "$dir/run" && exec env -i PATH="$PATH" HOST=127.0.0.1 PORT=0 "$@" "$server" 2>"$dir/log") &
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
    echo "the server did not log its address:" >&2
    cat "$dir/log" >&2
    exit 1
  fi
}

# stop [SIGNAL]: sends the server a signal, TERM by default, and waits for its exit.
stop() {
  if [ -n "$pid" ]; then
    kill -s "${1:-TERM}" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=
  fi
}

finish() {
  stop
  rm -rf "$dir"
}

dir=$(mktemp -d)
pid=
trap finish EXIT
