#!/usr/bin/env bash
# Prefect's server, MLflow's server and a worker with the nightly deployment, until Ctrl-C or TERM.
# Where NIGHTLOOM_MLFLOW_URI names an MLflow that runs already, none is started.
set -euo pipefail
set -m # each server gets a process group of its own, which is ended whole, and takes signals as if started by hand
cd "$(dirname "$0")/.."
bin=${1:?usage: deployment/ui.sh FOLDER_OF_PYTHON}
prefect_port=${PREFECT_PORT:-4200} mlflow_port=${MLFLOW_PORT:-5000}
root=${NIGHTLOOM_ROOT:-$PWD/mlruns}
mlflow=${NIGHTLOOM_MLFLOW_URI:-http://127.0.0.1:$mlflow_port}
open=$(printf %s "$mlflow" | sed -E 's#://[^@]*@#://#; s#[?].*##') # without a name and password: for what is shown and looked at
prefect=http://127.0.0.1:$prefect_port
own_mlflow=$([ "${NIGHTLOOM_MLFLOW_URI:-}" ] || echo yes)

for port in "$prefect_port" ${own_mlflow:+"$mlflow_port"}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is in use: stop what listens there, or choose others with PREFECT_PORT= and MLFLOW_PORT=" >&2
    exit 2
  fi
done

started=()
finish() { # end every group, kill what has not ended within 15 s, and leave nothing behind
  local code=$?
  set +m # no lines about jobs that end
  trap '' INT TERM EXIT
  for group in "${started[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
  for _ in $(seq 150); do
    alive=
    for group in "${started[@]}"; do if kill -0 -- "-$group" 2>/dev/null; then alive=yes; fi; done
    [ "$alive" ] || break
    sleep 0.1
  done
  for group in "${started[@]}"; do kill -KILL -- "-$group" 2>/dev/null || true; done
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

await() { # NAME HEALTH_ADDRESS LOG [PID]: until a server answers
  for _ in $(seq 180); do
    if "$bin/python" -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)" "$2" 2>/dev/null; then return; fi
    if [ "${4:-}" ] && ! kill -0 "$4" 2>/dev/null; then break; fi
    sleep 1 &
    wait $! # a signal is taken at once, not after the pause
  done
  echo "$1 does not answer at $2${3:+, see $3}" >&2
  exit 1
}

mkdir -p "$root/prefect"
export PREFECT_HOME=$root/prefect NIGHTLOOM_ROOT=$root NIGHTLOOM_HOME=$PWD PYTHONPATH=$PWD/src:$PWD
export PREFECT_API_URL=$prefect/api MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
"$bin/prefect" server start --host 127.0.0.1 --port "$prefect_port" </dev/null >"$root/prefect/server.log" 2>&1 &
started+=($!)
if [ "$own_mlflow" ]; then
  "$bin/mlflow" server --host 127.0.0.1 --port "$mlflow_port" --workers 1 --backend-store-uri "sqlite:///$root/mlflow.db" \
    --artifacts-destination "$root/artifacts" </dev/null >"$root/prefect/mlflow.log" 2>&1 &
  started+=($!)
fi
echo "waiting for the servers (their logs: $root/prefect/*.log) ..."
await "Prefect's server" "$PREFECT_API_URL/health" "$root/prefect/server.log" "${started[0]}"
case $mlflow in
  http*)
    await "MLflow's server" "${open%/}/health" "${own_mlflow:+$root/prefect/mlflow.log}" "${started[1]:-}"
    export NIGHTLOOM_MLFLOW_UI=${NIGHTLOOM_MLFLOW_UI:-${open%/}}
    ;;
esac

"$bin/prefect" work-pool create local --type process --overwrite >/dev/null
"$bin/prefect" --no-prompt deploy --all --prefect-file deployment/prefect.yaml >/dev/null
form=$("$bin/python" -c "import json, sys, urllib.request
print(json.load(urllib.request.urlopen(sys.argv[1], timeout=30))['id'])" "$PREFECT_API_URL/deployments/name/nightly/movies-small")
echo "Prefect  $prefect    (deployment nightly/movies-small, 02:00 each night)"
echo "Form     $prefect/deployments/deployment/$form/run"
echo "MLflow   ${NIGHTLOOM_MLFLOW_UI:-$open (a database: it has no page of its own)}"
"$bin/python" -m flows.dead_runs || true # runs that were killed with an earlier worker would block the next night for minutes
"$bin/prefect" worker start --pool local </dev/null &
started+=($!)
wait -n "${started[@]}" || true
echo "a server or the worker has ended by itself, see $root/prefect/*.log" >&2
exit 1
