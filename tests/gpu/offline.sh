#!/usr/bin/env bash
# tests/gpu and tests/bench on a GPU machine without a network, with its own Python, torch, CUDA and most packages. What
# it lacks or has too old travels as wheels in .whl, next to the checkout's files.
#
#   tests/gpu/offline.sh download 3.12     with a network: the wheels for that version of Python
#   tests/gpu/offline.sh test [FLAGS]      there: python3 -m tests.gpu FLAGS
#   tests/gpu/offline.sh bench [FLAGS]     there: python3 -m tests.bench.gpu FLAGS
set -eu
cd "$(dirname "$0")/../.."

packages="transformers regex datasets dill multiprocess evaluate tyro docstring_parser typeguard python-dotenv submitit peft"

download() {
    local pins=() package
    for package in $packages; do pins+=("$(grep "^$package==" requirements.lock)"); done
    rm -rf .whl # two versions of a package cannot be installed together
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest .whl --implementation cp --python-version "$1" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "${pins[@]}"
    du -sh .whl
}

prepare() {
    export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
    if [ ! -d .site ]; then
        rm -rf .site.new
        python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target .site.new .whl/*.whl
        mv .site.new .site
    fi
    export PYTHONPATH=$PWD/.site:$PWD
}

what=${1:?download, test or bench}
shift
case $what in
    download) download "${1:?version of Python, as 3.12}" ;;
    test) prepare; exec python3 -m tests.gpu "$@" ;;
    bench) prepare; exec python3 -m tests.bench.gpu "$@" ;;
    *) echo "download, test or bench, not $what" >&2; exit 2 ;;
esac
