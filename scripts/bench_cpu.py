#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bench_cpu.py - backend simd against ONNX Runtime and PyTorch on the same cores, in one run.

    scripts/bench_cpu.sh                     builds everything needed and runs this
    scripts/bench_cpu.py [--lib FILE] [--blob FILE] [--threads 1,2] [--images N]
                         [--rounds N] [--json FILE]

All three run the same weights: those of a blob, or random ones on the plain LeNet-5, written
as a blob for lenet5, as an ONNX model, and as a torch.nn.Sequential. Contenders take turns,
call by call, so that a noisy neighbour disturbs all of them alike; what is printed are
medians over the rounds, and the median of the rounds' ratios. Every thread count runs in a process of its
own that is bound to as many cores. Outputs are compared before anything is timed.

The limit of a core is measured in the same turns: independent fused multiply-adds in
registers, by a few lines of C. "Share" is the multiply-adds that the network needs, counted
as the textbook does, a second, as a part of that.

Needs numpy, onnx, onnxruntime, and a C compiler; torch is left out where it is missing.
"""
import argparse
import ctypes
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

LOOP_ROUNDS, LOOP_SUMS = 2000000, 12  # of the limit's loop
CONV, AVERAGE_POOL, MAX_POOL, DENSE = 1, 2, 3, 4
LINEAR, TANH, SIGMOID, RELU = 0, 1, 2, 3
LANES = {"avx2": 8, "avx512": 16}
HEADER, ROW, ALIGN = 384, 160, 64

LIMIT_C = r"""
#include <immintrin.h>
#define LOOP(name, isa, type, set, fma, lanes)                                              \
    __attribute__((target(isa))) double name(long n) {                                      \
        type s[12], a = set(0.999f), b = set(0.001f);                                       \
        for (int k = 0; k < 12; k++) s[k] = set((float)k);                                  \
        for (long i = 0; i < n; i++)                                                        \
            _Pragma("GCC unroll 12") for (int k = 0; k < 12; k++) s[k] = fma(s[k], a, b);   \
        float sum = 0;                                                                      \
        for (int k = 0; k < 12; k++) sum += ((float *)&s[k])[0];                            \
        volatile float sink = sum;                                                          \
        (void)sink;                                                                         \
        return 12.0 * lanes * (double)n;                                                    \
    }
