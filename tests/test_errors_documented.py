"""The codes of rejected rows: docs/errors.md lists them all, and end-to-end tests produce each."""

from __future__ import annotations

import re

from tests.support import bad_inputs, bad_tokens
from tests.support.paths import ROOT
from transforms.errors import ROW_ERRORS

DOCUMENT = ROOT / "docs" / "errors.md"


def test_the_documentation_lists_exactly_the_codes_that_exist() -> None:
    section = DOCUMENT.read_text().partition("## Error codes of rejected rows")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(ROW_ERRORS)


def test_bad_input_produces_every_code() -> None:
    in_tables = {bad.code for case in (*bad_inputs.CASES, *bad_tokens.CASES) for bad in case.bad}
    elsewhere = {"fetch_refused", "fetch_failed"}  # in tests/realdata/test_fetching.py, with a web server
    prompts = {"empty_prompt", "prompt_too_long", "bad_value"}  # in tests/transforms/inputs/formats/test_prompts_bad.py
    assert in_tables | elsewhere | prompts == set(ROW_ERRORS)
