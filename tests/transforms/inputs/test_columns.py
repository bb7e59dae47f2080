"""Which column plays which part: by the usual names, by flags, and what clashes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from transforms.errors import UsageError
from transforms.inputs.columns import table_schema
from transforms.inputs.request import InputRequest, InputSchema
from transforms.work import decode, encode, generate

BYTES, TEXT, LIST, INT = pa.binary(), pa.string(), pa.list_(pa.string()), pa.int64()
WRITTEN = {"images": encode.WRITTEN, "codes": decode.WRITTEN, "prompts": generate.WRITTEN}


def resolve(columns: dict[str, Any], /, **request: Any) -> InputSchema:
    asked = InputRequest(("t.parquet",), written=WRITTEN[request.get("kind", "images")], **request)
    return table_schema(asked, pa.schema(list(columns.items())), "t.parquet")


@pytest.mark.parametrize(
    ("columns", "image", "caption", "key"),
    [
        ({"image": BYTES, "caption": TEXT, "key": TEXT}, "image", "caption", "key"),
        ({"jpg": BYTES, "txt": TEXT, "caption": TEXT, "url": TEXT, "key": TEXT}, "jpg", "caption", "key"),
        ({"URL": TEXT, "TEXT": TEXT, "SAMPLE_ID": INT}, "URL", "TEXT", "SAMPLE_ID"),
        ({"odd": BYTES, "title": TEXT}, "odd", "title", None),
        ({"image": TEXT, "captions": LIST}, "image", "captions", None),
        ({"file_name": TEXT, "text": INT, "id": pa.float32()}, "file_name", None, "id"),
        ({"image": pa.dictionary(pa.int8(), TEXT)}, "image", None, None),
    ],
)
def test_the_usual_names_are_guessed(columns: dict[str, Any], image: str, caption: str | None, key: str | None) -> None:
    schema = resolve(columns)
    assert (schema.image, schema.caption, schema.key) == (image, caption, key)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"jpg": BYTES, "png": BYTES}, r"jpg and png could each be the image; name one of them\. The col"),
        ({"url": TEXT, "path": TEXT}, r"url and path could each be the image"),
        ({"a": BYTES, "b": BYTES}, r"no column looks like the image.*a \(binary\), b \(binary\)"),
        ({"image": INT}, r"no column looks like the image"),
        ({"image": BYTES, "text": TEXT, "title": TEXT}, r"text and title could each be the caption; name one"),
        ({"image": BYTES, "id": INT, "uid": TEXT}, r"id and uid could each be the key; name one"),
    ],
)
def test_what_is_not_plain_is_wrong_usage_that_lists_the_columns(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(columns)


@pytest.mark.parametrize("request_", [{"rename": (("title", "t"),)}, {"rename": (("n", "m"),), "columns": ()}])
def test_a_new_name_for_a_column_that_does_not_pass_through_is_wrong_usage(request_: dict[str, Any]) -> None:
    name = request_["rename"][0][0]
    with pytest.raises(UsageError, match=f"column {name} of t.parquet does not pass through"):
        resolve({"image": BYTES, "title": TEXT, "n": INT}, **request_)


def test_flags_settle_it() -> None:
    columns = {"jpg": BYTES, "png": BYTES, "text": TEXT, "title": TEXT, "id": INT, "uid": TEXT}
    schema = resolve(columns, image_column="png", caption_column="title", key_column="uid")
    assert (schema.image, schema.caption, schema.key) == ("png", "title", "uid")
    assert schema.passthrough.names == ["jpg", "text", "id"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"image_column": "pic"}, r"t\.parquet has no column pic; it has image \(binary\), n"),
        ({"caption_column": "yes"}, r"column yes of t\.parquet is bool, not a string or a list of strings"),
        ({"key_column": "image"}, r"column image of t\.parquet is binary"),
        ({"columns": ("n", "zz")}, r"t\.parquet has no column zz; it has"),
        ({"rename": (("zz", "y"),)}, r"t\.parquet has no column zz"),
        ({"rename": (("n", "encoding"),)}, r"column n would be written as encoding.*rename it \(n=NAME\)"),
        ({"rename": (("n", "m"),)}, r"written as m, a name that is taken"),
    ],
)
def test_flags_that_do_not_fit_are_wrong_usage(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve({"image": BYTES, "n": INT, "m": INT, "yes": pa.bool_()}, **request_)


@pytest.mark.parametrize("name", ["encoding", "original_width", "original_height"])
def test_a_column_with_a_name_of_the_output_offers_rename(name: str) -> None:
    with pytest.raises(UsageError, match=f"column {name} would be written as {name}.*rename it .{name}=NAME"):
        resolve({"image": BYTES, name: INT})
    schema = resolve({"image": BYTES, name: INT}, rename=((name, "theirs"),))
    assert (schema.passthrough.names, schema.origins) == (["theirs"], (name,))


def test_a_column_that_the_command_writes_anew_passes_through_under_another_name() -> None:
    columns = {"encoding": pa.list_(pa.uint16(), 4), "image_path": TEXT, "n": INT}
    schema = resolve(columns, kind="codes", moved=("image_path", "image"))
    assert (schema.passthrough.names, schema.origins) == (["input_image_path", "n"], ("image_path", "n"))
    renamed = resolve(columns, kind="codes", moved=("image_path",), rename=(("image_path", "theirs"),))
    assert renamed.passthrough.names == ["theirs", "n"]
    again = resolve(columns | {"input_image_path": TEXT}, kind="codes", moved=("image_path",))
    assert again.passthrough.names == ["input_input_image_path", "n", "input_image_path"]


def test_original_sizes_are_kept_where_both_are_integers() -> None:
    sizes = {"original_width": pa.int32(), "original_height": pa.int32()}
    assert resolve({"image": BYTES, **sizes}).passthrough.names == list(sizes)
    with pytest.raises(UsageError, match="original_width would be written"):
        resolve({"image": BYTES, **sizes, "original_height": TEXT, "original_width": TEXT})


def test_columns_are_chosen_in_the_order_given_and_may_keep_a_part() -> None:
    schema = resolve({"url": TEXT, "caption": TEXT, "a": INT, "b": INT}, columns=("b", "url"))
    assert (schema.image, schema.passthrough.names) == ("url", ["b", "url"])
    assert resolve({"image": BYTES, "a": INT}, columns=()).passthrough.names == []


def test_a_status_column_means_img2dataset_only_beside_its_other_columns() -> None:
    theirs = {"jpg": BYTES, "key": TEXT, "status": TEXT, "error_message": TEXT}
    assert resolve(theirs).status == "status"
    assert resolve({"jpg": BYTES, "status": TEXT}).status is None


def test_an_encoding_column_of_tokens_passes_the_name_check_of_decode() -> None:
    tokens = pa.list_(pa.uint16(), 4)
    schema = resolve({"encoding": tokens, "original_width": INT, "status": TEXT}, kind="codes")
    assert (schema.codes, schema.passthrough.names) == ("encoding", ["original_width", "status"])
    with pytest.raises(UsageError, match="encoding and encodings could each be the codes"):
        resolve({"encoding": tokens, "encodings": tokens}, kind="codes")


def test_no_other_column_takes_the_name_under_which_an_option_is_written() -> None:
    columns = {"prompt": TEXT, "Top_K": INT, "n": INT}
    with pytest.raises(UsageError, match="column n would be written as top_k, a name that is taken"):
        resolve(columns, kind="prompts", rename=(("n", "top_k"),))
    renamed = resolve(columns, kind="prompts", rename=(("n", "top_k"), ("Top_K", "theirs")))
    assert (renamed.options, renamed.passthrough.names) == ((), ["theirs", "top_k"])
