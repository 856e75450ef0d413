#!/usr/bin/env bash
# Exact second order through a sharded base: errors, memory, traffic, time.   run.sh [--check]
#
# Without arguments: everything that results.json does not hold yet (some minutes), then picture.svg. With --check: the
# bars, PASS or FALL SHORT each, non-zero if one falls short. PYTHON=… chooses the interpreter (default
# .venv/bin/python). Random models are kept in .models.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
if [ "${1:-}" = --check ]; then
    exec "$python" check.py
fi
"$python" campaign.py
"$python" picture.py
