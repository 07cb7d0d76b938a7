#!/usr/bin/env bash
# Checks the deployment files, without building an image: HAProxy's configuration, the systemd unit,
# the compose files, alerts and panels; that all documents list the same settings; and that backup
# and restore work on both databases as in docs/deployment.md. Needs PostgreSQL's binaries; installs
# the rest by tests/install.sh. All servers listen on 127.0.0.1 or a unix socket.
# TODO_SERVER: the program; debug/todo-server in CARGO_TARGET_DIR or target by default.
set -euo pipefail
export LC_ALL=C
root=$(cd "$(dirname "$0")/.." && pwd)
server=$(realpath -m "${TODO_SERVER:-${CARGO_TARGET_DIR:-$root/target}/debug/todo-server}")
if [ ! -x "$server" ]; then
  echo "no server at $server: run cargo build -p todo-server, or name one in TODO_SERVER" >&2
  exit 1
fi
cd "$root"

# shellcheck source=tests/serve.sh
. tests/serve.sh
cluster=
postgres=
# The cluster's files belong to another user, outside of `dir`.
end() {
  if [ -n "$postgres" ]; then
    kill -s INT "$postgres" 2>/dev/null || true
    wait "$postgres" 2>/dev/null || true
  fi
  if [ -n "$cluster" ]; then rm -rf "$cluster"; fi
  finish
}
trap end EXIT

fail() {
  echo "shipping: $1" >&2
  exit 1
}

# quiet COMMAND...: runs it for at most a minute; prints its output only if it fails.
quiet() {
  timeout -k 5 60 "$@" >"$dir/output" 2>&1 || {
    cat "$dir/output" >&2
    fail "failed: $*"
  }
}

# rejects WHAT COMMAND...: a negative control: the command must fail.
rejects() {
  local what=$1
  shift
  # A subshell, which also hides bash's message about a killed program.
  if (timeout -k 5 60 "$@" || exit 1) >/dev/null 2>&1; then fail "$what is not detected"; fi
}

# once FROM TO FILE: FILE with its single line that matches FROM changed to TO.
once() {
  [ "$(grep -cE "$1" "$3")" = 1 ] || fail "$3 has not exactly one line that matches $1"
  sed -E "s#$1#$2#" "$3"
}

tool() { tests/install.sh "$@" || exit 1; }

# call METHOD PATH [BODY]: prints the response, which must be a 2xx.
call() {
  curl -sS -m 30 --fail-with-body -X "$1" "$address/api$2" -H "Authorization: Bearer ${token:-}" \
    ${3:+-H 'Content-Type: application/json' -d "$3"} || fail "$1 $2 failed"
}

# sign_up: creates an account; sets `token`, and `todos` to the path of its todos.
sign_up() {
  local answer
  token=
  answer=$(call POST /auth/signup \
    '{"email": "ada@example.com", "password": "Correct1horse", "name": "Ada Lovelace"}')
  token=$(sed -E 's/.*"token":"([^"]+)".*/\1/' <<<"$answer")
  todos=/users/$(sed -E 's/.*"user":\{"id":"([^"]+)".*/\1/' <<<"$answer")/todos
}

haproxy_configuration() {
  local haproxy names
  haproxy=$(tool haproxy)
  tool openssl >/dev/null
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
  cat "$dir/cert.pem" "$dir/key.pem" >"$dir/todo.pem"
  # The servers' names resolve only between the containers.
  names=$(sed -nE 's/^ *server [a-z]+ ([a-z0-9-]+):8000$/\1/p' deploy/haproxy/haproxy.cfg)
  [ "$names" = $'todo-1\ntodo-2\ntodo-3' ] || fail "haproxy.cfg has other servers: $names"
  sed -E 's/^( *server [a-z]+) [a-z0-9-]+:8000$/\1 127.0.0.1:8000/' deploy/haproxy/haproxy.cfg \
    >"$dir/haproxy.cfg"
  # -dW: a warning is an error.
  quiet env -u TLS_PEM "$haproxy" -dW -c -f "$dir/haproxy.cfg"
  quiet env TLS_PEM="$dir/todo.pem" "$haproxy" -dW -c -f "$dir/haproxy.cfg"
  rejects "a missing certificate" env TLS_PEM="$dir/none.pem" "$haproxy" -c -f "$dir/haproxy.cfg"
}

