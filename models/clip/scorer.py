"""How well images fit their captions: the cosine of a CLIP model, at one fixed batch shape, on one device.

The network is transformers' CLIPModel (Radford et al. 2021).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from models.clip.checkpoint import ClipCheckpoint
from models.clip.pixels import ClipPixels, read_clip_pixels
from models.clip.text import ClipText, cleaned
from models.devices import resolve_device, set_torch_state
from models.errors import CheckpointError
from models.weights.tokenizer_files import read_tokenizer, tokenizer_files

TEXT_ROWS = 8  # at once: a batch of images often has few prompts, and every text is computed at full length
LEGACY_EOS = 2  # of configurations older than transformers 4.30, not the tokenizer's: see `open_clip_texts`


class ClipTexts:
    """A tokenizer at one length. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.length = length
        self._tokenizer = tokenizer
        normalizer = tokenizer.normalizer
        self.lower_case = normalizer is not None and normalizer.normalize_str("A") == "a"
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)  # the marks stay: it is the text between them that is cut
        self._tokenizer.enable_padding(length=length, pad_id=self._tokenizer.encode("").ids[-1])

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [N, length]: the raw texts between the tokenizer's marks, padded with the last mark.

        The padding comes after the position that is pooled, where causal attention does not look. Characters that UTF-8
        cannot hold are replaced.
        """
        encoded = self._tokenizer.encode_batch([text.encode("utf-8", "replace").decode("utf-8") for text in texts])
        return np.array([each.ids for each in encoded], np.int64).reshape(len(texts), self.length)


class ClipScorer:
    """A CLIP on a device, in float32. `preprocess` and `scores` may be called from several threads.

    Each call is padded to constant shapes, so a score does not depend on the pair's neighbours. `threads` is the
    number of threads within an operation on a CPU, by default what torch has now; torch rounds by it. `clip_text`
    "clean" has the texts cleaned as open_clip does (`models/clip/text.py`), "raw" takes them as they are. Raises
    `CheckpointError` for files that are missing, broken or do not fit together, `ConfigError` for a missing device.
    """

    def __init__(
        self,
        checkpoint: ClipCheckpoint,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        threads: int | None = None,
        clip_text: ClipText = "raw",
    ) -> None:
        self._clean = clip_text == "clean"
        self.preprocess, self._texts = read_clip_parts(checkpoint)
        self.name = checkpoint.name
        self.device = torch.device(resolve_device(device))
        self.batch_size = batch_size
        self.threads = threads or torch.get_num_threads()
        self._model = checkpoint.load().to(self.device)
        self._side = checkpoint.config.vision_config.image_size
        self._path = checkpoint.path
        self._lock = threading.Lock()

    def scores(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """The cosine of each pair: images float32 [N, 3, h, w] as `preprocess` makes them, N texts -> float32 [N].

        Texts are cut at the model's length; equal ones are computed once. Raises `ValueError`
        if the arguments do not fit together, `CheckpointError` if the weights give NaN or infinity.
        """
        expected = (len(texts), 3, self._side, self._side)
        if images.shape != expected or images.dtype != np.float32:
            raise ValueError(
                f"expected images float32 {list(expected)} for {len(texts)} texts, got {images.dtype} "
                f"{list(images.shape)}"
            )
        if not texts:
            return np.zeros(0, dtype=np.float32)
        distinct = list(dict.fromkeys(texts))
        number = {text: n for n, text in enumerate(distinct)}
        if self._clean:
            distinct = [cleaned(text, self._texts.lower_case) for text in distinct]
        with self._lock, torch.inference_mode():
            set_torch_state(self.device, self.threads)
            words = self._embed_texts(distinct)[[number[text] for text in texts]]
            parts = [
                self._cosines(images[start : start + self.batch_size], words[start : start + self.batch_size])
                for start in range(0, len(images), self.batch_size)
            ]
        scores = np.concatenate(parts)
        if not np.isfinite(scores).all():
            raise CheckpointError(f"{self._path}: the weights give scores that are no numbers; copy them again")
        return scores

    def vectors(self, images: np.ndarray) -> np.ndarray:
        """Unit vectors float32 [N, D] of at most `batch_size` images as for `scores`. Raises as `scores` does."""
        expected = (3, self._side, self._side)
        if images.shape[1:] != expected or images.dtype != np.float32 or len(images) > self.batch_size:
            wanted = f"at most {self.batch_size} images float32 {list(expected)}"
            raise ValueError(f"expected {wanted}, got {images.dtype} {list(images.shape)}")
        with self._lock, torch.inference_mode():
            set_torch_state(self.device, self.threads)
            found = self._embed_images(images)[: len(images)].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise CheckpointError(f"{self._path}: the weights give vectors that are no numbers; copy them again")
        return found

    def _embed_images(self, images: np.ndarray) -> Tensor:
        """Unit vectors [batch_size, projection] on the device; those after the images are of blank ones."""
        pixels = torch.zeros((self.batch_size, *images.shape[1:]))
        pixels[: len(images)] = torch.from_numpy(np.require(images, requirements=("C", "W")))
        pooled = self._model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        return F.normalize(self._model.visual_projection(pooled), dim=-1)

    def _cosines(self, images: np.ndarray, words: Tensor) -> np.ndarray:
        embedded = self._embed_images(images)
        padded = F.pad(words, (0, 0, 0, self.batch_size - len(words)))
        return (embedded * padded).sum(-1)[: len(images)].float().cpu().numpy()

    def _embed_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors [N, projection] on the device."""
        ids = torch.from_numpy(self._texts.encode(texts))
        blank = -len(ids) % TEXT_ROWS
        ids = torch.cat([ids, ids[:1].expand(blank, -1)]).to(self.device)
        parts = [
            F.normalize(self._model.text_projection(self._model.text_model(input_ids=part).pooler_output), dim=-1)
            for part in ids.split(TEXT_ROWS)
        ]
        return torch.cat(parts)[: len(texts)]


