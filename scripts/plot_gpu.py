#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""plot_gpu.py - images/s against batch size, as an SVG, from what bench_gpu.py measured.

    scripts/plot_gpu.py FOLDER/bench_gpu.json PLOT.svg

Both axes are logarithmic; one line a backend or peer, labelled at its end; limits of the chip
are dashed. Standard library only.
"""
import html
import json
import math
import pathlib
import sys

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 40, 50
OURS = ["#b3123b", "#d9772b", "#7a1fa2"]
PEERS = ["#1f5fa8", "#2a8f82", "#5b7f2b", "#6b7280", "#3f8fd0", "#8a6d3b"]


def si(value):
    for step, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= step:
            return f"{value / step:g} {unit}"
    return f"{value:g}"


def spread(labels, gap):
    """Moves labels (y, ...) down until they no longer overlap."""
    placed = []
    for y, *rest in sorted(labels):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, *rest))
    over = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0
    return [(y - max(over, 0), *rest) for y, *rest in placed]


def plot(result):
    times = result["times"]
    x_most = max([r["n"] for r in times] + [10])
    figures = [r["images_per_s"] for r in times] + [r["images_per_s"] for r in result["limits"]]
    low = math.floor(math.log10(min(figures + [1e3])))
    high = math.ceil(math.log10(max(figures + [1e6])))

    def x(n):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(n) / math.log(x_most)

    def y(v):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(v) - low) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']

    def text(px, py, string, anchor="start", fill="#222", size=12):
        parts.append(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" fill="{fill}" '
                     f'font-size="{size}">{html.escape(string)}</text>')

    def line(points, stroke, width, dash=""):
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" '
                     f'stroke-width="{width}"{dash and f" stroke-dasharray={chr(34)}{dash}{chr(34)}"}/>')

    text(LEFT, 20, f"LeNet-5, images on the device to logits there: {result['device']}, "
         f"{result['date']}", size=14)
    for e in range(low, high + 1):
        line([(LEFT, y(10**e)), (WIDTH - RIGHT, y(10**e))], "#e5e5e5", 1)
        text(LEFT - 8, y(10**e) + 4, si(10**e), "end")
    for e in range(int(math.log10(x_most)) + 1):
        line([(x(10**e), TOP), (x(10**e), HEIGHT - BOTTOM)], "#e5e5e5", 1)
        text(x(10**e), HEIGHT - BOTTOM + 18, si(10**e), "middle")
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "batch, images", "middle")
    text(LEFT - 60, TOP - 8, "images/s")

    labels, used = [], {True: 0, False: 0}
    for limit in result["limits"]:
        at = y(limit["images_per_s"])
        line([(LEFT, at), (WIDTH - RIGHT, at)], "#999", 1, "5 4")
        labels.append((at, "limit: " + limit["limit"], "#777"))
    for name in dict.fromkeys(r["name"] for r in times):
        rows = sorted((r for r in times if r["name"] == name), key=lambda r: r["n"])
        ours = bool(rows[0]["ours"])
        colours = OURS if ours else PEERS
        colour = colours[used[ours] % len(colours)]
        used[ours] += 1
        points = [(x(r["n"]), y(r["images_per_s"])) for r in rows]
        line(points, colour, 2.5 if ours else 1.5)
        parts.extend(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{3 if ours else 2}" '
                     f'fill="{colour}"/>' for px, py in points)
        labels.append((points[-1][1], name, colour))
    for at, name, colour in spread(labels, 14):
        text(WIDTH - RIGHT + 8, at + 4, name, fill=colour)
    return "\n".join(parts + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit("plot_gpu.py: wants bench_gpu.json and the name of the SVG to write")
    result = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pathlib.Path(sys.argv[2]).write_text(plot(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
