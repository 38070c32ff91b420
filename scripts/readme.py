#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Puts measured tables into README.md, between its markers, so that nobody types a figure.

    scripts/readme.py FOLDER      FOLDER holds gpu_report.txt, gpu_compare.json and
                                  gpu_eval.txt, as scripts/gpu_check.sh leaves them

Only the text between <!-- NAME:begin --> and <!-- NAME:end --> changes. Standard library only.
"""
import json
import pathlib
import re
import sys


def die(sentence):
    sys.exit(f"readme.py: {sentence}")


def header(report):
    """Date and device line, the first two lines of the report."""
    lines = report.read_text().splitlines()
    date = re.search(r"\d{4}-\d\d-\d\d", lines[0]) if lines else None
    if not date or len(lines) < 2:
        die(f"{report}: its first line has no date; it must come from scripts/gpu_check.sh")
    name, driver, _, sm, mem, power = [part.strip() for part in lines[1].split(",")]
    return f"{name}, driver {driver}, clocks {sm} and {mem} before the run, {power}; {date[0]}"


def shape(sides):
    return "×".join(map(str, sides)) if sides[1:] != [1, 1] else str(sides[0])


def layer_rows(compare):
    yield "| layer | output | multiply-adds | CPU µs | GPU µs | speed-up | error | bound | |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---|"
    for r in compare["layers"]:
        speedup = f"{r['cpu_us'] / r['gpu_us']:,.0f}×"
        yield (f"| {r['name']} | {shape(r['out_shape'])} | {r['macs']:,} | {r['cpu_us']:.2f} | "
               f"{r['gpu_us']:.4f} | {speedup} | {r['max_abs_error']:.1e} | {r['bound']:.1e} | "
               f"{'ok' if r['ok'] else 'WRONG'} |")


def backend_rows(compare):
    images = compare["dataset"]["images"]
    yield f"| backend | images/s, host to host | agreement on {images:,} images | largest error |"
    yield "|---|---:|---:|---:|"
    for r in compare["backends"]:
        if r["why_not"]:
            continue
        yield (f"| {r['name']} | {r['images_per_second']:,.0f} | "
               f"{round(r['agreement'] * images):,} | {r['max_abs_error']:.1e} |")


def replace(text, name, lines):
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        die(f"README.md: needs {begin} and {end} once each")
    head, rest = text.split(begin)
    return head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def main():
    if len(sys.argv) != 2:
        die("usage: scripts/readme.py FOLDER")
    folder = pathlib.Path(sys.argv[1])
    readme = pathlib.Path(__file__).resolve().parent.parent / "README.md"
    try:
        compare = json.loads((folder / "gpu_compare.json").read_text())
        measured = header(folder / "gpu_report.txt")
        evaluation = (folder / "gpu_eval.txt").read_text().rstrip()
    except (OSError, ValueError) as error:
        die(f"{folder}: {error}; make gpu-check writes what is needed")
    if not compare["gpu"]:
        die(f"{folder}/gpu_compare.json: made without a GPU: {compare['why_no_gpu']}")
    lines = [f"Measured on {measured}; CPU: {compare['cpu']}, one core; "
             f"{compare['dataset']['name']}, {compare['batch']:,} images at once, "
             "microseconds per image.", "", *layer_rows(compare), "", *backend_rows(compare)]
    text = replace(readme.read_text(), "compare", lines)
    readme.write_text(replace(text, "eval", ["```", evaluation, "```"]))


if __name__ == "__main__":
    main()
