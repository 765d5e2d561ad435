#!/bin/sh
# Makes .venv with exactly the versions of constraints.txt; does nothing when that is done already.
#   scripts/setup.sh          what the demo needs
#   scripts/setup.sh dev      and what the checks and tests need
# torch comes as the CUDA build where there is an NVIDIA driver, as the small CPU build elsewhere;
# alone and first, so that nothing else pulls in the other one.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-}
venv=.venv
stamp=$venv/.set-up-${extra:-demo}
wanted=$(cat pyproject.toml constraints.txt | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

python=
for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "headless needs Python 3.11 or newer with the venv module: install it," \
        "or name it: make PYTHON=/path/to/python3" >&2
    exit 2
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
torch=$(grep '^torch==' constraints.txt)
if ! $venv/bin/python -c "
import sys
from importlib.metadata import version
sys.exit('torch==' + version('torch').split('+')[0] != '$torch')" 2>/dev/null; then
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then
        # A wheel named +cpu sorts above the plain one, wherever it is found; without the extra
        # index pip would take gigabytes of CUDA libraries that this machine has no use for.
        echo "installing torch (CPU build)"
        $pip install --progress-bar on --retries 1 --timeout 20 --no-deps "$torch" \
            --extra-index-url https://download.pytorch.org/whl/cpu
    else
        echo "installing torch"
        $pip install --progress-bar on --no-deps "$torch"
    fi
fi
echo "installing headless and what it needs"
$pip install --progress-bar on -c constraints.txt -e ".[${extra:-faiss},fast]"
echo "$wanted" >"$stamp"
[ "$extra" = dev ] && echo "$wanted" >"$venv/.set-up-demo"
echo "ready: $venv/bin/headless --help"
