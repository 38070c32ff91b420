#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
#
# cli.bats - the command as a user meets it: options and mistakes, results as text and as JSON,
# broken files, full disks; what is built (headers, symbols, what is linked); and, where the
# data sets are at hand, the real scores. Needs only what `make` builds, in $BUILD.
#
# Blobs come from `test_blob FOLDER`: three.bin sees a 3 in every picture, and so on.

setup_file() {
    cd "$BATS_TEST_DIRNAME/.." || return 1
    export BUILD=${BUILD:-build/cpu}
    export LENET5=$PWD/$BUILD/lenet5 CONVERT=$PWD/$BUILD/h5_to_blob
    case $BUILD in /*) LENET5=$BUILD/lenet5 CONVERT=$BUILD/h5_to_blob ;; esac
    SHARED=$(mktemp -d)
    export SHARED BLOBS=$SHARED/blobs DATA="" STUDENT=../shared/weights/FashionMNIST_weights.h5
    mkdir "$BLOBS"
    "$BUILD/tests/test_blob" "$BLOBS" || return 1
    local folder
    for folder in ${LENET5_DATA:+"$LENET5_DATA"} fashion_mnist/data ../shared/data; do
        if [ -z "$DATA" ] && [ -d "$folder/mnist" ] && [ -d "$folder/fashion_mnist" ]; then
            DATA=$folder
        fi
    done
}

teardown_file() {
    rm -rf "$SHARED"
}

setup() {
    cd "$BATS_TEST_DIRNAME/.." || return 1
    unset LENET5_DATA NO_COLOR COLORTERM
    T=$(mktemp -d)
}

teardown() {
    rm -rf "$T"
}

# ---- helpers ----

# Runs a command; then $status, $out and $err are what it did. On a failure of the test they
# are shown.
try() {
    status=0
    "$@" >"$T/out" 2>"$T/err" </dev/null || status=$?
    out=$(tr '\0' '?' <"$T/out") err=$(cat "$T/err")
    printf '%s\n' "ran: $*" "status: $status" "out: ${out:0:600}" "err: $err"
}

# The command must succeed and say nothing on stderr, except where a note is wanted.
good() {
    try "$LENET5" "$@"
    [ "$status" = 0 ]
}

# refused STATUS SENTENCE ARGUMENT...: exactly this one sentence on stderr, nothing on stdout.
refused() {
    try "$LENET5" "${@:3}"
    [ "$status" = "$1" ]
    [ "$err" = "lenet5: $2" ]
    [ "$out" = "" ]
}

misused() {
    refused 2 "$1; see lenet5 --help" "${@:2}"
}

# The JSON in $T/out, as d, must fulfil all conditions, written in Python.
json() {
    command -v python3 >/dev/null || skip "python3, which reads the JSON here, is missing"
    python3 - "$T/out" "$@" <<'END'
import json, sys
d = json.load(open(sys.argv[1], encoding="utf-8"))
for condition in sys.argv[2:]:
    if not eval(condition):
        sys.exit("not so: " + condition)
END
}

# --eval on the sample, with no other data at hand.
eval_sample() {
    good --eval --dataset sample --data "$T/none" "$@"
}

needs_data() {
    [ -n "$DATA" ] || skip "the data sets are not here: make data fetches them"
    case $BUILD in *address*) skip "the full sets take too long under sanitizers" ;; esac
}

needs_converter() {
    [ -x "$CONVERT" ] || skip "h5_to_blob is not built"
}

# The backends of this build, best first.
backends() {
    "$LENET5" --info --weights "$BLOBS/three.bin" |
        sed -n '/^backends$/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p'
}

has_cuda() {
    backends | grep -qx cuda
}

has_gpu() {
    has_cuda && "$LENET5" --show 0 --dataset sample --quiet >/dev/null &&
        "$LENET5" --eval --backend cuda --dataset sample --limit 1 --quiet \
            --weights "$BLOBS/three.bin" >/dev/null 2>&1
}

sanitizers() {
    case $BUILD in *address*) echo "-fsanitize=address,undefined" ;; esac
}

# Flags that a static library with CUDA needs; fails where the toolkit is not here.
cuda_libs() {
    nm "$BUILD/liblenet5.a" 2>/dev/null | grep -q ' U cudaMalloc' || return 0
    local nvcc home
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    [ -d "$home/lib64" ] || return 1
    echo "-L$home/lib64 -lcudart_static -lpthread -ldl -lrt"
}

# ---- help and mistakes ----

@test "--help is on stdout and names every option once, also beside others" {
    good --help
    [ "$err" = "" ]
    local option
    for option in eval compare bench info show identify weights data dataset backend batch \
        threads limit json quiet help version; do
        [ "$(grep -cE "^  --$option +" <<<"$out")" = 1 ]
    done
    [ "$(grep -cE '^  --' <<<"$out")" = 17 ]
    [ "$(awk 'length > 96' <<<"$out")" = "" ]
    cp "$T/out" "$T/help"
    good --eval --help --limit 3
    cmp "$T/out" "$T/help"
}

@test "--version" {
    good --version
    [ "$out" = "lenet5 $(sed -n 's/^#define LENET5_VERSION "\(.*\)"/\1/p' layers/lenet5.h)" ]
}

@test "no mode, two modes, unknown options" {
    misused "nothing to do: give --eval, --compare, --bench, --info or --show N"
    misused "nothing to do: give --eval, --compare, --bench, --info or --show N" --quiet --json
    misused "--info: only one of --eval, --compare, --bench, --info and --show at a time" --eval --info
    misused "--show: only one of --eval, --compare, --bench, --info and --show at a time" --eval --show 3
    misused "there is no option --evaluate" --evaluate
    misused "there is no option --eva" --eva
    misused "there is no option --" --
    misused "there is no option --=3" --=3
    misused "there is no option --nope" --help --nope
    misused "'eval': options begin with --" eval
    misused "'-h': options begin with --" -h
    misused "'': options begin with --" ""
    for mode in --info --compare --bench "--show=3"; do
        misused "--identify goes with --eval" $mode --identify
    done
    misused "--compare runs every backend; leave out --backend reference" --compare \
        --backend reference
}

@test "values: missing, where none is taken, out of range, no number" {
    local option
    for option in weights:FILE data:DIR dataset:NAME backend:NAME batch:N limit:N show:N; do
        misused "--${option%:*} needs a value: ${option#*:}" --eval "--${option%:*}"
    done
    for option in eval compare bench info help version json quiet identify; do
        misused "--$option takes no value" "--$option=1"
    done
    for option in --batch --limit; do
        for value in 0 -1 x 3x "" 16777217 99999999999999999999 1.5 0x10; do
            misused "$option $value: must be a whole number from 1 to 16777216" \
                --eval $option "$value"
            misused "$option $value: must be a whole number from 1 to 16777216" \
                --eval "$option=$value"
        done
    done
    misused "--show -1: must be a whole number from 0 to 16777216" --show -1
    misused "--dataset cifar: there are mnist, fashion_mnist and sample" --eval --dataset cifar
}

@test "a backend that does not exist" {
    local known
    known=$(backends | paste -sd, | sed 's/,/, /g')
    [[ "$known" == *reference* ]]
    misused "backend 'nonsense' is not in this build, which has: $known" --eval --backend nonsense
    misused "backend '' is not in this build, which has: $known" --eval --backend=
}

@test "backend cuda without a GPU" {
    ! has_gpu || skip "there is a GPU"
    try "$LENET5" --eval --backend cuda --weights "$BLOBS/three.bin" --dataset sample
    [ "$out" = "" ]
    if has_cuda; then
        [ "$status" = 1 ]
        [[ "$err" =~ ^lenet5:\ (no\ NVIDIA\ driver|no\ usable\ GPU|the\ NVIDIA\ driver) ]]
        good --info --weights "$BLOBS/three.bin"
        grep -qE '^  cuda .*: not here: .' <<<"$out"
        eval_sample --weights "$BLOBS/three.bin"
        [[ "$err" == *"note: not $(backends | head -1): "* ]]
    else
        [ "$status" = 2 ]
        [[ "$err" == "lenet5: backend 'cuda' is not in this build, which has: "*"; see lenet5\
 --help" ]]
    fi
}

# ---- info and show ----

@test "--info: the table, the numbers, the origin" {
    good --info --weights "$BLOBS/three.bin"
    [ "$err" = "" ]
    grep -qE '^  reference .*: .' <<<"$out"
    grep -qE '^  conv_0 +conv +6x28x28 +5x5/1,1 \+2,2,2,2 +tanh +156$' <<<"$out"
    grep -qE '^  average_pool_3 +average_pool +16x5x5 +2x2/2,2 +linear +0$' <<<"$out"
    grep -qE '^  dense_4 +dense +120 +tanh +48,120$' <<<"$out"
    grep -qF 'parameters   61,706 (246,824 bytes), 416,520 multiply-adds an image' <<<"$out"
    grep -qF 'input        byte * 0.00392156886 + 0, assumed' <<<"$out"
    grep -qF 'from         three.h5' <<<"$out"
    grep -qF 'trained on   mnist' <<<"$out"
    grep -qF 'its record   10.00 % on held-out images' <<<"$out"
}

@test "--info --json" {
    good --info --json --weights "$BLOBS/tiny.bin"
    json 'd["version"] == 1 and d["mode"] == "info" and d["input"] == [1, 4, 3]' \
        'd["source"] == "tiny é.h5" and d["source_sha256"] == "e" * 64' \
        'd["trained_on"] == "mnist" and d["recorded_accuracy"] == 0.75 and d["offset"] == -0.125' \
        '[l["op"] for l in d["layers"]] == ["conv", "max_pool", "dense", "activation"]' \
        'd["layers"][0] == {"name": "conv_0", "op": "conv", "out_shape": [2, 3, 3], "window":
        [2, 2], "stride": [1, 1], "pad": [0, 0, 0, 1], "activation": "tanh", "parameters": 10}' \
        'any(b["name"] == "reference" and b["available"] and b["why_not"] == ""
        and b["device"]["name"] for b in d["backends"])'
}

@test "--info without weights still tells about the machine" {
    try "$LENET5" --info --weights "$T/none.bin"
    [ "$status" = 1 ]
    grep -q '^  reference ' <<<"$out"
    [ "$err" = "lenet5: $T/none.bin: there is no such file; make convert makes weights/*.bin" ]
    try "$LENET5" --info --json --weights "$T/none.bin"
    [ "$status" = 1 ]
    [ "$out" = "" ]
}

@test "--show: a picture in plain characters, and its label" {
    good --show 3 --dataset sample
    [ "$err" = "" ]
    [ "$(wc -l <<<"$out")" = 29 ]
    [ "$(head -28 <<<"$out" | awk '{ print length }' | sort -u)" = 56 ]
    head -28 <<<"$out" | grep -q '[-=+*#%@]'
    local label
    label=$(zcat fashion_mnist/sample/t10k-labels-idx1-ubyte.gz | od -An -tu1 -j 11 -N 1)
    [ "$(tail -1 <<<"$out")" = "image 3 of sample of home-made digits (not MNIST): ${label// /}" ]
    good --show 3 --dataset sample --json
    json 'd["image"] == 3 and str(d["label"]) == d["class"] == "'"${label// /}"'"' \
        'len(d["pixels"]) == 28 and all(len(r) == 28 for r in d["pixels"])'
    zcat fashion_mnist/sample/t10k-images-idx3-ubyte.gz | tail -c +$((16 + 3 * 784 + 1)) |
        head -c 784 >"$T/image"
    json 'bytes(sum(d["pixels"], [])) == open("'"$T/image"'", "rb").read()'
}

@test "--show beyond the last image" {
    refused 1 "--show 1000: sample has 1000 images, 0 to 999" --show 1000 --dataset sample
    refused 1 "--show 5: sample has 5 images, 0 to 4" --show 5 --limit 5 --dataset sample
    good --show 999 --dataset sample
}

# ---- eval ----

@test "--eval on the sample: a network that sees a 3 everywhere has 100 of 1,000 right" {
    eval_sample --weights "$BLOBS/three.bin" --backend reference
    grep -qF 'data      sample of home-made digits (not MNIST), 1,000 images' <<<"$out"
    grep -qF 'accuracy  10.00 %: 100 of 1,000 right, 95 % interval 8.29 to 12.02 %' <<<"$out"
    grep -qE '^ +3 +0\.10 +1\.00 +0\.18 +100$' <<<"$out"
    grep -qE '^ +7 +0\.00 +0\.00 +0\.00 +100$' <<<"$out"
    grep -qE '^ +7 +0 +0 +0 +100 +0 +0 +0 +0 +0 +0$' <<<"$out"
    grep -qE '^ +accuracy +0\.10 +1000$' <<<"$out"
    grep -qE '^   macro avg +0\.01 +0\.10 +0\.02 +1000$' <<<"$out"
    grep -qE '^hint: 10\.00 % is poor' <<<"$out"
    [ "$err" = "note: trained on mnist, evaluated on another data set: sample of home-made\
 digits (not MNIST)" ]
}

@test "--eval --json has every field, and they agree with each other" {
    eval_sample --weights "$BLOBS/plain.bin" --json --limit 300
    json 'all(k in d for k in ("version", "mode", "weights", "dataset", "backend", "device",
        "correct", "accuracy", "interval95", "images_per_second", "confusion", "per_class",
        "timing"))' \
        'd["version"] == 1 and d["mode"] == "eval"' \
        'd["dataset"] == {"name": "sample", "images": 300}' \
        'd["weights"]["path"].endswith("/plain.bin")' \
        'd["correct"] == sum(d["confusion"][k][k] for k in range(10))' \
        'sum(map(sum, d["confusion"])) == 300 and len(d["confusion"]) == 10' \
        'abs(d["accuracy"] - d["correct"] / 300) < 1e-9' \
        'd["interval95"][0] < d["accuracy"] < d["interval95"][1]' \
        'd["images_per_second"] > 0 and d["device"] != ""' \
        'all(d["timing"][k] >= 0 for k in ("read", "open", "upload", "compute", "download"))' \
        'd["timing"]["compute"] > 0 and d["timing"]["wall"] >= d["timing"]["compute"]' \
        '[c["support"] for c in d["per_class"]] == [sum(r) for r in d["confusion"]]' \
        'all(abs(c["recall"] - r[k] / max(1, sum(r))) < 1e-6
        for k, (c, r) in enumerate(zip(d["per_class"], d["confusion"])))' \
        'all(abs(c["precision"] - d["confusion"][k][k] / max(1, sum(r[k] for r in
        d["confusion"]))) < 1e-6 for k, c in enumerate(d["per_class"]))'
}

@test "--eval: the interval is Wilson's" {
    eval_sample --weights "$BLOBS/three.bin" --json --limit 100
    json '(lambda p, n, z: all(abs(a - b) < 1e-6 for a, b in zip(d["interval95"], [((p + z * z / 2
        / n) + s * z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5) / (1 + z * z / n) for s in
        (-1, 1)])))(d["accuracy"], 100, 1.959964)'
}

@test "--limit and --batch: fewer images, any batch, the same answers" {
    local batch
    eval_sample --weights "$BLOBS/plain.bin" --json --limit 250
    json 'd["dataset"]["images"] == 250'
    grep -A130 '"confusion"' "$T/out" >"$T/want"
    for batch in 1 7 16 250 1000; do
        eval_sample --weights "$BLOBS/plain.bin" --json --limit 250 \
            --batch $batch
        grep -A130 '"confusion"' "$T/out" | cmp - "$T/want"
    done
    eval_sample --weights "$BLOBS/plain.bin" --json --limit 5000
    json 'd["dataset"]["images"] == 1000'
}

@test "--quiet: no notes; without it, nothing but notes on stderr" {
    eval_sample --weights "$BLOBS/three.bin" --quiet --limit 10
    [ "$err" = "" ]
    eval_sample --weights "$BLOBS/three.bin" --limit 10
    [ "$(grep -vc '^note: ' "$T/err")" = 0 ]
}

@test "28x28 images get a border of zeros for a 32x32 network" {
    eval_sample --weights "$BLOBS/plain.bin" --json --limit 200
    grep -A130 '"confusion"' "$T/out" >"$T/want"
    eval_sample --weights "$BLOBS/wide.bin" --json --limit 200
    grep -A130 '"confusion"' "$T/out" | cmp - "$T/want"
}

@test "a network that does not fit the data" {
    refused 1 "the network tells 5 classes apart, the data set has 10" --eval \
        --weights "$BLOBS/five.bin" --dataset sample
    refused 1 "the network takes images of 3 channel(s), 32x32; the data set has 1, 28x28" --eval \
        --weights "$BLOBS/colour.bin" --dataset sample
}

# ---- compare ----

@test "--compare: every layer, every backend, and why there is no GPU" {
    good --compare --weights "$BLOBS/plain.bin" --dataset sample --limit 40 --batch 16
    local name
    for name in conv_0 average_pool_1 conv_2 average_pool_3 dense_4 dense_5 dense_6; do
        [ "$(grep -c "^$name " <<<"$out")" = 1 ]
    done
    grep -qE '^conv_2 +16x10x10 +240,000 ' <<<"$out"
    for name in $(backends); do # each is there, with its result or why it has none
        [ "$(grep -c "^$name " <<<"$out")" = 1 ]
        grep -qE "^$name .* (40/40 .*ok$|-  [a-zA-Z])" <<<"$out"
    done
    [[ "$out" != *WRONG* ]]
    has_gpu || [[ "$(tail -1 <<<"$out")" == "no GPU column: "?* ]]
}

@test "--compare --json has every field" {
    good --compare --weights "$BLOBS/plain.bin" --dataset sample --limit 40 --batch 16 --json
    json 'd["version"] == 1 and d["mode"] == "compare" and d["ok"] is True' \
        'len(d["layers"]) == 7 and all(set(("name", "op", "out_shape", "macs", "cpu_us",
        "gpu_us", "max_abs_error", "bound", "ok")) <= set(l) for l in d["layers"])' \
        'all(set(("name", "images_per_second", "agreement", "max_abs_error")) <= set(b)
        for b in d["backends"])' \
        'd["layers"][0]["out_shape"] == [6, 28, 28] and d["layers"][0]["macs"] == 117600' \
        'all(l["cpu_us"] > 0 and l["ok"] is True for l in d["layers"])' \
        'd["backends"][0]["name"] == "reference" and d["backends"][0]["agreement"] == 1'
    if has_gpu; then
        json 'all(l["gpu_us"] > 0 and l["max_abs_error"] <= l["bound"] or l["max_abs_error"] == 0
            for l in d["layers"])'
    else
        json 'd["gpu"] == "" and d["why_no_gpu"] != ""' \
            'all(l["gpu_us"] is None for l in d["layers"])'
    fi
}

@test "--compare: a NaN is WRONG, exit 1, and in the JSON it is null" {
    try "$LENET5" --compare --weights "$BLOBS/overflow.bin" --dataset sample --limit 3
    [ "$status" = 1 ]
    grep -qE '^reference .* nan +WRONG$' <<<"$out"
    grep -qF 'something is WRONG: a result lies outside its bound' <<<"$out"
    try "$LENET5" --compare --weights "$BLOBS/overflow.bin" --dataset sample --limit 3 --json
    [ "$status" = 1 ]
    json 'd["ok"] is False and len(d["layers"]) == 7' \
        'any(b["name"] == "reference" and b["max_abs_error"] is None and b["ok"] is False
        for b in d["backends"])'
}

@test "--bench of a backend that cannot run here is an error" {
    try env LENET5_SIMD=none "$LENET5" --bench --backend simd --weights "$BLOBS/tiny.bin"
    [ "$status" = 1 ]
    [ "$out" = "" ]
    [[ "$err" == *"LENET5_SIMD"* ]]
}

@test "--bench chooses its own batches; the data of another set is refused" {
    misused "--bench chooses its own batches: leave out --batch and --limit" --bench --batch 4
    misused "--bench chooses its own batches: leave out --batch and --limit" --bench --limit 4
    try "$LENET5" --show 1 --dataset mnist --data fashion_mnist/sample
    [ "$status" = 1 ]
    grep -qF 'fashion_mnist/sample holds sample, not mnist' <<<"$err"
}

@test "h5_to_blob never puts the blob in the place of its source" {
    local keras
    keras=$(ls weights/*.h5 | head -n 1)
    cp "$keras" "$T/model.keras"
    try "$BUILD/h5_to_blob" "$T/model.keras" "$T/model.keras"
    [ "$status" = 1 ]
    grep -qF 'are the same file, which would be lost; give the blob another name' <<<"$err"
    cmp "$keras" "$T/model.keras"
}

@test "--bench --json: every batch size of the backend that was asked for" {
    good --bench --backend reference --weights "$BLOBS/tiny.bin" --json
    json 'd["version"] == 1 and d["mode"] == "bench" and d["cpu"] != "" and d["gpu"] == ""' \
        '[p["batch"] for p in d["points"]] == [4 ** k for k in range(9)]' \
        'all(p["backend"] == "reference" and p["runs"] >= 3 and p["images_per_second"] > 0 and
        p["median"] <= p["p90"] <= p["p99"] <= p["p99.9"] for p in d["points"])' \
        'list(d["first_call"]) == ["reference"] and d["gpu_pays_from"] is None'
}

# ---- broken and missing files ----

@test "weights: missing, empty, cut, flipped, not a blob, a folder" {
    local b=$T/b.bin size
    refused 1 "$b: there is no such file; make convert makes weights/*.bin" --eval --weights "$b"
    : >"$b"
    refused 1 "$b: 0 bytes, but a blob's header alone has 384; make it again with make convert" \
        --eval --weights "$b"
    head -c 5000 "$BLOBS/three.bin" >"$b"
    size=$(stat -c %s "$BLOBS/three.bin")
    refused 1 "$b: 5000 bytes, its header says $size; copy or convert it again" --eval \
        --weights "$b"
    cp "$BLOBS/three.bin" "$b"
    printf 'x' | dd of="$b" bs=1 seek=2000 conv=notrunc 2>/dev/null
    try "$LENET5" --eval --weights "$b"
    [ "$status" = 1 ]
    [[ "$err" == "lenet5: $b: damaged, its checksum is "*"; copy or convert it again" ]]
    refused 1 "Makefile: begins with 23 20 53 50 44 58 2d 4c, a blob with 89 4c 4e 35 0d 0a 1a\
 0a; Keras files are made into blobs by make convert H5=file.h5 BLOB=file.bin" --eval \
        --weights Makefile
    refused 1 "layers: not a regular file; a blob is made by make convert" --eval --weights layers
    refused 1 "layers: not a regular file; a blob is made by make convert" --compare \
        --weights layers
}

@test "data: missing, labels as images, another set under this name" {
    local d=$T/data
    refused 1 "$d: No such file or directory; run make data, or use fashion_mnist/sample" \
        --eval --weights "$BLOBS/three.bin" --data "$d" --quiet
    mkdir "$d"
    cp fashion_mnist/sample/t10k-labels-idx1-ubyte.gz "$d"
    cp "$d/t10k-labels-idx1-ubyte.gz" "$d/t10k-images-idx3-ubyte.gz"
    refused 1 "$d/t10k-images-idx3-ubyte.gz: holds labels, expected images; are the two files\
 swapped?" --eval --weights "$BLOBS/three.bin" --data "$d" --quiet
    cp fashion_mnist/sample/t10k-images-idx3-ubyte.gz "$d"
    local name
    for name in mnist fashion_mnist; do
        refused 1 "$d holds sample, not $name: give another --data or --dataset" --eval \
            --weights "$BLOBS/three.bin" --data "$d" --dataset $name --quiet
    done
}

@test "--data and LENET5_DATA name the folder, --data first" {
    mkdir "$T/data" "$T/data/mnist"
    cp fashion_mnist/sample/*.gz "$T/data/mnist"
    LENET5_DATA=$T/data good --eval --weights "$BLOBS/three.bin" --json --limit 10
    json 'd["dataset"] == {"name": "sample", "images": 10}'
    good --eval --weights "$BLOBS/three.bin" --json --limit 10 --data "$T/data"
    json 'd["dataset"]["name"] == "sample"'
    good --eval --weights "$BLOBS/three.bin" --json --limit 10 --data "$T/data/mnist"
    json 'd["dataset"]["name"] == "sample"'
    LENET5_DATA=$T/none good --eval --weights "$BLOBS/three.bin" --json --limit 10 \
        --data "$T/data"
    LENET5_DATA=$T/none refused 1 "$T/none: No such file or directory; run make data, or use\
 fashion_mnist/sample" --eval --weights "$BLOBS/three.bin" --quiet
    LENET5_DATA=$T/data good --show 3
    [[ "$out" == *"image 3 of sample of home-made digits (not MNIST)"* ]]
}

@test "without data and without a wish, the sample takes its place, and that is said" {
    mkdir -p "$T/fashion_mnist"
    cp -r fashion_mnist/sample "$T/fashion_mnist"
    cd "$T"
    good --eval --weights "$BLOBS/three.bin" --limit 10
    [[ "$err" == *"note: no fashion_mnist/data here yet (make data fetches it): using the\
 project's own sample of drawn digits, whose scores say nothing about mnist"* ]]
    grep -qF 'data      sample of home-made digits (not MNIST), 10 images' <<<"$out"
}

@test "--identify without any data set" {
    mkdir -p "$T/fashion_mnist"
    cp -r fashion_mnist/sample "$T/fashion_mnist"
    cd "$T"
    refused 1 "no data set here that this network can be fed with: make data fetches both" \
        --eval --identify --weights "$BLOBS/three.bin" --quiet
}

@test "a full disk is noticed, in every mode" {
    [ -c /dev/full ] || skip "there is no /dev/full"
    local mode
    for mode in --help --version --info "--info --json" "--show 0" "--show 0 --json" \
        "--eval --limit 10" "--eval --limit 10 --json" "--compare --limit 5" \
        "--compare --limit 5 --json"; do
        status=0
        # shellcheck disable=SC2086 # a list of words
        "$LENET5" $mode --weights "$BLOBS/three.bin" --dataset sample --quiet >/dev/full \
            2>"$T/err" || status=$?
        echo "$mode: $status, $(cat "$T/err")"
        [ "$status" = 1 ]
        [ "$(cat "$T/err")" = "lenet5: cannot write the results: is the disk full?" ]
    done
}

# ---- what is built ----

@test "every header compiles alone, as C and as C++" {
    local header flags
    flags=$(pkg-config --cflags hdf5 2>/dev/null || pkg-config --cflags hdf5-serial 2>/dev/null ||
        true)
    for header in layers/*.h fashion_mnist/*.h converter/*.h; do
        echo "$header"
        printf '#include "%s"\nextern int nothing;\n' "$header" >"$T/alone"
        # shellcheck disable=SC2086 # a list of flags
        ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Werror -I. -Ilayers \
            -Ifashion_mnist -Iconverter $flags -fsyntax-only -x c "$T/alone"
        command -v "${CXX:-c++}" >/dev/null || skip "no C++ compiler; as C they compile"
        # shellcheck disable=SC2086
        ${CXX:-c++} -std=c++11 -Wall -Wextra -Werror -I. -Ilayers -Ifashion_mnist \
            -Iconverter $flags -fsyntax-only -x c++ "$T/alone"
    done
}

@test "the command and the library link only what they may" {
    command -v readelf >/dev/null || skip "readelf is not here"
    case $BUILD in *address*) skip "sanitizers link more" ;; esac
    local may='libc\.so|libm\.so|libz\.so|libpthread\.so|libdl\.so|librt\.so|ld-linux'
    local needed
    needed=$(readelf -d "$BUILD/liblenet5.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p')
    echo "$needed"
    [ -n "$needed" ]
    [ "$(grep -vE "^($may)" <<<"$needed")" = "" ]
    needed=$(readelf -d "$LENET5" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p')
    echo "$needed"
    [ "$(grep -vE "^($may|libjansson\.so)" <<<"$needed")" = "" ]
}

@test "both libraries export what lenet5.h declares, and nothing else" {
    local library
    command -v nm >/dev/null || skip "nm is not here"
    tr '\n' ' ' <layers/lenet5.h | grep -oE 'LENET5_API [^;]*\(' |
        grep -oE 'lenet5_[a-z_]+ *\($|lenet5_[a-z_]+\(' | tr -d '( ' | sort -u >"$T/declared"
    [ "$(wc -l <"$T/declared")" -ge 10 ]
    for library in "-D $BUILD/liblenet5.so" "-g $BUILD/liblenet5.a"; do
        # shellcheck disable=SC2086 # an option and a file
        nm --defined-only $library | awk 'NF == 3 { print $NF }' | sed 's/@.*//' |
            grep -vE '^(_init|_fini|_edata|_end|__bss_start|__odr_asan.*)$' |
            sort >"$T/exported"
        diff "$T/declared" "$T/exported"
    done
}

