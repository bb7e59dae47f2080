"""What a finished job has written survives a power cut: files are synced before their names, these after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.make_inputs import GOOD, image_table
from tests.support.run_command import decode, encode


class Disk:
    """What was synced, in order: contents of files by inode, names by folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = 0
        self.contents: dict[int, list[tuple[int, int]]] = {}  # inode -> steps at which so many bytes were synced
        self.names: dict[int, int] = {}  # inode of a folder -> the last step at which its names were synced
        self.published: dict[str, int] = {}  # path -> the step at which it got its name
        for name in ("fsync", "link", "replace", "rename"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, real: Any) -> Any:
        def noted(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            self.step += 1
            if name == "fsync":
                status = os.fstat(args[0])
                if Path(f"/proc/self/fd/{args[0]}").is_dir():
                    self.names[status.st_ino] = self.step
                else:
                    self.contents.setdefault(status.st_ino, []).append((self.step, status.st_size))
            else:
                self.published[os.path.abspath(os.fspath(args[1]))] = self.step
            return result

        return noted

    def lost(self, folder: Path) -> list[str]:
        """Files that a power cut could have emptied or taken away."""
        found = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            status, named = path.stat(), self.published.get(str(path), 0)
            whole = any(step < named and size == status.st_size for step, size in self.contents.get(status.st_ino, []))
            if not whole or self.names.get(path.parent.stat().st_ino, 0) < named:
                found.append(str(path.relative_to(folder)))
        return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux's /proc what a descriptor is")
def test_what_a_job_has_written_survives(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.parquet"
    source.write_bytes(image_table([GOOD, b"no image", GOOD], key=["a", "b", "c"]))
    disk = Disk(monkeypatch)
    assert encode(source, tmp_path / "tokens", tiny_model).code == 0
    tokens = f"{tmp_path}/tokens/data/*.parquet"
    assert decode(tokens, tmp_path / "images", tiny_model).code == 0
    assert decode(tokens, tmp_path / "tars", tiny_model, "--image_layout", "webdataset").code == 0
    for folder, table in (("tokens", "data/*.parquet"), ("images", "images/*/*.png"), ("tars", "tars/*.tar")):
        assert list((tmp_path / folder).glob(table))
        assert disk.lost(tmp_path / folder) == []
