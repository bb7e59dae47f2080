"""How captions are cleaned before a CLIP's tokenizer sees them.

open_clip does it. The encoder was trained on such captions: `&amp;` or a typographic apostrophe moves a score. In
transformers only `CLIPTokenizer` before version 5 did nearly so, where ftfy is installed; `CLIPProcessor` took the fast
tokenizer, which never did.
"""

from __future__ import annotations

import html
import re
from typing import Literal

ClipText = Literal["clean", "raw"]
LONGEST = 4096  # characters that are cleaned: a CLIP reads some dozens of words, and ftfy may be slow on a hostile text
BLANKS = re.compile(r"\s+")


def cleaned(text: str, lower_case: bool = True) -> str:
    """`text` as open_clip's tokenizer cleans it by default; without `lower_case` as its `clean="whitespace"` does."""
    import ftfy  # slow to import

    if len(text) > LONGEST:  # blanks count as one; ftfy looks at each line by itself
        text = BLANKS.sub(lambda blanks: "\n" if "\n" in blanks.group() else " ", text)[:LONGEST]
    text = " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
    return text.lower() if lower_case else text
