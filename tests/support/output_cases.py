"""What `output_bytes.py` runs: every command on every kind of input, as commands that a user could type.

Each case has a folder, in which its steps run one after the other. `HERE/` is that folder, `IN/` the folder of the
inputs, and `WEB/` the same on a web server.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.make_inputs import folder as put
from tests.support.output_inputs import image_table, jpeg, lines, png

JOBS = ("encode", "decode", "generate", "vary", "rank")
SMALL = {"--batch_size": "4", "--threads_per_worker": "1", "--max_error_rate": "1"}  # of jobs unless they are given
ROOTS = re.compile(r"\b(IN|HERE|WEB)/")
LATER = 1_700_000_000  # mtime of what a step replaces an input with


@dataclass(frozen=True)
class Run:
    """A command line without its `vqbeam`, and the exit code that it must have."""

    name: str
    code: int = 0
    small: bool = True

    def argv(self, roots: Mapping[str, str]) -> list[str]:
        """The arguments, with IN/, HERE/ and WEB/ replaced by `roots`."""
        words = shlex.split(ROOTS.sub(lambda found: f"{roots[found[1]]}/", self.name))
        if self.small and words[:1] and words[0] in JOBS:
            for flag, value in SMALL.items():
                words += [] if flag in words else [flag, value]
        return words


@dataclass(frozen=True)
class Change:
    """A change between two commands; `act` takes the folder of the case and that of the inputs."""

    name: str
    act: Callable[[Path, Path], None]


@dataclass(frozen=True)
class Case:
    name: str
    steps: tuple[Run | Change, ...]


def run(*commands: str, code: int = 0, small: bool = True) -> list[Run]:
    return [Run(words, code, small) for words in commands]


def remove(*patterns: str) -> Change:
    def act(folder: Path, inputs: Path) -> None:
        for pattern in patterns:
            found = sorted(folder.glob(pattern))
            assert found, f"{pattern}: nothing to remove in {folder}"
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return Change(f"remove {' '.join(patterns)}", act)


def copy(source: str, target: str) -> Change:
    """Copies from the inputs, with their times."""

    def act(folder: Path, inputs: Path) -> None:
        copier = shutil.copytree if (inputs / source).is_dir() else shutil.copy2
        copier(inputs / source, folder / target)

    return Change(f"copy {source} to {target}", act)


def write(name: str, data: bytes | str) -> Change:
    def act(folder: Path, inputs: Path) -> None:
        put(folder, {name: data})
        os.utime(folder / name, (LATER, LATER))

    return Change(f"write {name}", act)


def case(name: str, *steps: Run | Change | list[Run]) -> Case:
    flat: list[Run | Change] = []
    for step in steps:
        flat += step if isinstance(step, list) else [step]
    return Case(name, tuple(flat))


TABLE = "encode --input IN/table --output tokens --rows_per_shard 5"
LAYOUTS = {"files": "png", "webdataset": "webp", "parquet": "jpeg"}  # with the format that each is tried with


def encode_cases() -> Iterator[Case]:
    yield case(
        "encode with every default",
        run("encode --input IN/sample/emoji-00000.tar --output tokens --limit 20", "status tokens", small=False),
        run("encode --input IN/sample/emoji.parquet --output more --limit 70 --rows_per_shard 40", small=False),
        run("verify tokens", "encode --input IN/table --output other --dry_run"),
        run("encode --input tokens/data --output again", code=2),
    )
    yield case("encode tables", run(TABLE, TABLE, "verify tokens", "status tokens", f"{TABLE} --dry_run"))
    chosen = "--columns n tags made --rename n=number made=date --key_column kind --caption_column key"
    yield case("encode chosen columns", run(f"{TABLE} {chosen}", "encode --input IN/table --output bare --columns"))
    yield case(
        "encode other tables",
        run("encode --input IN/hf/*.parquet --output hf"),
        run("encode --input IN/two_images.parquet --image_column jpg --key_column id --output two"),
        run("encode --input IN/listed.parquet --output listed --caption_column captions"),
        run("encode --input IN/listed.parquet --output required --require_caption --rename text=words"),
        run("encode --input IN/paths.parquet --output paths --require_caption"),
        run("encode --input IN/nested.parquet --output nested", code=2),
    )
    tars = "encode --input IN/tars --rows_per_shard 3"
    yield case(
        "encode tars",
        run(f"{tars} --output tars", f"{tars} --output few --limit 8", "verify few"),
        run("encode --input 'IN/tars/set-{000..001}.tar' IN/packed --output braces --columns n"),
        run("encode --input 'IN/**/*.tgz' --output glob", "encode --input IN/tars/*1.tar --output one --key_column n"),
        run("encode --input IN/packed IN/tars/set-000.tar --output several --rows_per_shard 3 --image_column png"),
    )
    yield case(
        "encode downloads",
        *(run(f"encode --input IN/downloads/{layout} --output {layout}", f"verify {layout}") for layout in LAYOUTS),
        run("encode --input IN/downloads/parquet --input_format parquet --columns url --output named"),
    )
    for resize in ("center_crop", "pad", "squash", "none"):
        yield case(f"encode formats with {resize}", run(f"encode --input IN/formats --output out --resize {resize}"))
    yield case(
        "encode formats with limits",
        run("encode --input IN/formats --output whole --jpeg_scale off"),
        run("encode --input IN/formats --output filtered --min_image_size 12 --max_aspect_ratio 3"),
        run("encode --input IN/formats --output limited --max_image_bytes 5000 --max_image_pixels 4000"),
    )
    yield case(
        "encode folders",
        run("encode --input IN/sidecars --output sidecars", "encode --input IN/described_jsonl --output jsonl"),
        run("encode --input IN/sidecars --output fields --caption_column caption --columns n"),
        run("encode --input IN/described_csv --output csv", "encode --input IN/sidecars/*.jpg --output glob"),
        run("encode --input IN/described_csv --input_format csv --output table"),
    )
    yield case(
        "encode lists",
        *(run(f"encode --input IN/lists/list.{kind} --output {kind}") for kind in ("csv", "tsv", "jsonl")),
        run("encode --input IN/lists/list.csv.gz --output csv_gz --rows_per_shard 4"),
        run("encode --input IN/lists/list.jsonl.gz --output jsonl_gz --uri_schemes file https"),
        run("encode --input IN/lists/list.csv --output cut --rows_per_shard 3 --columns"),
        *(
            run(f"encode --input IN/lists/{name} --output {name}")
            for name in ("broken.csv", "broken.jsonl", "cut.csv.gz")
        ),
    )
    yield case(
        "encode from the web",
        run("encode --input IN/lists/web.csv --output out --uri_schemes http"),
        run("encode --input IN/lists/web.csv --output refused", code=1),
        run("encode --input WEB/tars/set-000.tar --output tars", "encode --input WEB/table/0.parquet --output table"),
    )
    yield case(
        "encode bad input",
        run("encode --input IN/bad_images --output images", "encode --input IN/bad_tars --output tars"),
        run("encode --input IN/bad_images --output strict --require_caption --max_image_bytes 5000"),
        run("encode --input IN/bad_tables --output tables", "status tables", "verify tables"),
        run("encode --input IN/spoilt --output spoilt --max_error_rate 0.05", code=1),
        run("encode --input IN/bad_images/b.jpg --output nothing", code=1),
    )
    yield case(
        "encode with other models",
        run("encode --input IN/table/0.parquet --output flax --model IN/models/vqgan_jax"),
        run("encode --input IN/table/0.parquet --output own --model IN/models/own"),
        run("encode --input IN/table/0.parquet --output taming --model IN/models/taming"),
        run("encode --input IN/table/0.parquet --output range --model IN/models/taming/last.ckpt --pixel_range=0,1"),
        run("encode --input IN/table/0.parquet --output pair --model IN/models/dalle"),
        run("encode --input IN/table/0.parquet --output half --model IN/models/min_dalle", code=2),
    )
    yield case(
        "encode otherwise",
        run("encode --input IN/table --output bfloat16 --dtype bfloat16"),
        run("encode --input IN/table --output one --batch_size 1 --columns"),
        run("encode --input file://IN/table --output file://HERE/url --limit 3", "verify file://HERE/url"),
        run("encode --input IN/table --output threads --direct_running_mode multi_threading --workers 2"),
        run("encode --input IN/table --output hyphens --batch-size 4 --rows-per-shard 7 --temp-dir scratch"),
    )
    yield case("encode in two processes", run(f"{TABLE} --workers 2", "verify tokens"))


def decode_cases() -> Iterator[Case]:
    for layout, kind in LAYOUTS.items():
        words = f"decode --input tokens/data --output out --image_layout {layout} --image_format {kind} --contact_sheet"
        yield case(f"decode to {layout}", run(TABLE, f"{words} --rows_per_shard 8", "verify out", "status out"))
    yield case(
        "decode and use again",
        run("encode --input IN/tars --output tokens"),
        run("decode --input 'tokens/data/*.parquet' --output files --columns n --rename n=number --limit 4"),
        run("decode --input tokens/data --output table --image_layout parquet --dtype bfloat16"),
        run("rank --input table/data --output ranked", "encode --input files/data --output again"),
        run("encode --input table/data --output more", "decode --input more/data --output last --columns n"),
    )
    yield case(
        "decode tokens of others",
        run("decode --input IN/tokens/listed.parquet --output listed --model emoji"),
        run("decode --input IN/tokens/packed.parquet --output packed --model emoji --image_layout parquet"),
        run("decode --input IN/tokens/fixed.parquet --output fixed --model emoji"),
        run("decode --input IN/tokens/fixed.parquet --output code --model emoji --code_column other --columns"),
        run("decode --input IN/tokens/bad.parquet --output bad --model emoji --image_layout webdataset"),
        run("decode --input IN/tokens/listed.parquet --output none", code=2),
        run("decode --input IN/tokens/listed.parquet --output wrong --model IN/models/own", code=1),
    )
    yield case(
        "decode with other models",
        run("encode --input IN/table/0.parquet --output tokens --model IN/models/taming"),
        run("decode --input tokens/data --output out", "decode --input tokens/data --output own --model IN/models/own"),
        run("decode --input tokens/data --output half --model IN/models/min_dalle/vqgan"),
        run("decode --input tokens/data --output other --model emoji", code=2),
        run("decode --input tokens/data --output odd --model emoji --allow_model_mismatch", code=1),
    )
    yield case(
        "decode in two processes",
        run(TABLE, "decode --input tokens/data --output out --rows_per_shard 5 --workers 2"),
    )


PROMPTS = "--prompt 'a red apple' 'a rocket on a blue background' 'a ghost' --images_per_prompt 2"


def generate_cases() -> Iterator[Case]:
    yield case("generate with every default", run("generate --prompt 'a red apple' --output out", small=False))
    for layout, kind in LAYOUTS.items():
        words = f"generate {PROMPTS} --output out --image_layout {layout} --image_format {kind} --contact_sheet"
        yield case(
            f"generate to {layout}", run(f"{words} --rows_per_shard 2 --keep_tokens", "verify out", "status out")
        )
    yield case(
        "generate from files",
        *(run(f"generate --input IN/prompts/p.{kind} --output {kind}") for kind in ("txt", "csv", "tsv", "jsonl")),
        run("generate --input IN/prompts/p.txt.gz --output txt_gz --rows_per_shard 4 --key_from prompt"),
        run("generate --input IN/prompts/p.jsonl.gz --output jsonl_gz --columns note --rename note=remark"),
        run("generate --input IN/prompts/p.parquet --output parquet --limit 3 --image_layout parquet"),
        run("generate --input IN/prompts/p.csv --output named --prompt_column note --key_column seed --columns"),
        run("generate --input IN/prompts/latin.txt --output latin"),
    )
    options = "generate --input IN/prompts/options.parquet"
    yield case(
        "generate with options by row",
        run(f"{options} --output out --image_layout parquet", f"{options} --output seen --columns n top_k --seed 9"),
        run(f"{options} --output few --images_per_prompt 3 --batch_size 3 --rename Seed=mark"),
    )
    yield case(
        "generate the best",
        run(f"generate {PROMPTS} --output best --clip emoji --keep_best 1", "verify best"),
        run(f"generate {PROMPTS} --output all --clip emoji --image_layout webdataset --images_per_prompt 3"),
        run(f"{options} --output rows --clip emoji --keep_best 2 --images_per_prompt 2 --image_layout parquet"),
    )
    yield case(
        "generate otherwise",
        run(
            f"generate {PROMPTS} --output bfloat16 --dtype bfloat16",
            f"generate {PROMPTS} --output int8 --dtype int8 --batch_size 2",
        ),
        run(f"generate {PROMPTS} --output plain --guidance_scale 1 --temperature 0.7 --top_k 0 --top_p 0.8 --seed 5"),
        run(f"generate {PROMPTS} --output one --batch_size 1 --image_format webp"),
    )
    yield case(
        "generate with dalle-mini",
        run(f"generate {PROMPTS} --output pair --model IN/models/dalle", "convert IN/models/dalle own --name mine"),
        run(f"generate {PROMPTS} --output own --model own --keep_tokens --image_layout parquet"),
        run(f"generate {PROMPTS} --output apart --model own/dalle_bart --vqgan IN/models/dalle/vqgan"),
        run("decode --input own/data --output decoded"),
        run(f"generate {PROMPTS} --output none --model own/dalle_bart", code=2),
        run(f"generate {PROMPTS} --output none --model own --vqgan emoji", code=2),
        run("vary --input own/data --output varied --method model --model own --keep_rows 2 --code_column encoding"),
    )
    yield case(
        "generate with min-dalle",
        run(
            "convert IN/models/min_dalle own", "generate --prompt 'a red apple' --output one --model own --batch_size 1"
        ),
        run("generate --prompt 'a red apple' --output again --model IN/models/min_dalle --images_per_prompt 3"),
        run("generate --prompt 'a red apple' --output int8 --model own --dtype int8 --batch_size 1"),
    )
    yield case(
        "generate and use again",
        run(f"generate {PROMPTS} --output out --keep_tokens", "decode --input out/data --output decoded"),
        run(
            "rank --input 'out/data/*.parquet' --output ranked",
            "encode --input out/data --output tokens --columns seed",
        ),
        run("vary --input out/data --output varied --method codes"),
        run("vary --input varied/data --image_column image_path --output twice"),
    )
    yield case(
        "generate in two processes",
        run("generate --input IN/prompts/plain --output out --rows_per_shard 3 --workers 2 --clip emoji"),
    )


def vary_cases() -> Iterator[Case]:
    for method in ("latent", "codes", "model"):
        words = f"vary --method {method} --images_per_input 2"
        yield case(
            f"vary by {method}",
            run(f"{words} --input IN/spoilt --output images --contact_sheet", "verify images", "status images"),
            run("encode --input IN/table/0.parquet --output tokens"),
            run(f"{words} --input tokens/data --output again --strength 0.6 --keep_tokens --image_layout parquet"),
            run(f"{words} --input IN/tars --output whole --strength 1 --limit 3 --image_layout webdataset --seed 4"),
            run(f"{words} --input IN/table/1.parquet --output none --strength 0 --columns n --image_format webp"),
            run(f"{words} --input IN/formats --output formats --resize pad --jpeg_scale off --images_per_input 1"),
        )
    model = "vary --method model --input IN/table/0.parquet"
    yield case(
        "vary otherwise",
        run(f"{model} --output rows --keep_rows 3 --guidance_scale 3 --temperature 0.5 --top_k 20 --top_p 0.9"),
        run(f"{model} --output pair --model IN/models/dalle --strength 0.5 --dtype bfloat16"),
        run(f"{model} --output apart --model IN/models/dalle/dalle_bart --vqgan IN/models/dalle/vqgan --limit 2"),
        run(
            "vary --input IN/tokens/bad.parquet --output bad --model emoji",
            "vary --input IN/bad_images --output images",
        ),
        run("vary --input IN/tokens/listed.parquet --output named --model emoji --code_column encoding --method codes"),
        run("vary --input IN/table --output taming --model IN/models/taming --rows_per_shard 7 --strength 0.2"),
    )


def rank_cases() -> Iterator[Case]:
    yield case(
        "rank",
        run("rank --input IN/sample/emoji-00000.tar --limit 12 --output ranked", "verify ranked", "status ranked"),
        run("rank --input IN/spoilt --output kept --keep_images --rows_per_shard 5"),
        run("encode --input kept/data --output tokens", "rank --input IN/bad_images --output bad"),
        run("rank --input IN/table --output good --min_clip_score 0.2 --columns n --rename n=number"),
        run("rank --input IN/formats --output formats --max_image_pixels 100000"),
        run("rank --input IN/listed.parquet --output listed --caption_column captions --keep_images"),
        run("rank --input IN/table/0.parquet --output none --min_clip_score 1", code=1),
    )


def convert_cases() -> Iterator[Case]:
    yield case(
        "convert VQGANs",
        run("convert IN/models/vqgan_jax jax --name golden", "convert IN/models/taming taming --pixel_range=0,1"),
        run("convert IN/models/min_dalle/vqgan half", "convert jax again --check IN/formats/a.jpg IN/formats/e.png"),
        run("convert IN/models/taming/last.ckpt file", "convert emoji emoji"),
        run(
            "encode --input IN/table/0.parquet --output tokens --model again", "decode --input tokens/data --output out"
        ),
        run("convert IN/models/taming taming", "convert IN/models none", "convert nowhere none", code=2),
    )
    yield case(
        "convert BARTs",
        *(run(f"convert IN/models/options/{name} {name}") for name in ("all", "many", "preln", "rmsnorm", "unstacked")),
        run("convert IN/models/dalle/dalle_bart bart --name bart", "convert IN/models/min_dalle mini"),
        run("convert IN/models/dalle/dalle_bart no --pixel_range=0,1", code=2),
        run("convert emoji bart"),
    )


def resume_cases() -> Iterator[Case]:
    yield case(
        "resume encode",
        run("encode --input IN/spoilt --output tokens --rows_per_shard 3"),
        remove("tokens/_SUCCESS", "tokens/_vqbeam/stats/00001.json", "tokens/data/00001.parquet"),
        remove("tokens/_vqbeam/stats/0000[23].json", "tokens/_vqbeam/errors/00002.*", "tokens/data/00002.parquet"),
        run("status tokens", "encode --input IN/spoilt --output tokens --rows_per_shard 3 --dry_run"),
        run("verify tokens", code=1),
        run("encode --input IN/spoilt --output tokens", "verify tokens"),
        remove("tokens/_vqbeam/stats/*", "tokens/_SUCCESS"),
        run("encode --input IN/spoilt --output tokens", "verify tokens"),
        remove("tokens/_SUCCESS"),
        run("encode --input IN/spoilt --output tokens --workers 2", "status tokens"),
        write("tokens/data/00000.parquet", b"damaged"),
        run("verify tokens", code=1),
    )
    for layout, kind in LAYOUTS.items():
        words = f"decode --input tokens/data --output out --image_layout {layout} --image_format {kind}"
        main = "tars/{}.tar" if layout == "webdataset" else "data/{}.parquet"
        in_files = [remove("out/images/00001/*4*"), write("out/images/00002/of another attempt.png", "left behind")]
        yield case(
            f"resume decode to {layout}",
            run(TABLE, f"{words} --rows_per_shard 5"),
            remove("out/_SUCCESS", "out/_vqbeam/stats/0000[12].json", f"out/{main.format('00001')}"),
            write(f"out/{main.format('.vqbeam-partial-00001')}-abc", "left behind"),
            *(in_files if layout == "files" else []),
            run("verify out", code=1),
            run(words, "verify out", f"{words} --contact_sheet"),
        )
    words = "decode --input tokens/data --output out"
    yield case(
        "resume when pictures are gone",
        run(TABLE, f"{words} --rows_per_shard 5"),
        remove("out/_SUCCESS", "out/_vqbeam/stats/00001.json", "out/images/0000[12]"),
        run(words, "verify out", code=1),
        run(f"{words} --overwrite", "verify out"),
    )
    words = "generate --input IN/prompts/p.jsonl --output out --rows_per_shard 2 --clip emoji"
    words += " --keep_best 1 --images_per_prompt 2"
    yield case(
        "resume generate",
        run(words),
        remove("out/_SUCCESS", "out/_vqbeam/stats/0000[12].json", "out/data/00001.parquet", "out/images/00001"),
        run(words, "verify out"),
        run(f"{words} --seed 3", f"{words} --rows_per_shard 3", f"generate {PROMPTS} --output out", code=2),
    )
    words = "generate --prompt a b c d e --output out --rows_per_shard 2 --image_layout webdataset --keep_tokens"
    yield case(
        "resume generate from the command line",
        run(words),
        remove("out/_SUCCESS", "out/_vqbeam/stats/0000[02].json", "out/tars/00002.tar"),
        run(words, "verify out"),
        run(words.replace(" e ", " f "), code=2),
    )
    words = "vary --input IN/spoilt --output out --rows_per_shard 3 --images_per_input 2 --image_layout parquet"
    yield case(
        "resume vary and rank",
        run(words, "rank --input IN/spoilt --output ranked --rows_per_shard 3 --keep_images"),
        remove("*/_SUCCESS", "*/_vqbeam/stats/0000[12].json", "*/data/00001.parquet"),
        run(words, "verify out", "rank --input IN/spoilt --output ranked --keep_images", "verify ranked"),
        run(f"{words} --strength 0.9", f"{words} --method codes", code=2),
    )
    yield case(
        "resume what the plan knows",
        run("encode --input IN/table --output out --rows_per_shard 5 --dtype bfloat16 --model IN/models/own"),
        remove("out/_SUCCESS", "out/_vqbeam/stats/00002.json", "out/data/00002.parquet"),
        run("encode --input IN/table --output out --model IN/models/vqgan_jax --batch_size 2", "verify out"),
        run("encode --input IN/table --output out --dtype float32 --model IN/models/own", code=2),
    )
    yield case(
        "resume after failing",
        run("encode --input IN/spoilt --output out --max_error_rate 0.1", code=1),
        run("encode --input IN/spoilt --output out --max_error_rate 0.5"),
        run("encode --input IN/spoilt --output out --max_error_rate 0.1", code=1),
    )
    words = "encode --input table --output out --rows_per_shard 5"
    yield case(
        "resume when inputs have changed",
        copy("table", "table"),
        run(words),
        remove("out/_SUCCESS", "out/_vqbeam/stats/*", "out/data/0000[013].parquet", "table/0.parquet"),
        write("table/1.parquet", image_table(5)),
        run(words, code=1),
        run("status out"),
        run("verify out", code=1),
        remove("table"),
        run(words, code=1),
    )


def other_flag_cases() -> Iterator[Case]:
    words = "encode --input table --output out --rows_per_shard 5"
    yield case(
        "extend encode",
        copy("table", "table"),
        run(words, f"{words} --extend"),
        write("table/00.parquet", image_table(200, 7)),
        write("table/1.parquet", image_table(300)),
        run(f"{words} --extend --dry_run", f"{words} --extend", "verify out", f"{words} --extend"),
        write("table/z.parquet", image_table(210, 2)),
        run(words, f"{words} --extend", "status out", "decode --input out/data --output images --rows_per_shard 9"),
        write("table/zz.parquet", image_table(220, 3)),
        run(f"{words} --extend", "decode --input out/data --output images --extend", "verify images"),
    )
    words = "generate --input prompts --output out --key_from prompt --rename key=mark --rows_per_shard 3"
    yield case(
        "extend generate",
        copy("prompts/plain", "prompts"),
        run(words),
        write("prompts/0.jsonl", lines({"prompt": text, "key": "x"} for text in ("a red apple 0", "", "a boat"))),
        run(f"{words} --extend", "verify out", f"{words} --retry_rejected"),
    )
    words = "encode --input folder --output out"
    yield case(
        "extend folders",
        copy("described_csv", "folder"),
        run(words),
        write("folder/more/z.png", png(97)),
        run(f"{words} --extend", "verify out"),
    )
    words = "encode --input lists/list.csv --output out --rows_per_shard 3"
    yield case(
        "retry rejected rows",
        copy("lists", "lists"),
        run(words, f"{words} --retry_rejected", "verify out"),
        write("up.png", png(98)),
        write("lists/img/img.png", png(98)),
        remove("lists/img/2.png"),
        run(f"{words} --retry_rejected"),
        write("lists/img/2.png", png(102)),
        run(f"{words} --retry_rejected", "verify out", "decode --input out/data --output images --rows_per_shard 2"),
        run("decode --input out/data --output images --retry_rejected"),
    )
    words = "encode --input images --output out"
    yield case(
        "retry rejected images",
        copy("bad_images", "images"),
        run(words, f"{words} --retry_rejected"),
        write("images/b.jpg", jpeg(122)),
        run(f"{words} --retry_rejected", code=1),
        run("status out", f"{words} --overwrite", "verify out"),
    )
    yield case(
        "overwrite",
        run(TABLE, f"{TABLE} --overwrite --resize pad", "encode --input IN/tars --output tokens --overwrite"),
        run("decode --input tokens/data --output images", "decode --input tokens/data --output images --overwrite"),
        run("generate --prompt a --output images --overwrite", "rank --input IN/table --output images --overwrite"),
        run("decode --input tokens/data --output tokens --overwrite", code=2),
        run("encode --input IN/none --output tokens --overwrite", code=2),
        write("mine/images/a.png", png(99)),
        run("decode --input tokens/data --output mine --overwrite", "decode --input tokens/data --output mine", code=2),
        run("encode --input mine/images --output mine", "encode --input mine/images --output mine --overwrite"),
    )


REFUSED = """
encode --input IN/none*.tar
encode --input 'IN/tars/set-{000..002}.tar'
encode --input IN/refused/notes.doc
encode --input IN/refused/mixed
encode --input nosuch://bucket/x.tar
encode --input IN/table --image_column nothing
encode --input IN/table --caption_column n
encode --input IN/table --columns n z
encode --input IN/table --rename z=y
encode --input IN/table --rename n=score
encode --input IN/table --rename n
encode --input IN/two_images.parquet
encode --input IN/refused/no_image.parquet
encode --input IN/refused/clash.parquet
encode --input IN/refused/noise.parquet
encode --input IN/refused/twice.csv
encode --input IN/refused/empty.csv
encode --input IN/table --batchsize 4
encode --input IN/table --dtype float32 yes
encode --input IN/table --batch_size 0
encode --input IN/table --resize stretch
encode --input IN/table --max_error_rate 5
encode --input IN/table --max_aspect_ratio 0.5
encode --input IN/table --extend
encode --input IN/table --retry_rejected
encode --input IN/table --overwrite --extend
encode --input IN/table --model nothing
encode --input IN/table --model IN/formats
encode --input IN/table --dtype int8
encode --input IN/table --dtype tf32 --device cuda:99
encode --input IN/table --runner DataflowRunner
encode --input IN/table --runner NoSuchRunner
encode
encod --input IN/table
decode --input IN/tars
decode --input IN/tokens/listed.parquet --code_column caption
decode --input IN/table --model emoji
generate
generate --prompt a --input IN/prompts/p.txt
generate --input IN/prompts/wide.txt
generate --input IN/prompts/p.csv --prompt_column none
generate --input IN/tars
generate --prompt a --keep_best 1
generate --prompt a --clip emoji --keep_best 3
generate --prompt a --clip IN/formats
generate --prompt a --temperature 0
generate --prompt a --seed -1
generate --prompt a --images_per_prompt 0
generate --prompt a --model IN/models/own
generate --prompt a --dtype int8 --device cuda:99
generate --input IN/prompts/p.csv --rename note=clip_score
vary --input IN/table --strength 1.1
vary --input IN/table --keep_rows 2
vary --input IN/table --method model --keep_rows 9
vary --input IN/table --guidance_scale 3
vary --input IN/table --allow_model_mismatch
vary --input IN/tokens/listed.parquet
vary --input IN/tokens/listed.parquet --model emoji --resize pad
vary --input IN/table --model IN/models/min_dalle
rank --input IN/tokens/listed.parquet
rank --input IN/table --min_clip_score 2
rank --input IN/table --columns n --rename n=clip_score
rank --input IN/paths.parquet --clip IN/models/own
"""


def refused_cases() -> Iterator[Case]:
    commands = [f"{words} --output out" for words in REFUSED.strip().splitlines()]
    yield case("refused", run(*commands, code=2))
    yield case(
        "refused by what is there",
        run(TABLE),
        *(
            run(f"{TABLE} {flags}", code=2)
            for flags in (
                *(
                    "--resize pad",
                    "--jpeg_scale off",
                    "--columns",
                    "--limit 5",
                    "--require_caption",
                    "--pixel_range=0,2",
                ),
                *("--caption_column key", "--uri_schemes https", "--min_image_size 8", "--model IN/models/own"),
            )
        ),
        run("encode --input IN/tars --output tokens", "decode --input tokens/data --output tokens", code=2),
        run("verify nothing", "status nothing", "verify", "nothing", "", code=2),
        run("--help", "--version", "help encode", "encode --help", "status --help"),
    )


def all_cases() -> list[Case]:
    groups = (encode_cases, decode_cases, generate_cases, vary_cases, rank_cases, convert_cases, resume_cases)
    return [item for group in (*groups, other_flag_cases, refused_cases) for item in group()]
