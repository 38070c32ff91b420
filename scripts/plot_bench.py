#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws images/s against batch size, one line a backend or peer, limits dashed.

    ./lenet5 --bench --json >bench.json
    scripts/plot_bench.py bench.json bench.svg    or a .png; bench_gpu.json of bench_gpu.py too

Both axes are logarithmic. Needs matplotlib.
"""
import json
import pathlib
import sys


def series(result):
    """{name: ([batch], [images/s])} of either file, in its order."""
    found = {}
    for r in result.get("points", result.get("times")):
        batches, rates = found.setdefault(r.get("name") or r["backend"], ([], []))
        batches.append(r["batch"] if "batch" in r else r["n"])
        rates.append(batches[-1] / r["median"] if "median" in r else r["images_per_s"])
    return found


def headline(result):
    """Which machine, and from where to where."""
    if "points" in result:
        machines = " | ".join(filter(None, [result["cpu"], result["gpu"]]))
        return f"{machines}: host memory to host memory"
    return f"{result['device']}: device memory to device memory, {result['date']}"


def draw(result, target):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lenet5"})

    ours = {r["name"] for r in result.get("times", []) if r["ours"]}
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for name, (batches, rates) in series(result).items():
        order = sorted(range(len(batches)), key=batches.__getitem__)
        axes.loglog([batches[k] for k in order], [rates[k] for k in order], marker="o",
                    markersize=3, linewidth=2.5 if name in ours else 1.2, label=name)
    for k, limit in enumerate(result.get("limits", [])):  # beside each other, as some are near
        axes.axhline(limit["images_per_s"], color="grey", linestyle="--", linewidth=1)
        axes.annotate(f"limit: {limit['limit']}", (20 ** k, limit["images_per_s"]),
                      color="grey", fontsize=8, va="top" if k % 2 else "bottom")
    if result.get("gpu_pays_from"):
        axes.axvline(result["gpu_pays_from"], color="grey", linestyle=":",
                     label=f"the GPU pays from {result['gpu_pays_from']}")
    axes.set(xlabel="images in a call", ylabel="images/s", title=headline(result))
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    meta = {"Date": None} if target.endswith(".svg") else None  # the same bytes each time
    figure.savefig(target, dpi=120, metadata=meta)


def main():
    if len(sys.argv) != 3 or not sys.argv[2].endswith((".svg", ".png")):
        sys.exit("plot_bench.py: usage: scripts/plot_bench.py BENCH.json PLOT.svg (or .png)")
    try:
        result = json.loads(pathlib.Path(sys.argv[1]).read_text())
        if not series(result):
            raise ValueError("no times in it")
        draw(result, sys.argv[2])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"plot_bench.py: {sys.argv[1]}: {error}; ./lenet5 --bench --json or "
                 "scripts/bench_gpu.py writes what is expected")
    except ImportError:
        sys.exit("plot_bench.py: needs matplotlib: pip install matplotlib")


if __name__ == "__main__":
    main()