systemd_unit() {
  local analyze python unit=$dir/todo-server.service
  analyze=$(tool systemd-analyze systemd)
  # The program is not installed on this machine.
  once '^ExecStart=/usr/local/bin/todo-server$' "ExecStart=$server" \
    deploy/systemd/todo-server.service >"$unit"
  quiet "$analyze" verify --man=no --recursive-errors=no "$unit"
  # An unknown key is only a warning.
  [ ! -s "$dir/output" ] || { cat "$dir/output" >&2 && fail "systemd warns of the unit"; }
  # 1.4 of 10, where 10 is a unit without any protection.
  quiet "$analyze" security --offline=yes --no-pager --threshold=14 "$unit"

  # The unit's system call filter allows all that a server does.
  python=$(python3 -c 'import sys; print(sys.executable)')
  local confined=("$python" "$root/tests/confined.py" "$unit")
  local forbidden='import os; os.sched_setaffinity(0, os.sched_getaffinity(0))'
  quiet "$python" -c "$forbidden"
  quiet "${confined[@]}" "$python" -c pass
  rejects "a system call that the unit forbids" "${confined[@]}" "$python" -c "$forbidden"
  printf '#!/bin/sh\nexec "%s" "%s" "%s" "%s"\n' "${confined[@]}" "$server" >"$dir/confined"
  chmod +x "$dir/confined"
  serve "$dir/confined"
  sign_up
  stop
}

# address_of SERVICE: its IPv4 address in `file`.
address_of() {
  local found
  found=$(sed -n "/^  $1:\$/,/^\$/p" "$file" | sed -nE 's/^ *ipv4_address: (.*)/\1/p')
  [ -n "$found" ] || fail "$file gives $1 no address"
  echo "$found"
}

compose_files() {
  local compose file service secret mounted
  if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
  else
    compose=("$(tool docker-compose)")
  fi
  for file in compose.yaml deploy/compose.scaled.yaml; do
    quiet "${compose[@]}" -f "$file" config -q
    # Its secrets, build stages and mounted files, which older releases of compose do not check.
    for secret in $(sed -nE 's/^ *secrets: \[(.*)\]$/\1/p' "$file" | tr -d ,); do
      sed '1,/^secrets:$/d' "$file" | grep -xF "  $secret:" >/dev/null ||
        fail "$file gives a service $secret, which is not in its secrets"
    done
    for service in $(sed -nE 's/^ *target: (\S+)$/\1/p' "$file"); do
      grep -qE "^FROM \S+ AS $service\$" Dockerfile || fail "$file builds $service, not in Dockerfile"
    done
    sed -nE 's|^ *- (\./[^:]+):.*|\1|p' "$file" | while read -r mounted; do
      [ -e "$(dirname "$file")/$mounted" ] || fail "$file mounts $mounted, which does not exist"
    done
  done
  "${compose[@]}" -f "$file" config --services 2>/dev/null >"$dir/services"
  for service in $(sed -nE 's/^ *server [a-z]+ ([a-z0-9-]+):.*/\1/p' deploy/haproxy/haproxy.cfg); do
    grep -qx "$service" "$dir/services" || fail "compose.scaled.yaml has no $service for HAProxy"
    # HAProxy needs the address of a server that is down too.
    [ "$(sed -nE "s/^      $service: ([0-9.]+)\$/\1/p" "$file")" = "$(address_of "$service")" ] ||
      fail "haproxy's extra_hosts in $file lack the address of $service"
  done
  [ "$(sed -nE 's/^    TRUSTED_PROXIES: (.*)/\1/p' "$file")" = "$(address_of haproxy)" ] ||
    fail "TRUSTED_PROXIES in $file is not haproxy's address"
}

# The names of the settings, as `doctor` prints them. The unit tests of todo-runtime compare them with
# README.md and .env.example.
settings() {
  mkdir "$dir/doctor"
  (
    cd "$dir/doctor"
    env -i PATH="$PATH" timeout 60 "$server" doctor | sed -nE 's/^([A-Z][A-Z0-9_]*)=.*/\1/p'
  ) >"$dir/names"
  [ "$(wc -l <"$dir/names")" -gt 20 ] || fail "doctor prints no settings"
  # All that the deployment files set is a setting, or the `_FILE` of one.
  sed -E 's/$/_FILE/' "$dir/names" | cat "$dir/names" - >"$dir/known"
  {
    sed -nE 's/^ +([A-Z][A-Z0-9_]+):.*/\1/p' compose.yaml deploy/compose.scaled.yaml
    sed -nE 's/^Environment=(.*)/\1/p' deploy/systemd/todo-server.service | tr ' ' '\n' | sed 's/=.*//'
    sed -nE 's/^ENV (.*)/\1/p' Dockerfile | tr ' ' '\n' | sed 's/=.*//'
  } | grep -vE '^(POSTGRES_.*|TLS_PEM)$' | sort -u >"$dir/set"
  [ -s "$dir/set" ] || fail "no settings found in the deployment files"
  if grep -vxFf "$dir/known" "$dir/set" >&2; then fail "the deployment files set unknown names"; fi
}

