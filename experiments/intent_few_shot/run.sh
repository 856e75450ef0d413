#!/usr/bin/env bash
# Few-shot classification of unseen intents: frozen rows against what others measured, and the meta-learned start against
# every baseline.
#   bash experiments/intent_few_shot/run.sh [--check | --show]
# Without arguments: everything, about half an hour of one core for the frozen rows and an hour for what is trained;
# stopped, the same command goes on. Writes results.json, which names what is missing, picture.svg and the tables in
# README.md. --show: those from what is there. --check: one split of one cell from the start, under ten minutes; nothing
# is written, non-zero if a line falls short. HuffPost and CLINC150 are read from ../shared/data. PYTHON=… chooses the
# interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
case "${1:-}" in
  --check) exec "$python" check.py ;;
  --show) ;;
  "") "$python" frozen.py || short=$?; "$python" campaign.py ;;
  *) echo "$1? There is --check, and --show." >&2; exit 2 ;;
esac
"$python" compare.py || short=$?
"$python" picture.py
"$python" table.py
exit "${short:-0}"
