#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_gpu.py - the GPU backends against PyTorch and JAX on the same card, in one run.

    scripts/bench_gpu.py [--bench FILE] [--out FOLDER] [--backends fused,tensor,cuda]
                         [--peers torch,compile,jax] [--no-check]
                         [--blob FILE]... [--images FILE]...

Runs the project's own bench (tests/bench_gpu.cu: checks against float64, then times), then every
peer in a process of its own on the same LeNet-5, 28x28 bytes or floats on the device to logits
on the device. Peers get what favours them: inputs that are floats already; for PyTorch CUDA graphs,
and in fp16 channels_last; autotuning for torch.compile at 10,000 images. Figures are medians of
runs of many calls in a row, timed by CUDA events (JAX: by the clock, waiting for the last).

Writes FOLDER/bench_gpu.json (everything; plot_bench.py draws it) and bench_gpu.md (the table).
Peers that are not installed are left out and named. Standard library only, but for what the
peers themselves need. Exit 1 if a check of the bench failed.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

BATCHES = [1, 32, 256, 1024, 10000, 100000, 1000000]
MACS, TANHS = 416520, 6508  # of an image, as the textbook counts


def out(**row):
    print(json.dumps(row), flush=True)


# ---- peers: each runs in a process of its own, started with --run-peer ----------------------


def torch_model(torch):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))


def calls_in_a_row(n):
    """So many that the time between calls does not count."""
    return max(1, min(50, 100000 // n))


def torch_seconds(torch, call, n, runs=9):
    for _ in range(4):
        call()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls_in_a_row(n)):
            call()
        end.record()
        end.synchronize()
        seconds.append(1e-3 * start.elapsed_time(end) / calls_in_a_row(n))
    return statistics.median(seconds)


def graphed(torch, model, x):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(x)
    return graph.replay


def peer_torch():
    import torch
    torch.backends.cudnn.benchmark = True
    for name, dtype, layout in (("fp32", torch.float32, torch.contiguous_format),
                                ("fp16", torch.float16, torch.channels_last)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        model = torch_model(torch).to("cuda", dtype).to(memory_format=layout).eval()
        for n in BATCHES:
            with torch.no_grad():
                x = torch.rand(n, 1, 28, 28, device="cuda", dtype=dtype)
                seconds = torch_seconds(torch, graphed(torch, model, x), n)
            out(peer=f"PyTorch {torch.__version__.split('+')[0]} graph {name}", n=n,
                us=1e6 * seconds, images_per_s=n / seconds)


def peer_compile():
    import torch
    for n in (10000, 1024, 100000, 256, 32, 1, 1000000):  # as far as the time goes
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            torch._dynamo.reset()
            model = torch_model(torch).to("cuda", dtype).eval()
            mode = "max-autotune" if n == 10000 else "reduce-overhead"
            call = torch.compile(model, mode=mode, dynamic=False)
            with torch.no_grad():
                x = torch.rand(n, 1, 28, 28, device="cuda", dtype=dtype)
                seconds = torch_seconds(torch, lambda: call(x), n)
            out(peer=f"torch.compile {name}", n=n, us=1e6 * seconds, images_per_s=n / seconds)


def peer_jax():
    import time
    import jax
    import jax.numpy as jnp
    from jax import lax
    key = jax.random.PRNGKey(0)

    def pool(x):
        return 0.25 * lax.reduce_window(x, jnp.zeros((), x.dtype), lax.add, (1, 1, 2, 2),
                                        (1, 1, 2, 2), "VALID")

    def forward(w, x):
        x = lax.conv(jnp.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), w[0], (1, 1), "VALID")
        x = pool(jnp.tanh(x + w[1]))
        x = pool(jnp.tanh(lax.conv(x, w[2], (1, 1), "VALID") + w[3]))
        x = jnp.tanh(x.reshape(x.shape[0], -1) @ w[4] + w[5])
        return jnp.tanh(x @ w[6] + w[7]) @ w[8] + w[9]

    shapes = [(6, 1, 5, 5), (6, 1, 1), (16, 6, 5, 5), (16, 1, 1), (400, 120), (120,), (120, 84),
              (84,), (84, 10), (10,)]
    for name, dtype, precision in (("fp32", jnp.float32, "highest"),
                                   ("bf16", jnp.bfloat16, "default")):
        w = [(0.1 * jax.random.normal(key, s)).astype(dtype) for s in shapes]
        with jax.default_matmul_precision(precision):
            call = jax.jit(forward)
            for n in BATCHES:
                x = jax.random.uniform(key, (n, 1, 28, 28)).astype(dtype)
                for _ in range(4):
                    call(w, x).block_until_ready()
                seconds = []
                for _ in range(9):
                    start = time.perf_counter()
                    for _ in range(calls_in_a_row(n)):
                        y = call(w, x)
                    y.block_until_ready()
                    seconds.append((time.perf_counter() - start) / calls_in_a_row(n))
                s = statistics.median(seconds)
                out(peer=f"JAX {jax.__version__} jit {name}", n=n, us=1e6 * s,
                    images_per_s=n / s)


PEERS = {"torch": peer_torch, "compile": peer_compile, "jax": peer_jax}


# ---- collecting -----------------------------------------------------------------------------


def rows_of(command, seconds):
    """What a command prints as JSON lines within some seconds, and why it failed, if it did."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        text, errors = process.communicate(timeout=seconds)
        why = "" if process.returncode == 0 else \
            f"ended with {process.returncode}: {last_line(errors)}"
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        why = f"took more than {seconds} s; what it measured till then is shown"
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return rows, why


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "no message"


def smi(query, *more):
    """What nvidia-smi says of the first GPU, or nothing."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    return ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", gpu, *more]


