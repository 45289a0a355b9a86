#!/usr/bin/env bash
# Packs BINARY with everything it needs into OUT/lfm-serve-VERSION-x86_64-linux.tar.gz. The same commit, binary
# and toolchain give the same bytes.
set -euo pipefail
binary=$(realpath "${1:?usage: deploy/dist.sh BINARY OUT}")
out=$(realpath -m "${2:?usage: deploy/dist.sh BINARY OUT}")
cd "$(dirname "$0")/.."

# reproducible-builds.org: the time of what is packed, not of the packing.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=lfm-serve-$version-x86_64-linux
to=$out/$name
deploy/tree.sh "$binary" "$to"

(cd "$to" && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum >"$out/SHA256SUMS" && mv "$out/SHA256SUMS" .)
tar --create --directory "$out" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
	--numeric-owner --mode='u=rwX,go=rX' "$name" | gzip -n >"$to.tar.gz"
echo "$to.tar.gz"
