from __future__ import annotations

from dataclasses import replace

import pytest

from models.bart.checkpoint import check_pair
from models.bart.config import DalleBartConfig
from models.errors import ConfigError
from models.vqgan.config import VQGANConfig

BART, VQGAN_F16 = DalleBartConfig(), VQGANConfig().spec(name="f16")


@pytest.mark.parametrize(("ids", "codes"), [(16384, 16384), (16391, 16384), (16415, 16384), (1024, 1024), (66, 64)])
def test_a_vocabulary_of_all_codes_and_a_few_spare_ids_is_taken(ids: int, codes: int) -> None:
    check_pair(replace(BART, image_vocab_size=ids, decoder_start_token_id=ids), replace(VQGAN_F16, codebook_size=codes))


@pytest.mark.parametrize(("ids", "codes"), [(16384, 1024), (1024, 16384), (16449, 16384), (64, 32), (16383, 16384)])
def test_a_vocabulary_of_another_codebook_is_refused(ids: int, codes: int) -> None:
    bart = replace(BART, image_vocab_size=ids, decoder_start_token_id=0)
    with pytest.raises(ConfigError, match=f"knows {ids} codes and the VQGAN's codebook has {codes}.*name the VQGAN"):
        check_pair(bart, replace(VQGAN_F16, codebook_size=codes))


@pytest.mark.parametrize("length", [255, 1024])
def test_another_number_of_codes_an_image_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=rf"draws {length} codes an image and the VQGAN paints 16x16 = 256"):
        check_pair(replace(BART, image_length=length), VQGAN_F16)