LOOP(avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
LOOP(avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)
"""


# ---- the network ------------------------------------------------------------------------


def plain_lenet5(rng):
    """Rows as dicts, with random weights that keep the variance."""
    rows = [dict(op=CONV, act=TANH, out=(6, 28, 28), kernel=(5, 5), stride=(1, 1),
                 pads=(2, 2, 2, 2), w=(6, 1, 5, 5)),
            dict(op=AVERAGE_POOL, act=LINEAR, out=(6, 14, 14), kernel=(2, 2), stride=(2, 2),
                 pads=(0, 0, 0, 0)),
            dict(op=CONV, act=TANH, out=(16, 10, 10), kernel=(5, 5), stride=(1, 1),
                 pads=(0, 0, 0, 0), w=(16, 6, 5, 5)),
            dict(op=AVERAGE_POOL, act=LINEAR, out=(16, 5, 5), kernel=(2, 2), stride=(2, 2),
                 pads=(0, 0, 0, 0)),
            dict(op=DENSE, act=TANH, out=(120, 1, 1), w=(120, 400)),
            dict(op=DENSE, act=TANH, out=(84, 1, 1), w=(84, 120)),
            dict(op=DENSE, act=LINEAR, out=(10, 1, 1), w=(10, 84))]
    for row in rows:
        if "w" in row:
            shape = row["w"]
            most = (3.0 / (shape[1] * (25 if len(shape) == 4 else 1))) ** 0.5
            row["w"] = rng.uniform(-most, most, shape).astype("float32")
            row["b"] = rng.uniform(-0.1, 0.1, shape[0]).astype("float32")
    return dict(input=(1, 28, 28), scale=1 / 255, offset=0.0, rows=rows)


def write_blob(net):
    """The bytes of a blob, as layers/blob.h defines them."""
    rows = net["rows"]
    end = HEADER + ROW * len(rows)
    places, floats = [], b""  # a row's two tensors: where, how many
    for row in rows:
        place = []
        for key in ("w", "b"):
            if key not in row:
                place += [0, 0]
                continue
            start = (end + ALIGN - 1) // ALIGN * ALIGN
            data = row[key].astype("<f4").tobytes()
            floats += bytes(start - end) + data
            end = start + len(data)
            place += [start, len(data) // 4]
        places.append(place)
    table = b""
    for k, (row, place) in enumerate(zip(rows, places)):
        table += struct.pack("<64sII3f3i2i2i4i4Q", b"row_%d" % k, row["op"], row["act"], 0, 0,
                             3.4028234663852886e38 if row["act"] == RELU else 0, *row["out"],
                             *row.get("kernel", (0, 0)), *row.get("stride", (0, 0)),
                             *row.get("pads", (0, 0, 0, 0)), *place)
    head = struct.pack("<4sQI3iffIf8x32s128s72s64s24x", bytes(4), end, len(rows), *net["input"],
                       net["scale"], net["offset"], 0, 0, b"", b"bench_cpu.py", b"", b"")
    magic = b"\x89LN5\r\n\x1a\n" + struct.pack("<I", 1)
    blob = magic + head + table + floats
    crc = zlib.crc32(blob)
    return blob[:12] + struct.pack("<I", crc) + blob[16:]


def read_blob(path):
    import numpy as np

    blob = open(path, "rb").read()
    if blob[:8] != b"\x89LN5\r\n\x1a\n":
        sys.exit(f"bench_cpu.py: {path}: not a blob; make convert makes them")
    count, c, h, w, scale, offset = struct.unpack_from("<I3iff", blob, 24)
    net = dict(input=(c, h, w), scale=scale, offset=offset, rows=[])
    for k in range(count):
        f = struct.unpack_from("<64sII3f3i2i2i4i4Q", blob, HEADER + ROW * k)
        row = dict(op=f[1], act=f[2], out=f[6:9], kernel=f[9:11], stride=f[11:13],
                   pads=f[13:17])
        if row["act"] == 11 and k == count - 1:  # softmax at the end: lenet5 gives logits
            break
        if row["op"] > DENSE or row["act"] > RELU:
            sys.exit(f"bench_cpu.py: {path}: row {k} is not a convolution, pooling or dense "
                     "row with tanh, sigmoid or relu")
        before = net["rows"][-1]["out"] if k else net["input"]
        for key, at, n in (("w", f[17], f[18]), ("b", f[19], f[20])):
            if n:
                row[key] = np.frombuffer(blob, "<f4", n, at).copy()
        if row["op"] == CONV:
            row["w"] = row["w"].reshape(row["out"][0], before[0], *row["kernel"])
        if row["op"] == DENSE:
            row["w"] = row["w"].reshape(row["out"][0], -1)
        net["rows"].append(row)
    return net, blob


def macs(net):
    return sum(int(r["w"].size) * r["out"][1] * r["out"][2] for r in net["rows"] if "w" in r)


# ---- the contenders: each a function from n images to logits ----------------------------


class Options(ctypes.Structure):
    """struct lenet5_options, with room for members that it may get."""

    _fields_ = [("backend", ctypes.c_char_p), ("max_batch", ctypes.c_int),
                ("reserved", ctypes.c_char * 64)]


def lenet5(lib_path, blob, threads, simd=None):
    """Backend simd through the public C functions; simd is an instruction set, or the best."""
    import numpy as np

    os.environ["LENET5_THREADS"] = str(threads)
    os.environ.pop("LENET5_SIMD", None)
    if simd:
        os.environ["LENET5_SIMD"] = simd
    lib = ctypes.CDLL(os.path.abspath(lib_path))
    err = ctypes.create_string_buffer(512)
    net = ctypes.c_void_p()
    options = Options(b"simd", 1 << 20)
    lib.lenet5_run_floats.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
                                      ctypes.c_void_p, ctypes.c_void_p]
    if lib.lenet5_open_memory(ctypes.byref(net), blob, ctypes.c_size_t(len(blob)),
                              ctypes.byref(options), err):
        raise RuntimeError(err.value.decode())
    out = {}

    def prepare(x):
        n = len(x)
        y = out.setdefault(n, np.empty((n, 10), "float32"))
        args = (net.value, x.ctypes.data, n, y.ctypes.data, None)

        def call():
            if lib.lenet5_run_floats(*args):
                raise RuntimeError("lenet5_run_floats failed")
            return y

        return call

    return prepare


def onnx_model(net):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, at = [], [], "x"
    act = {TANH: "Tanh", SIGMOID: "Sigmoid", RELU: "Relu"}
    shape = net["input"]
    for k, row in enumerate(net["rows"]):
        names = [at]
        if row["op"] == DENSE and shape[1:] != (1, 1) or row["op"] == DENSE and k == 0:
            nodes.append(helper.make_node("Flatten", [at], [f"flat{k}"]))
            names = [f"flat{k}"]
        for key in ("w", "b"):
            if key in row:
                tensors.append(numpy_helper.from_array(row[key], f"{key}{k}"))
                names.append(f"{key}{k}")
        if row["op"] == DENSE:
            node = helper.make_node("Gemm", names, [f"y{k}"], transB=1)
        else:
            op = {CONV: "Conv", AVERAGE_POOL: "AveragePool", MAX_POOL: "MaxPool"}[row["op"]]
            node = helper.make_node(op, names, [f"y{k}"], kernel_shape=list(row["kernel"]),
                                    strides=list(row["stride"]), pads=list(row["pads"]))
        nodes.append(node)
        at = f"y{k}"
        if row["act"] != LINEAR:
            nodes.append(helper.make_node(act[row["act"]], [at], [f"a{k}"]))
            at = f"a{k}"
        shape = tuple(row["out"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "lenet5", [value("x", TensorProto.FLOAT, ["n", *net["input"]])],
        [value(at, TensorProto.FLOAT, ["n", 10])], tensors)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def onnxruntime(net, threads, binding):
    """binding: with inputs and outputs bound beforehand, which spares copies and Python."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(onnx_model(net), options,
                                   providers=["CPUExecutionProvider"])
    name = session.get_outputs()[0].name

    def prepare(x):
        if not binding:
            return lambda: session.run(None, {"x": x})[0]
        y = np.empty((len(x), 10), "float32")
        io = session.io_binding()
        io.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
        io.bind_output(name, "cpu", 0, np.float32, y.shape, y.ctypes.data)

        def call():
            session.run_with_iobinding(io)
            return y

        return call

    return prepare


