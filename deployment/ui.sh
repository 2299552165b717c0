#!/usr/bin/env bash
# Prefect's server, MLflow's server and a worker with the nightly deployment, until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:?usage: deployment/ui.sh FOLDER_OF_PYTHON}
prefect_port=${PREFECT_PORT:-4200} mlflow_port=${MLFLOW_PORT:-5000}
for port in "$prefect_port" "$mlflow_port"; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is in use: stop what listens there, or choose others with PREFECT_PORT= and MLFLOW_PORT=" >&2
    exit 2
  fi
done
root=${NIGHTLOOM_ROOT:-$PWD/mlruns}
mkdir -p "$root/prefect"
export PREFECT_HOME=$root/prefect NIGHTLOOM_ROOT=$root NIGHTLOOM_HOME=$PWD PYTHONPATH=$PWD
export PREFECT_API_URL=http://127.0.0.1:$prefect_port/api MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
export NIGHTLOOM_MLFLOW_UI=http://127.0.0.1:$mlflow_port
trap 'kill 0' EXIT
"$bin/prefect" server start --host 127.0.0.1 --port "$prefect_port" >"$root/prefect/server.log" 2>&1 &
"$bin/mlflow" server --host 127.0.0.1 --port "$mlflow_port" --workers 1 --backend-store-uri "sqlite:///$root/mlflow.db" \
  --artifacts-destination "$root/artifacts" >"$root/prefect/mlflow.log" 2>&1 &
echo "waiting for Prefect's server (its log: $root/prefect/server.log) ..."
for _ in $(seq 120); do
  "$bin/python" -c "import urllib.request; urllib.request.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null && up=1 && break
  sleep 1
done
[ "${up:-}" ] || { echo "Prefect's server did not come up, see $root/prefect/server.log" >&2; exit 1; }
"$bin/prefect" work-pool create local --type process --overwrite >/dev/null
"$bin/prefect" --no-prompt deploy --all --prefect-file deployment/prefect.yaml >/dev/null
echo "Prefect  http://127.0.0.1:$prefect_port    (deployment nightly/movies-small, 02:00 each night)"
echo "MLflow   http://127.0.0.1:$mlflow_port"
"$bin/prefect" worker start --pool local
