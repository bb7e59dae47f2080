"""Every command and every snippet of the README, run in order in one folder, as a newcomer would.

Blocks marked `bash` go through the command's entry point, with the files that they speak of at hand; the one for
Dataflow is planned against a storage emulator and not launched. `make` targets are CI's.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipelines.__main__ import main
from tests.support.paths import GOLDEN, ROOT, SAMPLE

TAR = SAMPLE / "emoji-00000.tar"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


def first_picture() -> bytes:
    with tarfile.open(TAR) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and member.name.endswith(".png"):
                return content.read()
    raise AssertionError("no picture in the sample")


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(GOLDEN / "vqgan_small", tmp_path / "vqgan_imagenet_f16_16384")
    for name in ("photo.png", "a.png"):
        (tmp_path / name).write_bytes(first_picture())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_readme_does_what_it_says(newcomer: Path, gcs_bucket: str) -> None:
    fs = fsspec.filesystem("gs", token="anon")
    fs.pipe_file(f"{gcs_bucket}/pairs/00000.tar", TAR.read_bytes())
    found = commands()
    assert len(found) >= 8
    for command in found:
        assert command[0] == "vqbeam", command
        argv = [word.replace("gs://my-bucket", gcs_bucket) for word in command[1:]]
        if "DataflowRunner" in argv:
            argv.append("--dry_run")
        assert main(argv) == 0, command
    assert (newcomer / "pictures" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_every_snippet_of_the_readme_runs(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--input", "examples/emoji/sample/*.tar", "--output", "tokens", "--limit", "20"]) == 0
    snippets = blocks("python")
    assert len(snippets) == 3
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"README snippet {number}", "exec"), {"io": io})
    printed = capsys.readouterr().out
    assert "encoding" in printed
    assert "a [" in printed
    assert all(f"r1 {sample} " in printed for sample in range(4))