# Rules, panels and a server's metrics parse. tests/tests/wire/metrics.rs checks that they name the same
# metrics.
metrics() {
  local promtool query panel=0
  promtool=$(tool promtool prometheus)
  quiet "$promtool" check rules deploy/prometheus/alerts.yml
  grep -qE 'SUCCESS: [1-9]' "$dir/output" || fail "alerts.yml has no rules"
  {
    printf 'groups:\n  - name: panels\n    rules:\n'
    sed -n '/^## Panels$/,/^## /p' docs/metrics.md | sed -nE 's/^\|[^`]*\| `(.*)` \|$/\1/p' |
      while read -r query; do
        printf "      - record: panel%d\n        expr: '%s'\n" "$((panel += 1))" "$query"
      done
  } >"$dir/panels.yml"
  quiet "$promtool" check rules "$dir/panels.yml"
  grep -qE 'SUCCESS: [1-9]' "$dir/output" || fail "docs/metrics.md has no panels"

  serve "$server"
  # A route has a series from its first response on.
  curl -sS -m 10 --fail "$address/health" >/dev/null
  curl -sS -m 10 --fail "$address/metrics" >"$dir/metrics"
  stop
  quiet "$promtool" check metrics <"$dir/metrics"
}

# document NAME: runs the text between its marks in docs/deployment.md, in the server's directory.
document() {
  sed -n "/^<!-- $1:begin -->\$/,/^<!-- $1:end -->\$/p" docs/deployment.md |
    sed -e '/^<!-- /d' -e '/^```/d' >"$dir/$1"
  [ -s "$dir/$1" ] || fail "docs/deployment.md has no $1 between its marks"
  (cd "$dir/run" && quiet env DATABASE_URL="$url" PATH="$(dirname "$server"):$PATH" sh -u "$dir/$1")
}

# backup NAME: on the empty database at `url`, with a server confined as by the unit.
backup() {
  local before after title todo
  rm -rf "$dir/run"
  serve "$dir/confined" DATABASE_URL="$url"
  sign_up
  for title in milk bread 'caf\u00e9'; do call POST "$todos" "{\"title\": \"$title\"}" >/dev/null; done
  before=$(call GET "$todos")
  grep -qF '"total":3' <<<"$before" || fail "$1: three todos are not listed: $before"

  document "$1-backup"
  todo=$(sed -E 's/.*"todos":\[\{"id":"([^"]+)".*/\1/' <<<"$before")
  call DELETE "$todos/$todo" >/dev/null
  call POST "$todos" '{"title": "after the backup"}' >/dev/null
  call POST "$todos" '{"title": "after it as well"}' >/dev/null
  after=$(call GET "$todos")
  grep -qF '"total":4' <<<"$after" || fail "$1: four todos are not listed: $after"
  # A crash leaves a WAL file, which the restore must not read.
  stop KILL
  document "$1-restore"
  serve "$dir/confined" DATABASE_URL="$url"
  after=$(call GET "$todos")
  [ "$after" = "$before" ] || fail "$1: the todos are not those of the backup: $after"
  # And new todos can be created.
  call POST "$todos" '{"title": "after the restore"}' >/dev/null
  stop
  find "$dir/run" \( -name backup.db -o -name todo.dump \) -perm /077 | grep . >&2 &&
    fail "$1: others may read the backup"
  echo "shipping: backup and restore, $1: ok"
}

# start_postgres: starts a cluster of this machine's binaries, on a unix socket in `cluster`.
start_postgres() {
  local binaries=${TODO_TEST_POSTGRES_BIN:-} as=()
  if [ -z "$binaries" ]; then
    binaries=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) ||
      binaries=$(dirname "$(command -v initdb || true)")
  fi
  [ -x "$binaries/initdb" ] || fail "no initdb: apt-get install postgresql, for instance"
  # The document's commands must have the same version.
  PATH=$binaries:$PATH
  cluster=$(mktemp -d)
  if [ "$(id -u)" = 0 ]; then
    chown postgres: "$cluster"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  fi
  (cd "$cluster" && quiet "${as[@]}" "$binaries/initdb" --username=postgres --auth=trust \
    --encoding=UTF8 --no-locale --no-sync -D "$cluster/data")
  (cd "$cluster" && exec "${as[@]}" "$binaries/postgres" -D "$cluster/data" -k "$cluster" \
    -c listen_addresses= -c fsync=off >/dev/null 2>"$dir/postgres.log") &
  postgres=$!
  for _ in $(seq 300); do
    if psql -qXAt -h "$cluster" -U postgres -c 'CREATE DATABASE todo' >/dev/null 2>&1; then return; fi
    kill -0 "$postgres" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/postgres.log" >&2
  fail "PostgreSQL does not run"
}

for check in settings haproxy_configuration systemd_unit compose_files metrics; do
  "$check"
  echo "shipping: ${check//_/ }: ok"
done
url=sqlite://todo.db
backup sqlite
start_postgres
url="postgres://postgres@localhost/todo?host=$cluster"
backup postgres
