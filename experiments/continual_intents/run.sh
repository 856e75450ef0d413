#!/usr/bin/env bash
# CLINC150's ten domains as a stream: all strategies from three starts, three seeds each.
#   bash experiments/continual_intents/run.sh [--check | --show | --strategies NAME,… | --starts NAME,…]
#
# Needs ../shared/data/clinc150 beside the repository (or CLINC150=… its folder), and says so where it is not. Without
# arguments: the whole table, some three hours on one core; what is in runs/ is not computed again, and a row that was
# stopped goes on. Writes results.json, which names the rows that are missing, the table in README.md and picture.svg.
# --show: these from what is there. --check: two strategies, two starts, four domains, six minutes on a core shared
# with others, and four for the meta-learned start if it is not there; exits 1 if the claim does not hold there.
# PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
"$python" run.py "$@"
[ "${1:-}" = --check ] || { "$python" table.py && "$python" picture.py; }
