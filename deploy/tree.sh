#!/usr/bin/env bash
# Lays out BINARY with everything it needs below TO, as the archive and the wheel hold it: program, library, model,
# licences, bill of materials. PACKAGE, the program's by default, is the one whose crates they list.
set -euo pipefail
usage='usage: deploy/tree.sh BINARY TO [PACKAGE]'
binary=$(realpath "${1:?$usage}")
to=$(realpath -m "${2:?$usage}")
cd "$(dirname "$0")/.."

# reproducible-builds.org: the time of what is packed, not of the packing.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
rm -rf "$to"
place() { mkdir -p "$to/$(dirname "$2")" && cp "$1" "$to/$2"; }

place "$binary" bin/lfm-serve
# Debug information is four fifths of the file; function names stay for backtraces.
strip --strip-debug "$to/bin/lfm-serve"
place vendor/onnxruntime/libonnxruntime.so lib/libonnxruntime.so
for file in manifest.json lfm.onnx lfm.std.onnx lfm.cpu.onnx; do place "models/$file" "share/lfm-serve/model/$file"; done
place LICENSE LICENSES/lfm-serve/LICENSE
place NOTICE LICENSES/lfm-serve/NOTICE
place models/README.md LICENSES/model/README.md
for file in LICENSE ThirdPartyNotices.txt; do place "vendor/onnxruntime/$file" "LICENSES/onnxruntime/$file"; done
place "$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html" LICENSES/rust/COPYRIGHT-library.html
"${PYTHON:-python3}" deploy/dist.py "$to" "${3:-lfm-serve}"
