#!/usr/bin/env bash
# A short load: a server on a free port, a closed loop, then open loops below and above what it gave.
# run.sh BINARY K6 [IMAGE]
set -euo pipefail
binary=$1 k6=$2 image=$(realpath "${3:-tests/golden/images/x_coffee_256.png}")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
"$binary" serve --listen 127.0.0.1:0 --drain-delay 0s --log-level warn >"$work/out" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -rf "$work"' EXIT
until grep -q listening "$work/out"; do kill -0 "$server"; sleep 0.1; done
url=$(sed 's/listening on //' "$work/out")

load() { # NAME=VALUE...
	env K6_NO_USAGE_REPORT=true URL="$url" IMAGE="$image" "$@" "$k6" run --quiet --no-usage-report \
		$(for pair in URL="$url" IMAGE="$image" "$@"; do printf -- '-e %s ' "$pair"; done) "$here/score.js" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
}
load CLIENTS=1 DURATION=3s
load CLIENTS=8 DURATION=8s SUMMARY="$work/closed.json"
capacity=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["status_200"]["values"]["rate"])' "$work/closed.json")
load RATE="$(python3 -c "print(round(0.5 * $capacity, 1))")" DURATION=8s
load RATE="$(python3 -c "print(round(2 * $capacity, 1))")" DURATION=10s
