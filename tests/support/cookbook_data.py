"""The datasets that docs/cookbook.md names, with a few images each."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.images import encoded, scene
from tests.support.img2dataset_layouts import Download, write_webdataset

COUNT = 20
CAPTIONS = ("a red apple", "a ghost on a black background", "a rocket", "a whale on a blue background")


def write_cookbook_data(folder: Path) -> None:
    images = [encoded(scene(80 + number, 64), "JPEG") for number in range(COUNT)]
    captions = [CAPTIONS[number % len(CAPTIONS)] for number in range(COUNT)]
    _coco(folder / "coco", images, captions)
    rows = [Download(f"{number:09d}", captions[number], images[number]) for number in range(COUNT)]
    write_webdataset(folder / "laion", "00000", [*rows, Download("000000099", "gone", None)])
    (folder / "hub" / "data").mkdir(parents=True)
    cells = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(images)]
    pq.write_table(
        pa.table({"image": cells, "text": captions}), folder / "hub" / "data" / "train-00000-of-00001.parquet"
    )
    (folder / "prompts.csv").write_text("prompt,seed\na red apple,1\na ghost on a black background,2\n")


def _coco(folder: Path, images: list[bytes], captions: list[str]) -> None:
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for number, data in enumerate(images):
        (folder / "val2017" / f"{number:012d}.jpg").write_bytes(data)
    annotations = [
        {"id": 2 * number + again, "image_id": number, "caption": f"{caption} ({again})"}
        for number, caption in enumerate(captions)
        for again in range(2)
    ]
    listed = [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(len(images))]
    told = {"images": listed, "annotations": annotations}
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(told))
