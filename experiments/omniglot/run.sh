#!/usr/bin/env bash
# Trains config.yaml on two cores and compares its accuracy after three steps with the 97 % asked for.
#   bash experiments/omniglot/run.sh [--check] [key=value …]
# Without --check it only trains and evaluates. PYTHON=… chooses the interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }
cd "$here"
check=
[ "${1:-}" = --check ] && { check=yes; shift; }
"$python" -m metacl.cli train config.yaml "$@"
[ -z "$check" ] && exit
exec "$python" - <<'PYTHON'
import json
import sys

rows = json.load(open("runs/omniglot/results.json"))["rows"]
(accuracy,) = [100 * row["accuracy"]["mean"] for row in rows if (row["method"], row["steps"]) == ("meta-learned", 3)]
print(f"{'PASS' if accuracy >= 97 else 'FALL SHORT'}  5-way 1-shot after three steps: {accuracy:.2f} %, asked for: 97 %")
sys.exit(accuracy < 97)
PYTHON
