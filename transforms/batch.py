"""The Arrow batch that streams inside a shard: the names of its columns, its arrays, and the rule for captions.

Every module from the readers to the writers imports the names from here. N is the number of rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

# Columns of every batch.
KEY = "key"  # string, never null
CAPTION = "caption"  # string or list<string>
URI = "uri"  # string: where the row comes from, for messages
ROW = "row"  # int64: the row's number in its shard, counted over all rows read
PASS_PREFIX = "pass:"  # begins the name of a column that passes through: data may have a column `row`, too

# Columns that a reader adds and preparation takes away.
IMAGE = "image"  # large_binary: the file, null where `IMAGE_URI` says where it is
IMAGE_URI = "image_uri"  # string
CODES = "codes"  # list<int64> as read; int32 [T] once prepared
ERROR_CODE = "error_code"  # string, null for good rows; so are the next two
ERROR_MESSAGE = "error_message"
FILTERED = "filtered"
READER_COLUMNS = (IMAGE, IMAGE_URI, CODES, ERROR_CODE, ERROR_MESSAGE, FILTERED)

# Columns between preparation and the model.
PIXELS = "pixels"  # uint8 [H*W*3] a row: square RGB images
CLIP_PIXELS = "clip_pixels"  # float32 [3*H*W] a row: square, as a CLIP's own preprocessing makes them
RECONSTRUCTION = "reconstruction"  # uint8 [H*W*3] a row: what a tokenizer makes of its own codes of `PIXELS`
PROMPT = "prompt"  # string
INPUT_IDS = "input_ids"  # int32 [L] a row: the pieces of a prompt
ATTENTION_MASK = "attention_mask"  # int32 [L] a row
IMAGES = "images"  # int32: how many images are drawn of the row
SLOT = "slot"  # int32: the slot of the generator's batch that the image is drawn in

# Columns of output tables.
ENCODING = "encoding"  # codes [T] as DALL·E mini's training code reads them
GRID_H, GRID_W = "grid_h", "grid_w"  # int32: rows and columns of codes, where these differ by row
SAMPLE = "sample"  # int32: the number of an image among those of its row, from 0
SEED = "seed"  # int64
VIEW = "view"  # int32: the number of a view among those of its image, from 0
CROP = "crop"  # what a view shows of its image; before views are rows of their own, a list of these
IMAGE_PATH = "image_path"  # string: the path of an image file, relative to the output folder
WIDTH, HEIGHT = "width", "height"  # int32, of a written image
ORIGINAL_WIDTH, ORIGINAL_HEIGHT = "original_width", "original_height"  # int32, of an image as read and displayed
CLIP_SCORE = "clip_score"  # float32: the cosine of image and caption
RANK = "rank"  # int32: the image's position among those of its prompt, 1 for the best
PSNR = "psnr"  # float64, in dB; null if the reconstruction is exact
SSIM = "ssim"  # float64; null for images smaller than its window
CODES_USED = "codes_used"  # int32: how many different codes an image has
PERPLEXITY = "perplexity"  # float64: of its codes
CLIP_COSINE = "clip_cosine"  # float32: of an image and its reconstruction
CLIP_ORIGINAL, CLIP_RECONSTRUCTION = "clip_original", "clip_reconstruction"  # float32 [D]: unit vectors of a CLIP

IMAGE_FILE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])  # in 64 bits: a batch may pass 2 GiB
IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # as Hugging Face datasets stores images
CROP_TYPE = pa.struct(  # in pixels of the image as displayed, fractions of pixels where it was resized before
    [*((name, pa.float64()) for name in ("left", "top", "width", "height")), ("flipped", pa.bool_())]
)
OUTPUT_TYPES = {  # of the columns whose type is the same in every job
    **dict.fromkeys((KEY, PROMPT, IMAGE_PATH), pa.string()),
    **dict.fromkeys((SAMPLE, RANK, VIEW, GRID_H, GRID_W, WIDTH, HEIGHT, ORIGINAL_WIDTH, ORIGINAL_HEIGHT), pa.int32()),
    SEED: pa.int64(),
    **dict.fromkeys((CLIP_SCORE, CLIP_COSINE), pa.float32()),
    **dict.fromkeys((PSNR, SSIM, PERPLEXITY), pa.float64()),
    CODES_USED: pa.int32(),
    IMAGE: IMAGE_STRUCT,
    CROP: CROP_TYPE,
}
LONGEST_CAPTION = 1 << 16  # characters that are tokenised: a CLIP reads some dozens of words


def code_list(codebook_size: int, codes_per_image: int) -> pa.DataType:
    """The type of a column of codes."""
    return pa.list_(pa.from_numpy_dtype(code_dtype(codebook_size)), codes_per_image)


def code_dtype(codebook_size: int) -> np.dtype:
    """The narrowest type that DALL·E mini's tools read and that holds every id."""
    return np.dtype(np.uint16 if codebook_size <= 1 << 16 else np.int32)


def fixed_lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """[N, ...] -> N fixed-size lists, without a copy."""
    flat = np.ascontiguousarray(rows).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), math.prod(rows.shape[1:]))


def to_rows(column: pa.FixedSizeListArray) -> np.ndarray:
    """N fixed-size lists -> [N, size], without a copy."""
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def to_images(column: pa.FixedSizeListArray) -> np.ndarray:
    """A `pixels` column -> uint8 [N, H, W, 3]."""
    rows = to_rows(column)
    side = round((rows.shape[1] // 3) ** 0.5)
    return rows.reshape(len(rows), side, side, 3)


def varying_lists(rows: np.ndarray, kind: type[pa.ListType] | type[pa.LargeListType] = pa.ListType) -> pa.Array:
    """[N, ...] -> N lists of variable length, which go into a column with others, without a copy."""
    lists = pa.LargeListArray if kind is pa.LargeListType else pa.ListArray
    size = math.prod(rows.shape[1:])
    offsets = np.arange(len(rows) + 1, dtype=np.int64 if kind is pa.LargeListType else np.int32) * size
    return lists.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).reshape(-1)))


def images_of(batch: pa.RecordBatch) -> Sequence[np.ndarray]:
    """The images uint8 [H, W, 3] in `pixels`: squares, or lists of variable length with `height` and `width`."""
    column = batch.column(PIXELS)
    if isinstance(column, pa.FixedSizeListArray):
        return list(to_images(column))
    sizes = zip(batch.column(HEIGHT).to_pylist(), batch.column(WIDTH).to_pylist(), strict=True)
    return [cell.values.to_numpy().reshape(*size, 3) for cell, size in zip(column, sizes, strict=True)]


def joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one batch."""
    batch: pa.RecordBatch = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    return batch


def first_caption(cell: str | list[str | None] | None) -> str:
    """The caption of a row: of several the first that is not blank; "" if every one is blank or missing."""
    captions = cell if isinstance(cell, list) else [cell]
    return next((caption for caption in captions if caption and caption.strip()), "")


def missing_captions(batch: pa.RecordBatch) -> np.ndarray:
    """bool [N]: the rows without a caption."""
    return np.array([not first_caption(cell) for cell in batch.column(CAPTION).to_pylist()], bool)
