#!/usr/bin/env bash
# Trains config.yaml and compares its accuracy on unseen characters after three steps with the 97 % asked for.
#   bash experiments/omniglot/run.sh [--check | --progress EPISODES]
# Without arguments: everything, see config.yaml for what it costs; stopped, the same command goes on. Writes results.json,
# picture.svg and init/. With --check, about five minutes on one core: evaluates init/ anew and trains the first steps
# anew; nothing is written. --progress measures the newest checkpoint of a training that has not ended. Non-zero if a line
# falls short. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
[ $# -gt 0 ] && exec "$python" run.py "$@"
"$python" run.py || short=$?
"$python" picture.py
exit "${short:-0}"
