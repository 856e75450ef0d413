#!/usr/bin/env bash
# A JSONL file larger than memory, indexed and sampled.   bash experiments/large_jsonl/run.sh [--check] [--scratch DIR]
#
# Without arguments: 0.3, 1 and 5 GB (needs 6 GB of disk for a few minutes; what results.json holds is not done again),
# then picture.svg. With --check: 0.1 and 0.3 GB, under a minute. Exits 1 if a peak is over 500 MB, or if an episode is
# not that of the file in memory. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
exec "$python" campaign.py "$@"
