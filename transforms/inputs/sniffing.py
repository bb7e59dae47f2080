"""Images whose names do not say that they are: told by their first bytes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from transforms import storage
from transforms.inputs.passed_over import NO_ENDING, ODD_ENDING, ending_label

HEAD = 64  # bytes looked at
SNIFFERS = 32  # at once, of a store
SAMPLES = 16  # of a store's files with one ending: if all are images, so are the others
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes; two letters alone begin texts, too

# Never images that are read. Raw files of cameras and slides of microscopes begin like TIFF, and hold a preview first.
NEVER_IMAGES = """
    .txt .caption .json .jsonl .ndjson .csv .tsv .parquet .arrow .feather .xml .xmp .yaml .yml .toml .md .rst .html .htm
    .pdf .doc .docx .ini .log .py .js .css .sh .db .sqlite .lock .url .npy .npz .pt .pth .pkl .ckpt .safetensors
    .msgpack .h5 .cls .index .tar .gz .tgz .bz2 .xz .zst .zip .7z .rar .mp4 .mov .avi .mkv .webm .m4v .mp3 .wav .flac
    .ogg .svg
    .psd .ai .eps .aae .thm .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .rwl .pef .raf .3fr .fff .erf .kdc
    .dcr .mos .mrw .iiq .srw .x3f .raw .svs .ndpi .scn .lsm .vms .tf8 .btf
"""
OTHERS = frozenset(NEVER_IMAGES.split())
# Beginnings of endings that suggest an image.
OPEN = (".jp", ".jf", ".jif", ".png", ".pjp", ".web", ".gif", ".bmp", ".dib", ".tif", ".avif", ".hei", ".hif", ".jx",
        ".img", ".image", ".pic", ".photo", ".orig", ".large", ".bin", ".dat")  # fmt: skip


def may_be_image(uri: str) -> bool:
    """Whether the first bytes of a file are worth a look, though it has no ending of an image."""
    return ending_label(uri) not in OTHERS


def leaves_open(uri: str) -> bool:
    """Whether the ending of a file suggests an image, or nothing: then a request to a store is worth it, too."""
    label = ending_label(uri)
    return label in (NO_ENDING, ODD_ENDING) or label.startswith(OPEN)


def is_image(uri: str) -> bool:
    """Whether the first bytes are those of an image that is read. Raises `StorageFailed`."""
    from transforms.images import READERS, sniff_format  # imports Pillow, which help texts do not need

    try:
        head = storage.read_bytes(uri, limit=HEAD)
    except FileNotFoundError:
        return False
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") not in BMP_HEADERS:
        return False
    return sniff_format(head) in READERS


def images_among(uris: Iterable[str]) -> set[str]:
    """The images among some files of a store, at the cost of a few requests for each ending.

    If the first ones of an ending are all images, or none is, the others are taken for the same: one that is not makes
    a rejected row.
    """
    endings: dict[str, list[str]] = {}
    for uri in uris:
        endings.setdefault(ending_label(uri), []).append(uri)
    found: set[str] = set()
    with ThreadPoolExecutor(SNIFFERS) as pool:
        for same in endings.values():
            first = list(pool.map(is_image, same[:SAMPLES]))
            if all(first):
                found.update(same)
            elif any(first):
                found.update(uri for uri, image in zip(same, pool.map(is_image, same), strict=True) if image)
    return found