@test "the example of lenet5.h compiles and runs, static and shared, as C and as C++" {
    local line libs kind
    # each line of code in the header's example stands in example.c
    awk '/^#ifndef LENET5_H/ { exit } /^ \*     / { print }' layers/lenet5.h |
        sed 's/^ \*     //; s,//.*,,; s/^ *//; s/ *$//' | grep -v '^\.\.\.$' >"$T/lines"
    [ "$(wc -l <"$T/lines")" -ge 7 ]
    sed 's,//.*,,; s/^ *//; s/ *$//' tests/example.c >"$T/code"
    while IFS= read -r line; do
        grep -qxF -- "$line" "$T/code" || { echo "not in example.c: $line" && false; }
    done <"$T/lines"

    # and those of lenet5_run_device in test_device.cu
    awk '/is not touched\.$/ { on = 1; next } on && /^       / { print } /^LENET5_API/ { on = 0 }' \
        layers/lenet5.h | sed 's,//.*,,; s,\*/$,,; s/^ *//; s/ *$//; s/;  */;\n/' |
        grep -v '^\.\.\.$' >"$T/lines"
    [ "$(wc -l <"$T/lines")" -ge 5 ]
    sed 's,//.*,,; s/^ *//; s/ *$//' tests/test_device.cu >"$T/code"
    while IFS= read -r line; do
        grep -qxF -- "$line" "$T/code" || { echo "not in test_device.cu: $line" && false; }
    done <"$T/lines"

    libs=$(cuda_libs) || skip "the CUDA toolkit, which the static library needs, is not here"
    mkdir "$T/include" "$T/run"
    cp layers/lenet5.h "$T/include"
    cp "$BLOBS/three.bin" "$T/run/lenet5_mnist.bin"
    for kind in c c++; do
        local compile=("${CC:-cc}" -std=c11)
        if [ $kind = c++ ]; then
            command -v "${CXX:-c++}" >/dev/null || skip "no C++ compiler; as C it runs"
            compile=("${CXX:-c++}" -std=c++11)
        fi
        # shellcheck disable=SC2046,SC2086 # lists of flags
        "${compile[@]}" -Wall -Wextra -Wpedantic -Werror $(sanitizers) -I"$T/include" -x $kind \
            tests/example.c -x none "$BUILD/liblenet5.a" $libs -lz -lm -o "$T/static"
        # shellcheck disable=SC2046
        "${compile[@]}" -Wall -Wextra -Wpedantic -Werror $(sanitizers) -I"$T/include" -x $kind \
            tests/example.c -x none -L"$BUILD" -llenet5 -o "$T/shared"
        LD_LIBRARY_PATH=$(cd "$BUILD" && pwd) run_example "$T/static"
        LD_LIBRARY_PATH=$(cd "$BUILD" && pwd) run_example "$T/shared"
    done
}