def read_clip_parts(checkpoint: ClipCheckpoint) -> tuple[ClipPixels, ClipTexts]:
    """The preprocessing and the tokenizer beside the weights. Raises `CheckpointError` if they do not fit."""
    text, vision = checkpoint.config.text_config, checkpoint.config.vision_config
    texts = open_clip_texts(
        checkpoint.path,
        length=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        eos_token_id=text.eos_token_id,
    )
    return read_clip_pixels(checkpoint.path, vision.image_size), texts


def open_clip_texts(folder: Path, *, length: int, vocabulary: int, eos_token_id: int) -> ClipTexts:
    """The tokenizer in a folder, for a model of `length` positions and `vocabulary` pieces that pools at an EOS.

    Old configurations have an `eos_token_id` of 2, which is not the tokenizer's; transformers then pools at the highest
    id. Raises `CheckpointError` if files are missing or belong to another model.
    """
    tokenizer = read_tokenizer(folder, tokenizer_files(folder), _from_parts)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest}, the model a vocabulary of {vocabulary}; "
            "copy the tokenizer that the model was trained with"
        )
    ends = tokenizer.encode("").ids[-1:]
    expected = largest if eos_token_id == LEGACY_EOS else eos_token_id
    if ends != [expected]:
        raise CheckpointError(
            f"{folder}: the tokenizer ends a text with {ends[0] if ends else 'no mark'}, the model reads it at token "
            f"{expected} (eos_token_id {eos_token_id}); copy the tokenizer that the model was trained with"
        )
    return ClipTexts(tokenizer, length)


def _from_parts(vocabulary: Path, _: Path) -> Tokenizer:
    """OpenAI's CLIP tokenizer, as transformers builds it from a vocabulary and the merges beside it."""
    from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast.from_pretrained(vocabulary.parent, local_files_only=True).backend_tokenizer
