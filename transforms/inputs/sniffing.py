"""Images whose names do not say that they are: told by their first bytes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from transforms import storage
from transforms.inputs.passed_over import NO_ENDING, ODD_ENDING, ending_label

HEAD = 64  # bytes looked at
SNIFFERS = 32  # at once, of a store
SAMPLES = 16  # of a store's files with one ending: if all are images, so are the others
CHUNK = 4096  # files of a store that are asked for before their answers are awaited
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
    from transforms.image_formats import READERS, sniff_format  # imports Pillow, which help texts do not need

    try:
        head = storage.read_bytes(uri, limit=HEAD)
    except FileNotFoundError:
        return False
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") not in BMP_HEADERS:
        return False
    return sniff_format(head) in READERS


class LooksLikeImage(Container[str]):
    """The images among some files of a store, which `uris` gives as often as it is called; a few requests an ending.

    If the first ones of an ending are all images, or none is, the others are taken for the same: one that is not makes
    a rejected row.
    """

    def __init__(self, uris: Callable[[], Iterable[str]]) -> None:
        self._endings: set[str] = set()  # all of whose files are taken for images
        self._found: set[str] = set()
        first: dict[str, list[str]] = {}
        for uri in uris():
            same = first.setdefault(ending_label(uri), [])
            if len(same) < SAMPLES:
                same.append(uri)
        with ThreadPoolExecutor(SNIFFERS) as pool:
            looks = {ending: list(pool.map(is_image, same)) for ending, same in first.items()}
            self._endings = {ending for ending, found in looks.items() if all(found)}
            mixed = {ending for ending, found in looks.items() if any(found)} - self._endings
            rest = (uri for uri in uris() if ending_label(uri) in mixed) if mixed else iter(())
            while chunk := list(islice(rest, CHUNK)):
                self._found.update(uri for uri, image in zip(chunk, pool.map(is_image, chunk), strict=True) if image)

    def __contains__(self, uri: object) -> bool:
        return uri in self._found or ending_label(str(uri)) in self._endings
