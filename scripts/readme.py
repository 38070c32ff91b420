#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Puts measured tables into README.md, between its markers, so that nobody types a figure.

    scripts/readme.py FOLDER...     what a folder holds decides what is replaced:
        eval.txt                                         by ./lenet5 --eval
        gpu_report.txt, gpu_compare.json                 by scripts/gpu_check.sh
        bench_gpu.md, bench_gpu.json                     by scripts/bench_gpu.py
        bench.json                                       by ./lenet5 --bench --json
        bench_cpu*.json                                  by scripts/bench_cpu.py --json

Only the text between <!-- NAME:begin --> and <!-- NAME:end --> changes, and the plots beside
plot_bench.py, which draws them with matplotlib.
"""
import json
import pathlib
import re
import sys

import plot_bench


def die(sentence):
    sys.exit(f"readme.py: {sentence}")


def header(report):
    """Date and device line, the first two lines of the report."""
    lines = report.read_text().splitlines()
    date = re.search(r"\d{4}-\d\d-\d\d", lines[0]) if lines else None
    if not date or len(lines) < 2:
        die(f"{report}: its first line has no date; it must come from scripts/gpu_check.sh")
    name, driver, _, sm, mem, power = [part.strip() for part in lines[1].split(",")]
    return f"{name}, driver {driver}, clocks up to {sm} and {mem}, {power}; {date[0]}"


def shape(sides):
    return "×".join(map(str, sides)) if sides[1:] != [1, 1] else str(sides[0])


def layer_rows(compare):
    yield ("| layer | output | multiply-adds | reference | simd, one core | GPU | GPU is faster | "
           "error | bound | limit |")
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---|"
    for r in compare["layers"]:
        limits = r["limits"]
        yield (f"| {r['name']} | {shape(r['out_shape'])} | {r['macs']:,} | {r['cpu_us']:.2f} | "
               f"{r['simd_us']:.3f} | {r['gpu_us']:.4f} | {r['cpu_us'] / r['gpu_us']:,.0f}×, "
               f"{r['simd_us'] / r['gpu_us']:,.0f}× | {r['max_abs_error']:.1e} | "
               f"{r['bound']:.1e} | {limits['binds']} {100 * limits[limits['binds']]:.0f} % |")


def backend_rows(compare):
    images = compare["dataset"]["images"]
    yield f"| backend | images/s, host to host | agreement on {images:,} images | largest error |"
    yield "|---|---:|---:|---:|"
    for r in compare["backends"]:
        if r["why_not"]:
            continue
        yield (f"| {r['name']} | {r['images_per_second']:,.0f} | "
               f"{round(r['agreement'] * images):,} | {r['max_abs_error']:.1e} |")


def stage_rows(compare):
    """Where the time goes inside kernels that are a whole network, and what limits it there."""
    names = list(dict.fromkeys(r["stage"] for r in compare["stages"]))
    yield "| ns per image, nearest limit | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    for backend in dict.fromkeys(r["backend"] for r in compare["stages"]):
        rows = [r for r in compare["stages"] if r["backend"] == backend]
        yield f"| {backend} | " + " | ".join(
            f"{1e3 * r['us']:.2f}, {r['limits']['binds']} "
            f"{100 * r['limits'][r['limits']['binds']]:.0f} %" for r in rows) + " |"


def replace(text, name, lines):
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        die(f"README.md: needs {begin} and {end} once each")
    head, rest = text.split(begin)
    return head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def gpu_check(folder):
    """Sections of one scripts/gpu_check.sh run."""
    compare = json.loads((folder / "gpu_compare.json").read_text())
    if not compare["gpu"]:
        die(f"{folder}/gpu_compare.json: made without a GPU: {compare['why_no_gpu']}")
    return {"compare": [f"Measured on {header(folder / 'gpu_report.txt')}; CPU: {compare['cpu']}; "
                        f"{compare['dataset']['name']}, {compare['batch']:,} images at once, "
                        "microseconds per image.", "",
                        *layer_rows(compare), "", *backend_rows(compare), "",
                        *stage_rows(compare)]}


def plot(path):
    """Draws a file of measurements beside plot_bench.py; returns the line that shows it."""
    target = pathlib.Path(plot_bench.__file__).with_name(path.stem + ".svg")
    plot_bench.draw(json.loads(path.read_text()), str(target))
    return f"![images/s against batch size](scripts/{target.name})"


def bench_gpu(folder):
    """The peers on the same card."""
    return {"peers": [(folder / "bench_gpu.md").read_text().rstrip(), "",
                      plot(folder / "bench_gpu.json")]}


def bench(folder):
    """Latency and throughput of every backend, from host memory and back."""
    result = json.loads((folder / "bench.json").read_text())
    sizes = (1, 64, 4096, 65536)
    lines = ["| backend | " + " | ".join(f"{n:,} at once" for n in sizes) + " |",
             "|---|" + "---:|" * len(sizes)]
    for name in dict.fromkeys(p["backend"] for p in result["points"]):
        cells = {p["batch"]: f"{1e6 * p['median']:,.0f} µs, {p['batch'] / p['median']:,.0f}/s"
                 for p in result["points"] if p["backend"] == name}
        lines.append(f"| {name} | " + " | ".join(cells.get(n, "") for n in sizes) + " |")
    pays = result["gpu_pays_from"]
    machine = ", ".join(filter(None, [result["cpu"], result["gpu"]]))
    return {"bench": [f"{machine}" + (f"; the GPU pays from batches of {pays}" if pays else ""),
                      "", *lines, "", plot(folder / "bench.json")]}


def cpu_rows(bench):
    first = bench["results"][0]
    yield (f"{bench['machine']}, {bench['date']}; ONNX Runtime {first['onnxruntime']} (the faster of "
           f"plain and bound input), PyTorch {first['pytorch']}")
    yield ""
    yield "| threads | images | simd | ONNX Runtime | PyTorch | simd is faster | core's limit |"
    yield "|---:|---:|---:|---:|---:|---:|---|"
    for r in bench["results"]:
        for b in r["batches"]:
            rate = {name: f"{b['n'] / t:,.0f}/s" for name, t in b["seconds"].items()}
            peer = min(("onnxruntime", "onnxruntime bound"), key=lambda name: b["seconds"][name])
            faster = f"{b['ratios'][peer]:.1f}×"
            if "pytorch" in rate:
                faster += f", {b['ratios']['pytorch']:.0f}×"
            share = ", ".join(f"{100 * s:.0f} % ({name})" for name, s in b["share"].items())
            yield (f"| {r['threads']} | {b['n']:,} | {rate['simd']} | {rate[peer]} | "
                   f"{rate.get('pytorch', '')} | {faster} | {share} |")
    yield ""


def main():
    if len(sys.argv) < 2:
        die("usage: scripts/readme.py FOLDER...")
    readme = pathlib.Path(__file__).resolve().parent.parent / "README.md"
    sections, cpus = {}, []
    for folder in map(pathlib.Path, sys.argv[1:]):
        try:
            if (folder / "eval.txt").exists():
                output = (folder / "eval.txt").read_text().rstrip()
                sections["eval"] = ["```", output, "```"]
            if (folder / "gpu_compare.json").exists():
                sections.update(gpu_check(folder))
            if (folder / "bench_gpu.md").exists():
                sections.update(bench_gpu(folder))
            if (folder / "bench.json").exists():
                sections.update(bench(folder))
            cpus += [json.loads(f.read_text()) for f in sorted(folder.glob("bench_cpu*.json"))]
        except (OSError, ValueError, KeyError) as error:
            die(f"{folder}: {error}; the head of this file says what a folder holds")
    if cpus:
        sections["cpu"] = [line for bench in cpus for line in cpu_rows(bench)]
    if not sections:
        die(f"nothing measured in {' '.join(sys.argv[1:])}; see the head of this file")
    text = readme.read_text()
    for name, lines in sections.items():
        text = replace(text, name, lines)
    readme.write_text(text)


if __name__ == "__main__":
    main()
