#!/bin/sh
# A Prometheus for this machine, from Debian's package or whatever is on the PATH: `prometheus.sh start|stop`.
# It ends with 1 where there is none to start.
set -eu
home="${TRUEUP_HOME:-.trueup}"
pid="$home/prometheus.pid"

runs() { [ -f "$pid" ] && kill -0 "$(cat "$pid")" 2>/dev/null; }

case "$1" in
start)
	runs && exit 0
	command -v prometheus >/dev/null || exit 1
	targets="$(cd "$home" && pwd)/data/prometheus/targets.json"
	sed "s#TARGETS_FILE#$targets#" examples/prometheus.yaml >"$home/prometheus.yaml"
	nohup prometheus --config.file="$home/prometheus.yaml" --storage.tsdb.path="$home/prometheus" \
		--web.listen-address=127.0.0.1:9090 >"$home/prometheus.log" 2>&1 &
	echo $! >"$pid"
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		if ! runs; then
			rm -f "$pid"
			tail -n 1 "$home/prometheus.log" >&2
			exit 1
		fi
		! grep -q "Server is ready" "$home/prometheus.log" || exit 0
		sleep 0.5
	done
	exit 1
	;;
stop)
	! runs || kill "$(cat "$pid")"
	rm -f "$pid"
	;;
esac
