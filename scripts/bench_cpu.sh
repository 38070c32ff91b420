#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# bench_cpu.sh - backend simd against ONNX Runtime and PyTorch on the CPU, side by side.
#
#     scripts/bench_cpu.sh [options of bench_cpu.py]        --help lists them
#
# Builds the library without CUDA, uses python3 where it has onnx and onnxruntime, and else
# makes an environment with the latest of them in $BENCH_VENV (default: build/bench_venv).
# PyTorch is compared where it is there or BENCH_TORCH=1 asks for it: it is a large download.
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory CUDA=0 BUILD=build/cpu build/cpu/liblenet5.so >/dev/null

python=${PYTHON:-python3}
if ! "$python" -c 'import numpy, onnx, onnxruntime' 2>/dev/null; then
    venv=${BENCH_VENV:-build/bench_venv}
    python=$venv/bin/python
    packages=(numpy onnx onnxruntime)
    if [ -n "${BENCH_TORCH:-}" ]; then
        packages+=(torch)
    fi
    [ -x "$python" ] || python3 -m venv "$venv"
    if ! "$python" -m pip install --quiet --upgrade "${packages[@]}"; then
        echo "bench_cpu.sh: could not install ${packages[*]} into $venv; name a PYTHON that" \
            "has them" >&2
        exit 1
    fi
fi
exec "$python" scripts/bench_cpu.py "$@"
