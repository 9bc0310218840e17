#!/usr/bin/env bash
# clang-tidy on the sources that differ from the merge base with BASE (default: the commit four hours before the last one),
# at most LIMIT files, so that its time stays bounded.
set -euo pipefail
cd "$(dirname "$0")/../.."
limit=${LIMIT:-12}
base=${BASE:-$(git rev-list -1 --min-age=$(($(git log -1 --format=%ct) - 4 * 3600)) HEAD)}
[ -n "$base" ] || base=$(git rev-list --max-parents=0 HEAD | tail -n 1)
mapfile -t files < <(git diff --name-only --diff-filter=d "$base" HEAD -- 'src/*.cpp' 'pipelines/*.cpp' 'kernels/*.cpp' | shuf -n "$limit" --random-source=<(yes))
if [ ${#files[@]} -eq 0 ]; then
  echo "no source changed since $base"
  exit 0
fi
echo "${#files[@]} files, changed since $base"
# The precompiled header was made by g++ and means nothing to clang.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed -E 's/-Winvalid-pch//g; s/-include [^ ]*cmake_pch\.hxx//g; s/-fno-sanitize=vptr//g; s/-Wno-(restrict|stringop-overflow|maybe-uninitialized)//g' build/release/compile_commands.json >"$work/compile_commands.json"
printf '%s\n' "${files[@]}" | xargs -P 2 -n 1 clang-tidy-14 -p "$work" --quiet --warnings-as-errors='*' 2>/dev/null