run_example() {
    (cd "$T/run" && "$1") >"$T/out"
    cat "$T/out"
    grep -qxE 'version [0-9.]+, backend [a-z]+, 10 classes' "$T/out"
    grep -qxF 'a blank image looks like a 3' "$T/out"
    status=0
    (cd "$T" && "$1") 2>"$T/err" || status=$?
    [ "$status" = 1 ]
    [ "$(cat "$T/err")" = "lenet5_mnist.bin: there is no such file; make convert makes\
 weights/*.bin" ]
}

@test "every source file says in its first ten lines what it is for" {
    local file name bad=0
    for file in lenet5.cu command/*.[ch] layers/*.* converter/*.[ch] fashion_mnist/*.[ch] tests/*.[ch] \
        tests/*.bats scripts/*.sh; do
        name=$(basename "$file")
        head -3 "$file" | grep -q 'SPDX-License-Identifier: MIT' ||
            { echo "$file: no SPDX line at its top" && bad=1; }
        head -10 "$file" | grep -qE "(^| )(${name//./\\.}|${name%.*}\.h +${name%.*}\.c)( |,)" ||
            { echo "$file: its first ten lines do not introduce $name" && bad=1; }
    done
    for file in scripts/*.py; do
        head -3 "$file" | grep -q 'SPDX-License-Identifier: MIT' &&
            head -3 "$file" | grep -qE '^"""[^"]{30}' ||
            { echo "$file: no SPDX line and docstring at its top" && bad=1; }
    done
    [ $bad = 0 ]
}

# ---- the converter, in passing: converter tests proper are elsewhere ----

@test "h5_to_blob: help, a missing file, a target that cannot be written" {
    needs_converter
    try "$CONVERT" --help
    [ "$status" = 0 ]
    [ "$err" = "" ]
    [[ "$out" == "usage: h5_to_blob "* ]]
    try "$CONVERT" --nonsense
    [ "$status" = 2 ]
    [[ "$err" == *"--nonsense"* ]]
    try "$CONVERT" "$T/none.h5" "$T/out.bin"
    [ "$status" = 1 ]
    [[ "$err" == "h5_to_blob: $T/none.h5: "* ]]
    [ ! -e "$T/out.bin" ]
    try "$CONVERT" weights/lenet5_mnist.h5 "$T/none/out.bin"
    [ "$status" = 1 ]
    [[ "$err" == "h5_to_blob: $T/none/out.bin: cannot write beside it: "* ]]
    try "$CONVERT" Makefile "$T/out.bin"
    [ "$status" = 1 ]
    [ "$(ls "$T")" = "$(printf 'err\nout')" ]
}

# ---- the real sets ----

# scores FILE DATASET CORRECT BACKEND
scores() {
    good --eval --weights "$1" --data "$DATA" --dataset "$2" --backend "$4" --json
    json "d['correct'] == $3 and d['dataset'] == {'name': '$2', 'images': 10000}"
}

@test "the student's file converts with no option and scores exactly 9,825 and 715" {
    needs_converter
    needs_data
    [ -f "$STUDENT" ] || skip "$STUDENT is not here"
    try "$CONVERT" "$STUDENT" "$T/student.bin"
    [ "$status" = 0 ]
    scores "$T/student.bin" mnist 9825 reference
    json '"FashionMNIST_weights.h5 reads MNIST digits" in d["hint"]'
    scores "$T/student.bin" fashion_mnist 715 reference
    json '"98.25 %" in d["hint"] and "9,825 of 10,000" in d["hint"]'
    if has_gpu; then
        scores "$T/student.bin" mnist 9825 cuda
        scores "$T/student.bin" fashion_mnist 715 cuda
    fi
}

@test "--identify finds the options for a file that was converted with wrong ones" {
    needs_converter
    needs_data
    [ -f "$STUDENT" ] || skip "$STUDENT is not here"
    "$CONVERT" --quiet "$STUDENT" "$T/wrong.bin" --activation relu --layout chw --scale 1
    good --eval --weights "$T/wrong.bin" --data "$DATA" --dataset mnist --limit 500
    [[ "$(tail -1 <<<"$out")" == "hint: "*"--eval --identify --weights $T/wrong.bin"* ]]
    good --eval --identify --weights "$T/wrong.bin" --data "$DATA" --json
    json 'd["mode"] == "identify" and d["readings"][0]["dataset"] == "mnist"' \
        '[r["score"] for r in d["readings"]] == sorted((r["score"] for r in d["readings"]),
        reverse=True)'
    good --eval --identify --weights "$T/wrong.bin" --data "$DATA"
    local options
    options=$(sed -n 's/^the best of them: .* OUT.bin //p' <<<"$out")
    # shellcheck disable=SC2086 # a list of words
    "$CONVERT" --quiet "$STUDENT" "$T/right.bin" $options
    good --eval --weights "$T/right.bin" --data "$DATA" --dataset mnist --json
    json 'd["correct"] >= 9820'
}

@test "the command that --identify names reproduces the score, whatever the blob was made with" {
    needs_converter
    needs_data
    [ -f "$STUDENT" ] || skip "$STUDENT is not here"
    local given options best
    for given in "--flip --layout chw" "--flip --activation sigmoid" "--layout chw --invert" \
        "--input 32x32x1 --padding valid --scale 1" "--no-flip --pool average --offset -0.5"; do
        # shellcheck disable=SC2086 # a list of words
        "$CONVERT" --quiet "$STUDENT" "$T/wrong.bin" $given
        good --eval --identify --weights "$T/wrong.bin" --data "$DATA" --json --quiet
        best=$(python3 -c 'import json, sys
r = json.load(sys.stdin)["readings"][0]
print(round(2000 * r["score"]), r["options"])' <<<"$out")
        options=${best#* } best=${best%% *}
        [ "$best" -ge 1940 ]
        # shellcheck disable=SC2086
        "$CONVERT" --quiet "$STUDENT" "$T/right.bin" $options
        good --eval --weights "$T/right.bin" --data "$DATA" --dataset mnist --limit 2000 --json
        json "d['correct'] == $best"
    done
}

# identified BLOB: the best reading's hits of 2,000 images and its options.
identified() {
    good --eval --identify --weights "$1" --data "$DATA" --json --quiet
    python3 -c 'import json, sys
r = json.load(sys.stdin)["readings"][0]
print(round(2000 * r["score"]), r["dataset"], r["options"])' <<<"$out"
}

@test "--identify keeps to what a file leaves open: its command is accepted and reproduces" {
    needs_converter
    needs_data
    command -v python3 >/dev/null || skip "python3 is missing"
    local golden file given hits set options
    for golden in keras3_lenet5_g.keras keras3_weights_f.weights.h5 \
        keras3_relul_f.weights.h5 keras215_weights_nested_d.h5 keras03_numbered_a.h5; do
        file=$T/$golden
        gunzip -c "tests/golden/$golden.gz" >"$file"
        for given in "" "--flip --layout chw"; do
            # shellcheck disable=SC2086 # a list of words
            "$CONVERT" --quiet "$file" "$T/given.bin" $given
            read -r hits set options < <(identified "$T/given.bin" | tail -1)
            echo "$golden: $hits $set $options"
            case $golden in *.keras) [[ "$options" != *--pool* && "$options" != *--input* ]] ;; esac
            # shellcheck disable=SC2086
            try "$CONVERT" --quiet "$file" "$T/again.bin" $options
            [ "$status" = 0 ]
            good --eval --weights "$T/again.bin" --data "$DATA" --dataset "$set" --limit 2000 \
                --json --quiet
            json "d['correct'] == $hits"
        done
    done
}

@test "--identify says where a blob had no room for its options" {
    needs_converter
    needs_data
    [ -f "$STUDENT" ] || skip "$STUDENT is not here"
    "$CONVERT" --quiet "$STUDENT" "$T/long.bin" --flip --layout chw --activation tanh \
        --pool average --input 28x28 --padding same
    good --eval --identify --weights "$T/long.bin" --data "$DATA" --json --quiet
    json 'd["complete"] is False' 'not any("..." in r["options"] for r in d["readings"])'
    good --eval --identify --weights "$T/long.bin" --data "$DATA" --quiet
    [[ "$(tail -1 <<<"$out")" == "the best of them (and options of this blob that it has no\
 room to record): "* ]]
    "$CONVERT" --quiet "$STUDENT" "$T/short.bin"
    good --eval --identify --weights "$T/short.bin" --data "$DATA" --json --quiet
    json 'd["complete"] is True'
}

@test "the project's own weights reach what they are for" {
    needs_data
    local name low
    for name in mnist:9890 fashion_mnist:9000; do
        low=${name#*:} name=${name%:*}
        [ -f "weights/lenet5_$name.bin" ] ||
            skip "weights/lenet5_$name.bin is not here: make convert makes it"
        good --eval --weights "weights/lenet5_$name.bin" --data "$DATA" --json
        json "d['dataset'] == {'name': '$name', 'images': 10000} and d['correct'] >= $low" \
            "d['weights']['trained_on'] == '$name' and d['hint'] == ''"
    done
}

@test "MNIST is not taken for Fashion-MNIST, nor the other way round" {
    [ -n "$DATA" ] || skip "the data sets are not here: make data fetches them"
    refused 1 "$DATA/mnist holds mnist, not fashion_mnist: give another --data or --dataset" \
        --eval --weights "$BLOBS/three.bin" --data "$DATA/mnist" --dataset fashion_mnist --quiet
    good --eval --weights "$BLOBS/three.bin" --data "$DATA" --dataset fashion_mnist --limit 10 \
        --backend reference
    [ "$err" = "note: trained on mnist, evaluated on another data set: fashion_mnist" ]
}
