#!/usr/bin/env bash
# A small Llama on text domains: meta-learned against joint pre-training.   bash experiments/domain_lm/run.sh [--check]
#
# Needs ../shared/data/lm_domains beside the repository, and says so where it is not. Without arguments: everything,
# about 25 minutes on one core; stopped, the same command goes on; writes results.json and picture.svg. With --check: all
# of it at an eighth of the size, about four minutes, and results.json is judged. Exits 1 if the acceptance line falls
# short. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
[ $# -gt 0 ] && exec "$python" run.py "$@"
"$python" run.py || short=$?
[ ! -e results.json ] || "$python" picture.py
exit "${short:-0}"
