#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws images/s against batch size, one line a backend, from ./lenet5 --bench --json.

    ./lenet5 --bench --json >bench.json
    scripts/plot_bench.py bench.json bench        writes bench.png and bench.svg

Both axes are logarithmic. Needs matplotlib.
"""
import json
import pathlib
import sys


def die(sentence):
    sys.exit(f"plot_bench.py: {sentence}")


def lines(points):
    """Each backend's batch sizes and rates, in the order of the file."""
    found = {}
    for p in points:
        batches, rates = found.setdefault(p["backend"], ([], []))
        batches.append(p["batch"])
        rates.append(p["images_per_second"])
    return found


def draw(bench, target):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for name, (batches, rates) in lines(bench["points"]).items():
        axes.loglog(batches, rates, marker="o", label=name)
    if bench["gpu_pays_from"]:
        axes.axvline(bench["gpu_pays_from"], color="grey", linestyle=":",
                     label=f"the GPU pays from {bench['gpu_pays_from']}")
    axes.set(xlabel="images in a call", ylabel="images/s, host to host",
             title=" | ".join(filter(None, [bench["cpu"], bench["gpu"]])))
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    for suffix in "png", "svg":
        figure.savefig(f"{target}.{suffix}", dpi=120)


def main():
    if len(sys.argv) != 3:
        die("usage: scripts/plot_bench.py BENCH.json TARGET")
    try:
        bench = json.loads(pathlib.Path(sys.argv[1]).read_text())
        assert bench["mode"] == "bench"
    except (OSError, ValueError, KeyError, AssertionError) as error:
        die(f"{sys.argv[1]}: {error or 'no output'} of ./lenet5 --bench --json is expected")
    try:
        draw(bench, sys.argv[2])
    except ImportError:
        die("needs matplotlib: pip install matplotlib")


if __name__ == "__main__":
    main()
