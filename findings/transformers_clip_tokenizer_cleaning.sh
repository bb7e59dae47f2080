#!/usr/bin/env bash
# transformers' CLIPTokenizer gives a caption other tokens from version to version, with the same files and ftfy installed:
# that of 4.57.6 cleans (ftfy, HTML entities unless there is a "<"), that of 5.23.0 and CLIPTokenizerFast, which
# CLIPProcessor takes in both, do not. open_clip always cleans. So CLIP scores of captions with entities or typographic
# quotes, and of Greek words in capitals, are not comparable across these without cleaning the captions first.
# Seen, Python 3.11, Linux x86-64:
#   4.57.6 CLIPTokenizer: tom & jerry|a dog 's|1 < 2 & amp ; 3|ος
#   4.57.6 CLIPTokenizerFast: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
#   5.23.0 CLIPTokenizer: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
#   5.23.0 CLIPTokenizerFast: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/try.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers

CAPTIONS = ["Tom &amp; Jerry", "a dog\u2019s", "1 < 2 &amp; 3", "\u039f\u03a3"]
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
whole = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
letters = [chr(byte) for byte in whole] + [chr(256 + number) for number in range(256 - len(whole))]
pieces = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
(folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
(folder / "merges.txt").write_text("#version: 0.2\n")
for name in ("CLIPTokenizer", "CLIPTokenizerFast"):
    tokenizer = getattr(transformers, name).from_pretrained(folder)
    texts = [tokenizer.decode(tokenizer(caption)["input_ids"][1:-1]) for caption in CAPTIONS]
    print(transformers.__version__, f"{name}: {'|'.join(texts)}")
PYTHON
for version in 4.57.6 5.23.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet "transformers==$version" ftfy==6.3.1
    PYTHONIOENCODING=utf-8 "$work/$version/bin/python" "$work/try.py" "$work/model" 2>/dev/null | tee -a "$work/seen"
done
diff "$work/seen" - <<'SEEN'
4.57.6 CLIPTokenizer: tom & jerry|a dog 's|1 < 2 & amp ; 3|ος
4.57.6 CLIPTokenizerFast: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
5.23.0 CLIPTokenizer: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
5.23.0 CLIPTokenizerFast: tom & amp ; jerry|a dog ’ s|1 < 2 & amp ; 3|οσ
SEEN
