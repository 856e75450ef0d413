#!/usr/bin/env bash
# The frozen rows of every cell: five class splits, 600 episodes each, against what others measured.
#   bash experiments/intent_few_shot/run.sh [--check]
# Without arguments: every cell, about half an hour on one core; stopped, the same command goes on. Writes results.json,
# picture.svg and the table in README.md. With --check, about two minutes: one split of two cells anew; nothing is written. Non-zero if a line falls
# short. HuffPost is read from ../shared/data. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
[ $# -gt 0 ] && exec "$python" frozen.py "$@"
"$python" frozen.py || short=$?
"$python" picture.py
"$python" table.py
exit "${short:-0}"
