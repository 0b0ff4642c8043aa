#!/usr/bin/env bash
# Starts Prometheus and Grafana from installed programs, without containers, on the machine of the head:
#
#   cluster/monitoring/start.sh [folder for their data, default ~/.tubelet/monitoring]
#
# Prometheus: http://127.0.0.1:9090, Grafana: http://127.0.0.1:3000. Loopback alone: from a laptop, through SSH. Ctrl-C
# ends both. Without Grafana, Prometheus starts alone. PROMETHEUS and GRAFANA name programs that are not on the PATH,
# PROMETHEUS_PORT and GRAFANA_PORT other ports.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${1:-$HOME/.tubelet/monitoring}
prometheus=${PROMETHEUS:-prometheus}
grafana=${GRAFANA:-grafana}
mkdir -p "$data/prometheus" "$data/grafana"

if ! command -v "$prometheus" >/dev/null; then
    echo "$prometheus is not installed: see prometheus.io/download, or use compose.yaml" >&2
    exit 2
fi

started=()
end() {
    kill "${started[@]}" 2>/dev/null || true
    wait
}
trap end EXIT
trap 'exit 0' INT TERM # and so through `end`

"$prometheus" --config.file="$here/prometheus.yaml" --storage.tsdb.path="$data/prometheus" \
    --web.listen-address="127.0.0.1:${PROMETHEUS_PORT:-9090}" --log.level=warn &
started+=($!)
echo "Prometheus: http://127.0.0.1:${PROMETHEUS_PORT:-9090}"

if command -v "$grafana" >/dev/null; then
    # Where its packages put their own files; a tarball's are beside its program.
    home=${GRAFANA_HOME:-/usr/share/grafana}
    GF_SERVER_HTTP_ADDR=127.0.0.1 \
        GF_SERVER_HTTP_PORT=${GRAFANA_PORT:-3000} \
        GF_PATHS_DATA="$data/grafana" \
        GF_PATHS_LOGS="$data/grafana" \
        GF_PATHS_PROVISIONING="$here/grafana/provisioning" \
        GF_AUTH_ANONYMOUS_ENABLED=true \
        GF_AUTH_ANONYMOUS_ORG_ROLE=Viewer \
        GF_ANALYTICS_REPORTING_ENABLED=false \
        GF_ANALYTICS_CHECK_FOR_UPDATES=false \
        GF_LOG_LEVEL=warn \
        TUBELET_DASHBOARDS="$here/grafana/dashboards" \
        TUBELET_PROMETHEUS="http://127.0.0.1:${PROMETHEUS_PORT:-9090}" \
        "$grafana" server --homepath "$home" &
    started+=($!)
    echo "Grafana: http://127.0.0.1:${GRAFANA_PORT:-3000}"
else
    echo "$grafana is not installed: Prometheus alone" >&2
fi

wait -n # until one of them ends