def driver():
    try:
        return subprocess.run(smi("driver_version,power.limit"), text=True, check=True,
                              capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def with_clock(call):
    """call's result, and the multiprocessors' highest clock that was seen meanwhile."""
    try:
        watch = subprocess.Popen(smi("clocks.sm", "-lms", "200"), text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return call(), ""
    result = call()
    watch.terminate()
    seen = sorted(int(line.split()[0]) for line in watch.communicate()[0].splitlines()
                  if line.split() and line.split()[0].isdigit())
    return result, f"up to {seen[-1]} MHz" if seen else ""


def million(figure):
    return f"{figure / 1e6:.3g} M" if figure >= 1e6 else f"{figure / 1e3:.3g} k"


def table(result):
    """One row a contender, one column a batch size."""
    columns = [n for n in BATCHES if any(r["n"] == n for r in result["times"])]
    yield "| images/s by batch, from device memory to device memory | " + \
        " | ".join(f"{n:,}" for n in columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for name in dict.fromkeys(r["name"] for r in result["times"]):
        cells = {r["n"]: million(r["images_per_s"]) for r in result["times"] if r["name"] == name}
        shown = f"**{name}**" if any(r["name"] == name and r["ours"] for r in result["times"]) \
            else name
        yield f"| {shown} | " + " | ".join(cells.get(n, "") for n in columns) + " |"
    for limit in result["limits"]:
        yield f"| limit: {limit['limit']}, {limit['per_s']:.3g}/s | " + \
            " | ".join([""] * (len(columns) - 1) + [million(limit["images_per_s"])]) + " |"
    yield ""
    clock = f", clock {result['clock']}" if result["clock"] else ""
    yield f"{result['device']}, driver and power limit {result['driver']}{clock}; " \
        f"{result['date']}."
    if any(not r["ours"] for r in result["times"]):
        yield "Ours start from bytes, the others from floats."
    yield ""
    for row in result["checks"]:
        if row.get("check") == "accuracy":
            yield f"* `{row['backend']}`, weights {pathlib.Path(row['network']).name}, images " \
                f"{pathlib.Path(row['images']).name}: largest error of a logit against float64 " \
                f"{row['max_error']:.2g}, {row['predictions_differ']} of {row['n']:,} " \
                "predictions differ."
    for name, why in result["missing"].items():
        yield f"Not complete: {name} {why}."


def write(result, folder):
    """Everything so far into both files; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(table(result)) + "\n"
    (folder / "bench_gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "bench_gpu.md").write_text(text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="build/cuda/tests/bench_gpu", type=pathlib.Path)
    parser.add_argument("--out", default="build/gpu", type=pathlib.Path)
    parser.add_argument("--backends", default="fused,tensor,cuda")
    parser.add_argument("--peers", default="torch,compile,jax")
    parser.add_argument("--no-check", action="store_true", help="only time")
    parser.add_argument("--seconds", default=120, type=int, help="most for each contender")
    parser.add_argument("--blob", action="append", default=[], help="trained weights to check")
    parser.add_argument("--images", action="append", default=[],
                        help="an IDX file, not compressed, to check them on")
    parser.add_argument("--run-peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_peer:
        return PEERS[options.run_peer]()
    if not options.bench.exists():
        sys.exit(f"bench_gpu.py: {options.bench} is not there; build it with `make bench_gpu`")

    command = [str(options.bench.resolve()), "--limits", *options.backends.split(",")]
    command += ["--time"] if options.no_check else []
    for blob in options.blob:
        command += ["--blob", blob]
    for images in options.images:
        command += ["--images", images]
    (rows, why), clock = with_clock(lambda: rows_of(command, options.seconds))
    if not any("failures" in r for r in rows):
        sys.exit(f"bench_gpu.py: {command[0]} {why}")
    result = {"version": 1, "date": datetime.date.today().isoformat(), "driver": driver(),
              "clock": clock,
              "device": next((r["device"] for r in rows if "device" in r), "unknown GPU"),
              "macs": MACS, "tanhs": TANHS, "missing": {},
              "limits": [r for r in rows if "limit" in r],
              "stages": [r for r in rows if "stages_us" in r],
              "checks": [r for r in rows if "check" in r],
              "failures": sum(r.get("failures", 0) for r in rows),
              "times": [{"name": r["backend"], "ours": True, **r} for r in rows
                        if "images_per_s" in r and "backend" in r]}
    for name in filter(None, options.peers.split(",")):
        rows, why = rows_of([sys.executable, __file__, "--run-peer", name], options.seconds)
        result["times"] += [{"name": r["peer"], "ours": False, **r} for r in rows if "peer" in r]
        if why:
            result["missing"][name] = why
        write(result, options.out)
    text = write(result, options.out)
    print(text, end="")
    return int(result["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
