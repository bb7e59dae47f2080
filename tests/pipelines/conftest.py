"""Fixtures that several tests of whole jobs share: a folder in a bucket, and small jobs for engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cloud_tables import TABLES
from tests.support.faulty_store import FaultyStore


@pytest.fixture
def folder(cloud_bucket: str, tmp_path: Path) -> str:
    """A new folder of the bucket for each test, with three tables of two rows below `in`."""
    from transforms import storage

    url = f"{cloud_bucket}/{tmp_path.name}"
    for name, data in TABLES.items():
        storage.put_bytes(data, f"{url}/in/{name}")
    return url


@pytest.fixture
def store(cloud_bucket: str) -> Iterator[FaultyStore]:
    """The way to the bucket leads through this store."""
    from tests.support.faulty_ways import faulty_way

    with faulty_way(cloud_bucket) as server:
        yield server


@pytest.fixture(scope="module")
def engine_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four tables of images."""
    from tests.support.small_jobs import dataset

    return dataset(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def engine_tokens(tmp_path_factory: pytest.TempPathFactory, engine_images: Path, tiny_model: Path) -> Path:
    """A folder with the tokens of these images."""
    from tests.support.small_jobs import encode_small

    output = tmp_path_factory.mktemp("tokens") / "out"
    assert encode_small(engine_images, output, tiny_model).code == 0
    return output / "data"


@pytest.fixture(scope="module")
def engine_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file with eight prompts."""
    path = tmp_path_factory.mktemp("prompts") / "a.txt"
    path.write_text("\n".join(f"a red thing {row}" for row in range(8)))
    return path


@pytest.fixture
def engine_job(request: pytest.FixtureRequest) -> Callable[[str], list[object]]:
    """The flags of a small job of a command, in some shards."""
    from tests.support.run_command import SMALL

    get = request.getfixturevalue
    drawn = ["--seed", "3", "--images_per_prompt", "2", "--rows_per_shard", "3"]
    jobs: dict[str, Callable[[], list[object]]] = {
        "encode": lambda: ["--input", get("engine_images"), "--model", get("tiny_model"), "--rows_per_shard", "5"],
        "decode": lambda: ["--input", get("engine_tokens"), "--model", get("tiny_model"), "--rows_per_shard", "8"],
        "vary": lambda: ["--input", get("engine_images"), "--model", get("tiny_model"), "--rows_per_shard", "8"],
        "rank": lambda: ["--input", get("engine_images"), "--clip", get("tiny_clip"), "--rows_per_shard", "8"],
        "generate": lambda: ["--input", get("engine_prompts"), "--model", get("tiny_generator"), *drawn],
    }
    return lambda command: [*jobs[command](), *SMALL]
