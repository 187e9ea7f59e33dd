#!/usr/bin/env bash
# All of benchmarks/gpu.py, offline, from a checkout that need not be installed.
#
#     bash benchmarks/gpu.sh [--wheels FOLDER] [--device cuda|cpu] [--tiny] [--rounds N] [--output FILE]
#
# Takes torch (>= 2.11) and transformers as they are. Wheels in FOLDER (trl, datasets and what they
# need that is not installed) are unpacked into a folder of their own, which comes first on the path
# and goes when the run ends.
# PYTHON names the interpreter; without it .venv/bin/python or python3 is taken.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    [ -x "$root/.venv/bin/python" ] && python="$root/.venv/bin/python"
fi
wheels= device=cuda rest=()
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        *) rest+=("$1"); shift ;;
    esac
done

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$wheels" ]; then
    target=$(mktemp -d)
    trap 'rm -rf "$target"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$target" "$wheels"/*.whl
    export PYTHONPATH="$PYTHONPATH:$target"
fi
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
[ "$device" = cpu ] && export CUDA_VISIBLE_DEVICES=
"$python" "$root/benchmarks/gpu.py" --device "$device" "${rest[@]}"
