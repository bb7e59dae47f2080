#!/usr/bin/env bash
# The demo: 200 captioned emoji images -> VQGAN tokens in Parquet -> images again, and prompts -> images.
# Usage: examples/demo.sh DIR
set -euo pipefail
out=${1:?usage: examples/demo.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
started=$(date +%s.%N)
rm -rf "$out"

echo "== images and captions -> tokens"
vqbeam encode --input "$here/emoji/sample/emoji-00000.tar" --output "$out/tokens"

echo "== tokens -> images"
vqbeam decode --input "$out/tokens/data/*.parquet" --output "$out/images" --contact_sheet

echo "== prompts -> images, the best 3 of 8"
vqbeam generate --input "$here/emoji/prompts.txt" --output "$out/drawn" --images_per_prompt 8 \
  --clip emoji --keep_best 3 --contact_sheet

awk -v a="$started" -v b="$(date +%s.%N)" 'BEGIN { printf "\nDemo done in %.1f s after set-up.\n", b - a }'
echo "See $out/drawn/contact_sheet.png, and read $out/tokens/data with anything that reads Parquet."
echo "The command is $(command -v vqbeam)."
