"""The codes of error rows: each is documented and produced by an end-to-end test, and there is no other."""

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


def test_every_code_comes_of_some_kind_of_bad_input() -> None:
    in_tables = {bad.code for case in (*bad_inputs.CASES, *bad_tokens.CASES) for bad in case.bad}
    elsewhere = {"fetch_refused"}  # test_failed_shards.py, where there is a web server
    prompts = {"empty_prompt", "prompt_too_long", "bad_value"}  # of generate, read in sources/test_prompts_bad.py
    assert in_tables | elsewhere | prompts == set(ROW_ERRORS)
