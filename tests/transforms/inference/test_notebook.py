"""The snippets of the README and of docs/runners.md in a real IPython kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.support.paths import ROOT
from tests.test_docs import blocks, first_image

KERNEL_SECONDS = 250
SNIPPETS = blocks(ROOT / "docs" / "runners.md", "python")
HAS_BEAMS_PANDAS = int(pandas.__version__.partition(".")[0]) < 3
pytestmark = pytest.mark.slow  # a kernel starts in some seconds
NO_PANDAS = "import sys; sys.modules['pandas'] = None"


def run_cells(folder: Path, monkeypatch: pytest.MonkeyPatch, *cells: str) -> str:
    """What the cells of a notebook print. Raises `CellExecutionError`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("a.png", "photo.png"):
        (folder / name).write_bytes(first_image())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=KERNEL_SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


def test_tokens_and_images_without_beam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = blocks(ROOT / "README.md", "python")
    said = run_cells(tmp_path, monkeypatch, snippet, "print(codes.shape, pixels.shape, images.shape)")
    assert said == "(1, 64) (1, 64, 64, 3) (1, 64, 64, 3)\n"
    assert (tmp_path / "apple.png").is_file()


@pytest.mark.skipif(not HAS_BEAMS_PANDAS, reason="Beam runs in a notebook with pandas below 3 only")
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_snippets_with_beam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snippet: str) -> None:
    assert " [" in run_cells(tmp_path, monkeypatch, snippet) or " b'" in run_cells(tmp_path, monkeypatch, snippet)


INSTALLED = pytest.param(
    "", id="installed", marks=pytest.mark.skipif(HAS_BEAMS_PANDAS, reason="Beam takes this pandas")
)


@pytest.mark.parametrize("before", [INSTALLED, pytest.param(NO_PANDAS, id="missing")])
def test_what_beam_lacks_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    with pytest.raises(CellExecutionError) as failed:
        run_cells(tmp_path, monkeypatch, before, "import vqbeam", "vqbeam.EncodeImages")
    assert failed.value.ename == "ImportError"
    assert "pip install 'pandas<3'" in failed.value.evalue
    assert "\n" not in failed.value.evalue
