#!/usr/bin/env bash
# Builds Dockerfile.gpu where no Docker engine runs, and tries the image: its user, what was left in
# it, `doctor`, and an epoch of training on the sample. The base is a minimal Debian, made here.
#
#   scripts/build_gpu_image.sh [ARCHIVE]
#
# ARCHIVE: also write the image there, for `docker load`. Needs root (for the chroot).
# From the environment, each may be left out:
#   EXTRAS         of the package, with commas between; default: none; "cuda" is gigabytes
#   DEBIAN_SUITE   of the base; default: trixie
#   DEBIAN_MIRROR  where its packages come from; default: mmdebstrap's
#   PIP_INDEX_URL, PIP_CERT  as pip understands them; used while building and left out of the image
#   TMPDIR         has to have room for several copies of the image, 15 GB without CUDA
set -euo pipefail

readonly base=localhost/keras-cifar-base image=localhost/keras-cifar
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly source_dir

say() {
    printf '== %s\n' "$*" >&2
}

fail() {
    printf 'build_gpu_image.sh: %s\n' "$*" >&2
    exit 1
}

require_tools() {
    local tool missing=()
    for tool in mmdebstrap buildah; do
        command -v "$tool" > /dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) ||
        fail "${missing[*]}: not found. Install with: apt-get install ${missing[*]}"
    ((EUID == 0)) || fail "run it as root; making and entering a chroot needs that."
}

# Everything under $work: no storage of the machine's own buildah or podman is touched.
run_buildah() {
    TMPDIR="$work" buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"
}

remove_work() {
    run_buildah rm --all > /dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}

make_base() {
    local options=(--variant=minbase "--include=ca-certificates,python3,python3-venv")
    local proxy="" container
    # mmdebstrap reads nothing of the machine's apt configuration by itself.
    if command -v apt-config > /dev/null; then
        eval "$(apt-config shell proxy Acquire::http::Proxy)"
    fi
    if [[ -n $proxy ]]; then
        options+=(--aptopt="Acquire::http::Proxy \"$proxy\"")
    fi
    mmdebstrap --quiet "${options[@]}" \
        "${DEBIAN_SUITE:-trixie}" "$work/base.tar" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    container=$(run_buildah from scratch)
    run_buildah add --quiet "$container" "$work/base.tar" / > /dev/null
    run_buildah commit --quiet --rm "$container" "$base" > /dev/null
    rm "$work/base.tar"
}

build_image() {
    local secrets=()
    printf '[global]\n' > "$work/pip.conf"
    if [[ -n ${PIP_INDEX_URL:-} ]]; then
        printf 'index-url = %s\n' "$PIP_INDEX_URL" >> "$work/pip.conf"
    fi
    if [[ -n ${PIP_CERT:-} ]]; then
        printf 'cert = /run/secrets/ca.crt\n' >> "$work/pip.conf"
        secrets+=(--secret "id=ca.crt,src=$PIP_CERT")
    fi
    secrets+=(--secret "id=pip.conf,src=$work/pip.conf")
    run_buildah bud --isolation chroot --quiet --file "$source_dir/Dockerfile.gpu" --tag "$image" \
        --build-arg BASE_IMAGE="$base" --build-arg EXTRAS="${EXTRAS:-}" \
        "${secrets[@]}" "$source_dir" > /dev/null
}

# As `docker run` would: the image's user, environment and folder, and no more.
run_inside() {
    run_buildah run --isolation chroot "$container" -- "$@"
}

check_image() {
    local entry_point user leftovers
    entry_point=$(run_buildah inspect --type image --format '{{.OCIv1.Config.Entrypoint}}' "$image")
    [[ $entry_point == '[keras-cifar]' ]] || fail "the entry point is $entry_point."
    user=$(run_inside id -u)
    [[ $user =~ ^[1-9] ]] || fail "the image's user is $user."
    run_inside test -w /workspace/runs -a -w /data -a ! -w /opt/venv ||
        fail "its user has to be able to write /workspace/runs and /data, and not /opt/venv."
    leftovers=$(
        find "$root"/{usr/bin,usr/local/bin,opt/venv/bin} \
            \( -name 'gcc*' -o -name cc -o -name make -o -name 'pip*' \)
        find "$root" -xdev \( -path '*/.cache/*' -o -name pip.conf -o -name ca.crt \
            -o -path "$root/opt/pip" -o -path "$root/source" -o -path '*/apt/lists/*_Packages' \)
    )
    [[ -z $leftovers ]] || fail "left in the image: $leftovers"
}

try_image() {
    say "keras-cifar doctor"
    run_inside keras-cifar doctor
    say "keras-cifar train, an epoch on the sample"
    run_inside keras-cifar train --dataset sample --epochs 1 --optimizer sgd --run-dir runs/sample
    [[ -s $root/workspace/runs/sample/model.keras ]] || fail "training left no model."
}

main() {
    (($# <= 1)) || fail "expected at most one argument, the archive to write."
    require_tools
    work=$(mktemp -d)
    trap remove_work EXIT

    say "base: Debian ${DEBIAN_SUITE:-trixie}"
    make_base
    say "image, extras: ${EXTRAS:-none}"
    build_image
    say "size: $(run_buildah images --format '{{.Size}}' "$image")"

    container=$(run_buildah from "$image")
    root=$(run_buildah mount "$container")
    check_image
    try_image
    if (($# == 1)); then
        run_buildah push --quiet "$image" "docker-archive:$1:keras-cifar:latest"
        say "written: $1"
    fi
    say "passed"
}

main "$@"
