#!/usr/bin/env bash
# run.sh MINUTES TARGET...: fuzzes each target for so long, from its seeds and what earlier runs found (fuzz/corpus).
# A finding ends it, and lies in fuzz/artifacts/TARGET. Called by `make fuzz`, which installs what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
# cargo-fuzz asks the compiler for sanitizers, which the stable one has but does not offer.
export RUSTC_BOOTSTRAP=1
minutes=$1
shift
for target; do
  corpus=fuzz/corpus/$target
  artifacts=fuzz/artifacts/$target/
  mkdir -p "$corpus" "$artifacts"
  # libFuzzer writes into the first folder and only reads the others.
  folders=("$corpus")
  [ -d "fuzz/seeds/$target" ] && folders+=("fuzz/seeds/$target")
  options=(-max_total_time=$((minutes * 60)) -timeout=20 -print_final_stats=1)
  case $target in
    image) folders+=(tests/golden/variants tests/golden/hostile) options+=(-max_len=300000) ;;
    declared) folders+=(tests/golden/variants) options+=(-max_len=100000) ;;
    # What a request held is freed by other threads, which looks like a leak after each run.
    forms | grpc | http | oip) options+=(-detect_leaks=0) ;;
    conv) options+=(-max_len=400 -len_control=0) ;;
  esac
  echo "fuzz: $target, $minutes minutes"
  if [ "$target" = importer ]; then
    .venv-fuzz/bin/python fuzz/importer.py "${folders[@]}" "${options[@]}" -artifact_prefix="$artifacts"
  else
    target/tools/bin/cargo-fuzz run "$target" "${folders[@]}" -- "${options[@]}"
  fi
done
