#!/bin/sh
# SPDX-License-Identifier: MIT
#
# setup.sh - installs what building and testing need and this machine lacks.
#
#     scripts/setup.sh [build | test]        default test, which includes build
#
# On Debian and its kin it installs the packages, or prints the command if it is not root;
# elsewhere it names the libraries. Where nothing is missing it says and does nothing. CUDA is
# not installed: without nvcc the CPU version is built.
set -eu

MODE=${1:-test}
case $#,$MODE in
0,test | 1,test | 1,build) ;;
*)
    echo "usage: scripts/setup.sh [build | test]" >&2
    exit 2
    ;;
esac

packages= # Debian's names
words=    # anybody's

# need PACKAGES WORDS COMMAND...: they are missing if the command fails.
need() {
    package=$1
    word=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        packages="$packages $package"
        words="$words${words:+, }$word"
    fi
}

compiler() {
    echo '#include <stdio.h>' | cc -E -x c -
}

fetcher() {
    command -v curl || command -v wget
}

# library NAME [OTHER-NAME]: known to pkg-config?
library() {
    pkg-config --exists "$1" || pkg-config --exists "${2:-$1}"
}

need "gcc libc6-dev" "a C compiler with its headers" compiler
need make "GNU make" command -v make
need pkg-config "pkg-config" command -v pkg-config
need libhdf5-dev "HDF5 (C library)" library hdf5 hdf5-serial
need zlib1g-dev "zlib" library zlib
need libjansson-dev "Jansson" library jansson
need libzip-dev "libzip" library libzip
need libmd-dev "libmd (SHA-256)" library libmd
need "curl ca-certificates" "curl" fetcher
if [ "$MODE" = test ]; then
    need libcmocka-dev "cmocka" library cmocka
    need bats "bats" command -v bats
    need python3 "Python 3" command -v python3
fi
[ "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: missing: $words; install them with their development headers" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "setup: missing: $words; run this, then again what you ran:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$packages" >&2
    exit 1
fi
echo "setup: installing$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || echo "setup: the package lists could not be renewed; trying the old" >&2
# shellcheck disable=SC2086 # a list of words
if ! apt-get install -y -qq --no-install-recommends $packages >/dev/null; then
    echo "setup: apt-get could not install$packages; they are: $words" >&2
    exit 1
fi