def pytorch(net, threads):
    import torch

    torch.set_num_threads(threads)
    act = {TANH: torch.nn.Tanh, SIGMOID: torch.nn.Sigmoid, RELU: torch.nn.ReLU}
    parts, before = [], net["input"]
    for row in net["rows"]:
        if row["op"] == CONV:
            top, left, bottom, right = row["pads"]
            if any(row["pads"]):
                parts.append(torch.nn.ZeroPad2d((left, right, top, bottom)))
            part = torch.nn.Conv2d(before[0], row["out"][0], row["kernel"], row["stride"],
                                   bias="b" in row)
        elif row["op"] == DENSE:
            if before[1:] != (1, 1):
                parts.append(torch.nn.Flatten())
            part = torch.nn.Linear(row["w"].shape[1], row["out"][0], bias="b" in row)
        else:
            if any(row["pads"]):
                sys.exit("bench_cpu.py: pooling with a border is not compared")
            kind = torch.nn.AvgPool2d if row["op"] == AVERAGE_POOL else torch.nn.MaxPool2d
            part = kind(tuple(row["kernel"]), tuple(row["stride"]))
        if "w" in row:
            part.weight.data = torch.from_numpy(row["w"])
        if "b" in row:
            part.bias.data = torch.from_numpy(row["b"])
        parts.append(part)
        if row["act"] != LINEAR:
            parts.append(act[row["act"]]())
        before = tuple(row["out"])
    model = torch.nn.Sequential(*parts).eval()

    def prepare(x):
        t = torch.from_numpy(x)

        def call():
            with torch.inference_mode():
                return model(t).numpy()

        return call

    return prepare


def limit(folder):
    """{set: function that does n rounds and returns how many multiply-adds}, or {}."""
    source, lib = os.path.join(folder, "limit.c"), os.path.join(folder, "limit.so")
    open(source, "w").write(LIMIT_C)
    cc = os.environ.get("CC", "cc")
    if platform.machine() not in ("x86_64", "AMD64") or subprocess.run(
            [cc, "-O2", "-shared", "-fPIC", "-o", lib, source], capture_output=True).returncode:
        return {}
    loops, flags = ctypes.CDLL(lib), open("/proc/cpuinfo").read()
    found = {}
    for name, flag in (("avx2", " avx2"), ("avx512", " avx512f")):
        if flag in flags:
            found[name] = getattr(loops, name)
            found[name].restype = ctypes.c_double
            found[name].argtypes = [ctypes.c_long]
    return found


# ---- timing -----------------------------------------------------------------------------


def seconds(call, calls):
    """The median of some calls, each timed by itself."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleave(calls, rounds, each):
    """{name: list of seconds, one a round}; round after round, everybody once. The threads of
    ONNX Runtime and PyTorch go on spinning after a call, on a core that the next one wants: so
    there is a pause, and a call that is not timed."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.05)
            call()
            times[name].append(seconds(call, each))
    return times


def ratio(times, name, peer):
    """How many times faster name is than peer: the median over rounds."""
    return statistics.median(p / t for p, t in zip(times[peer], times[name]))


