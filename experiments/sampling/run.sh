#!/usr/bin/env bash
# What drawing and tokenizing episodes costs of a training task.   bash experiments/sampling/run.sh [--check]
#
# Without arguments: thirty tasks of each config whose data and model are there, about four minutes on one core; what
# results.json holds is not measured again. With --check: five tasks of each, nothing is written. Exits 1 at 2 % or more.
# PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
exec "$python" campaign.py "$@"
