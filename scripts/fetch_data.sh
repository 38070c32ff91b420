#!/bin/sh
# SPDX-License-Identifier: MIT
#
# fetch_data.sh - fetches MNIST and Fashion-MNIST, test and training sets: `make data`.
#
#     scripts/fetch_data.sh [DEST]                     default $LENET5_DATA, fashion_mnist/data
#     DATA_FROM=FOLDER scripts/fetch_data.sh [DEST]    without a network
#
# FOLDER has mnist/ and fashion_mnist/, the files raw or as .gz. Whatever the way, a file counts
# by the SHA-256 of its unpacked content, for mirrors pack alike but not the same. A file gets
# its name only after that check; one that is there and right is left alone, one that is there
# and wrong is kept as NAME.wrong. Needs gzip, sha256sum or shasum, and curl or wget.
set -eu

DEST=${1:-${LENET5_DATA:-fashion_mnist/data}}
FROM=${DATA_FROM:-}

# SHA-256 of the unpacked files of set $1
digests() {
    case $1 in
    mnist) echo '
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7 t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2 t10k-labels-idx1-ubyte
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 train-labels-idx1-ubyte' ;;
    fashion_mnist) echo '
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b t10k-images-idx3-ubyte
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34 t10k-labels-idx1-ubyte
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888 train-images-idx3-ubyte
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9 train-labels-idx1-ubyte' ;;
    esac
}

# Where set $1 can be had, in the order of trying. One is plain HTTP: what is trusted is the
# digest, not the transport.
mirrors() {
    case $1 in
    mnist) echo '
https://ossci-datasets.s3.amazonaws.com/mnist
https://storage.googleapis.com/cvdf-datasets/mnist
https://raw.githubusercontent.com/fgnt/mnist/master' ;;
    fashion_mnist) echo '
https://storage.googleapis.com/tensorflow/tf-keras-datasets
http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion' ;;
    esac
}

part=  # the unfinished file, if any
ready= # 1 once a mirror has answered

trap 'rm -f "$part"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
    echo "fetch_data: $*" >&2
}

packed() {
    [ "$(od -An -tx1 -N2 "$1" | tr -d ' \n')" = 1f8b ]
}

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

# SHA-256 of the unpacked content; of anything else if gzip finds fault, be it only at the end.
digest() {
    if packed "$1"; then
        { gzip -dc <"$1" 2>/dev/null || echo damaged; } | sha256
    else
        sha256 <"$1"
    fi
}

# state FILE SHA256: prints none, right or wrong.
state() {
    if [ ! -f "$1" ]; then
        echo none
    elif [ "$(digest "$1")" = "$2" ]; then
        echo right
    else
        echo wrong
    fi
}

# download URL FILE SECONDS [MOST]: SECONDS to connect, MOST for all of it.
download() {
    if command -v curl >/dev/null; then
        set -- "$1" -o "$2" -fsL --connect-timeout "$3" ${4:+--max-time "$4"}
        curl --speed-time 10 --speed-limit 1000 "$@"
    else
        wget -q -t 1 -T "$3" -O "$2" "$1"
    fi
}

# Asks two hosts for a small file, 3 and 2 seconds: a network that swallows packets costs 5.
probe() {
    if ! command -v curl >/dev/null && ! command -v wget >/dev/null; then
        say "needs curl or wget; install one, or run make data DATA_FROM=folder"
        exit 1
    fi
    seconds=3
    for mirror in $(mirrors mnist); do
        if download "$mirror/t10k-labels-idx1-ubyte.gz" /dev/null $seconds $seconds; then
            ready=1
            return
        fi
        seconds=$((seconds - 1))
        [ $seconds -ge 2 ] || break
    done
    say "no network; run make data DATA_FROM=folder, with mnist/ and fashion_mnist/ in it," \
        "or do without: then fashion_mnist/sample is used"
    exit 1
}

# verified SHA256 ORIGIN: whether $part has that digest; a sentence if not.
verified() {
    found=$(digest "$part")
    [ "$found" = "$1" ] || {
        say "$2: SHA-256 of the unpacked content is $found, expected $1"
        return 1
    }
}

# fetch SET/FILE SHA256: into $part, from the first mirror that has the right content.
fetch() {
    for mirror in $(mirrors "${1%/*}"); do
        url=$mirror/${1#*/}.gz
        if [ -t 2 ]; then say "$url"; fi
        if ! download "$url" "$part" 3; then
            say "$url: no answer, trying the next mirror"
        elif verified "$2" "$url"; then
            return 0
        fi
    done
    say "$1: no mirror had it; try again later, or run make data DATA_FROM=folder"
    return 1
}

# copy SET/FILE SHA256: into $part, from the folder, under any usual spelling of the name.
copy() {
    dotted=$(echo "$1" | sed 's/-idx/.idx/')
    for file in "$FROM/$1.gz" "$FROM/$1" "$FROM/$dotted.gz" "$FROM/$dotted"; do
        [ -f "$file" ] || continue
        cp "$file" "$part"
        verified "$2" "$file" && return 0
    done
    say "$FROM: no good $1 or $1.gz in it; make data without DATA_FROM fetches it"
    return 1
}

# keep_aside FILE STATE: a wrong file makes room, but nothing is lost.
keep_aside() {
    [ "$2" = wrong ] || return 0
    mv "$1" "$1.wrong" || return 1
    say "$1: not the official content, kept as $1.wrong"
}

# obtain SET/FILE SHA256: into $part.
obtain() {
    if [ "$FROM" ]; then
        copy "$1" "$2"
    else
        fetch "$1" "$2"
    fi
}

# settle SET/FILE SHA256: 0 if the file is there and right in the end. Called where set -e is
# not in force, hence the returns.
settle() {
    target=$DEST/$1
    raw=$(state "$target" "$2")
    gz=$(state "$target.gz" "$2")
    if [ "$raw" != right ] && [ "$gz" != right ]; then
        [ "$FROM" ] || [ "$ready" ] || probe
        mkdir -p "${target%/*}" || return 1
        part=$target.part.$$
        obtain "$1" "$2" || return 1
    fi
    keep_aside "$target" "$raw" && keep_aside "$target.gz" "$gz" || return 1
    [ -f "$part" ] || return 0
    if packed "$part"; then target=$target.gz; fi
    chmod 644 "$part" && mv "$part" "$target" && echo "$target"
}

if [ "$FROM" ] && [ ! -d "$FROM" ]; then
    say "DATA_FROM=$FROM: no such folder, expected one with mnist/ and fashion_mnist/ in it"
    exit 1
fi
failed=0
for set in mnist fashion_mnist; do
    for name in t10k-images-idx3 t10k-labels-idx1 train-images-idx3 train-labels-idx1; do
        sha=$(digests $set | sed -n "s/ $name-ubyte\$//p")
        settle "$set/$name-ubyte" "$sha" || failed=1
        rm -f "$part"
    done
    rmdir "$DEST/$set" 2>/dev/null || : # nothing came: no empty folder either
done
[ $failed = 0 ] || exit 1
echo "$DEST: MNIST and Fashion-MNIST are there, and their digests are right"
