#!/usr/bin/env bash
# Five text domains one after another for a small causal language model.   bash experiments/continual_lm/run.sh [--check]
#
# Needs ../shared/data/lm_domains beside the repository (or LM_DOMAINS=… its folder), and says so where it is not. Without
# arguments: everything, some fifteen minutes on one core; stopped, the same command goes on; writes results.json, the
# table in README.md and picture.svg. With --check: three domains, three strategies, a quarter of the training, some
# six minutes; exits 1 if a line falls short there. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root:$here/../domain_lm OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
"$python" run.py "$@" || short=$?
[ $# -gt 0 ] || [ ! -e results.json ] || { "$python" table.py && "$python" picture.py; }
exit "${short:-0}"
