"""How captions are cleaned before a CLIP's tokenizer sees them.

open_clip does it, and so did transformers before version 5 where ftfy is installed. The encoder was trained on such
captions: `&amp;` or a typographic apostrophe moves a score.
"""

from __future__ import annotations

import html
from typing import Literal

ClipText = Literal["clean", "raw"]
LONGEST = 4096  # characters that are cleaned: a CLIP reads some dozens of words, and ftfy may be slow on a hostile text


def cleaned(text: str) -> str:
    """`text` as open_clip's `whitespace_clean(basic_clean(text))` gives it; the tokenizer makes it lower case."""
    import ftfy  # slow to import

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text[:LONGEST]))).split())