def check(calls, what):
    """Every contender's logits against the first peer's; says the largest difference."""
    import numpy as np

    want = calls["onnxruntime"]()
    worst, agreeing = {}, {}
    for name, call in calls.items():
        got = call()
        worst[name] = float(np.abs(got - want).max())
        agreeing[name] = int((got.argmax(1) == want.argmax(1)).sum())
        if not worst[name] <= 1e-3:
            sys.exit(f"bench_cpu.py: {what}: {name} differs from onnxruntime by {worst[name]}")
    return worst, agreeing


def child(args, threads):
    """One thread count; returns what is printed as JSON."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    import numpy as np
    import onnxruntime as ort

    net, blob = read_blob(args.blob) if args.blob else (None, None)
    if not net:
        net = plain_lenet5(np.random.default_rng(1))
        blob = write_blob(net)
    result = dict(threads=threads, macs=macs(net), onnxruntime=ort.__version__)
    peers = {"onnxruntime": onnxruntime(net, threads, False),
             "onnxruntime bound": onnxruntime(net, threads, True)}
    try:
        import torch

        peers["pytorch"] = pytorch(net, threads)
        result["pytorch"] = torch.__version__
    except ImportError:
        result["pytorch"] = "left out"
    with tempfile.TemporaryDirectory() as folder:
        loops = limit(folder) if threads == 1 else {}
        own = {"simd": lenet5(args.lib, blob, threads)}
        for name in loops:
            own[f"simd {name}"] = lenet5(args.lib, blob, threads, name)
        rng = np.random.default_rng(2)
        images = rng.random((args.images, *net["input"]), dtype="float32")
        result["batches"] = []
        for n in sorted({1, 100, args.images}):
            calls = {name: make(images[:n]) for name, make in {**own, **peers}.items()}
            worst, agreeing = check(calls, f"{n} images")
            if n == args.images:
                calls.update({f"limit {k}": (lambda f=f: f(LOOP_ROUNDS))
                              for k, f in loops.items()})
            times = interleave(calls, args.rounds, max(1, min(200, 4000 // n)))
            batch = dict(n=n, error=worst, agreeing=agreeing, share={},
                         seconds={k: statistics.median(v) for k, v in times.items()},
                         fastest={k: min(v) for k, v in times.items()},
                         ratios={p: ratio(times, "simd", p) for p in peers})
            if n == args.images:
                for k in loops:
                    loop = LOOP_ROUNDS * LOOP_SUMS * LANES[k]
                    batch["share"][k] = (result["macs"] * n / loop *
                                         ratio(times, f"simd {k}", f"limit {k}"))
            result["batches"].append(batch)
    return result


def report(r):
    print(f"\n{r['threads']} thread(s); ONNX Runtime {r['onnxruntime']}, "
          f"PyTorch {r['pytorch']}")
    for b in r["batches"]:
        n = b["n"]
        print(f"  {n} image(s)")
        for name, t in b["seconds"].items():
            if name.startswith("limit"):
                speed = LOOP_ROUNDS * LOOP_SUMS * LANES[name.split()[1]] / t / 1e9
                print(f"    {name:20} {speed:9.1f} G multiply-adds/s")
                continue
            line = f"    {name:20} {1e6 * t:12.1f} us {n / t:12.0f} images/s"
            if name in b["ratios"]:
                line += f"   simd is {b['ratios'][name]:.2f} times as fast"
            print(line + f"   largest difference {b['error'][name]:.1e}")
        for name, share in b["share"].items():
            print(f"    simd {name} reaches {100 * share:.0f} % of the core's limit")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--lib", default="build/cpu/liblenet5.so", help="the shared library")
    p.add_argument("--blob", help="weights (default: random ones)")
    p.add_argument("--threads", default="1,2", help="thread counts, as 1,2,16")
    p.add_argument("--images", type=int, default=10000)
    p.add_argument("--rounds", type=int, default=11)
    p.add_argument("--json", help="write the results here as well")
    p.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        json.dump(child(args, args.child), sys.stdout)
        return
    cpu = [x for x in open("/proc/cpuinfo") if x.startswith("model name")]
    machine = cpu[0].split(": ")[1].strip() if cpu else platform.machine()
    print(f"{machine}, {len(os.sched_getaffinity(0))} core(s), {time.strftime('%Y-%m-%d')}, "
          f"medians of {args.rounds} interleaved rounds")
    results = []
    for threads in args.threads.split(","):
        if int(threads) > len(os.sched_getaffinity(0)):
            print(f"\n{threads} threads: left out, there are fewer cores")
            continue
        done = subprocess.run([sys.executable, *sys.argv, "--child", threads],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.returncode)
        results.append(json.loads(done.stdout))
        report(results[-1])
    if args.json:
        json.dump(dict(machine=machine, date=time.strftime("%Y-%m-%d"), results=results),
                  open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()
