"""Flags: ours, Beam's, and those that neither knows."""

from __future__ import annotations

import argparse

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import beam_flags, flag_values, parsing
from pipelines.command import find
from transforms.errors import UsageError

READ = (
    *("runner", "streaming", "project", "region", "temp_location", "staging_location", "job_name", "flexrs_goal"),
    *("dataflow_service_options", "experiments", "machine_type", "num_workers", "max_num_workers"),
    *("number_of_worker_harness_threads", "sdk_container_image", "setup_file", "extra_packages", "requirements_file"),
    *("job_endpoint", "environment_type", "environment_config", "prism_location", "flink_master"),
    *("flink_job_server_jar", "flink_submit_uber_jar", "spark_master_url", "spark_job_server_jar"),
    *("spark_submit_uber_jar", "job_server_java_launcher", "jar_cache_dir"),
)


@pytest.fixture
def parser() -> parsing.CommandParser:
    parser = parsing.CommandParser("vqbeam try", "Tries flags.", epilog=parsing.EPILOG)
    parser.add_argument("--input", nargs="+", required=True, metavar="PATTERN")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--overwrite", action="store_true")
    return parser


def parse(parser: parsing.CommandParser, line: str, launches: bool = True):
    return parsing.parse(parser, line.split(), launches=launches)


@pytest.mark.parametrize(
    "line",
    [
        "--input a b --batch_size 3",
        "--input a b --batch_size=3",
        "--input a b --batch-size 3",
        "--batch-size=3 --input a b",
    ],
)
def test_our_flags_take_both_spellings_and_both_ways_to_give_a_value(parser, line):
    args, beam_args = parse(parser, line)
    assert (args.input, args.batch_size, beam_args) == (["a", "b"], 3, [])


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("--project p --region=r", ["--project", "p", "--region=r"]),
        ("--temp-location gs://b/t", ["--temp_location", "gs://b/t"]),
        ("--runner DataflowRunner --no_auth --streaming", ["--runner", "DataflowRunner", "--no_auth", "--streaming"]),
        ("--direct_running_mode=multi_threading", ["--direct_running_mode=multi_threading"]),
        ("--resource_hints accelerator=x --experiments=a --experiments b", None),
        ("--setup_file ./setup.py --sdk_container_image img:1 --num_workers 4", None),
        ("--flink_master localhost:1 --spark_version 3 --job_endpoint=embed --environment_type LOOPBACK", None),
        ("--job-server-timeout 5", ["--job_server_timeout", "5"]),
        (
            "--runner=FnApiRunner -- --flag_of_a_job_server=1 word",
            ["--runner=FnApiRunner", "--flag_of_a_job_server=1", "word"],
        ),
    ],
)
def test_flags_of_beam_are_handed_on_with_their_values(parser, given, handed_on):
    args, beam_args = parse(parser, f"--input a {given}")
    assert beam_args == (given.split() if handed_on is None else handed_on)
    assert args.input == ["a"]


def test_flags_of_beam_may_stand_between_ours(parser):
    args, beam_args = parse(parser, "--project p --input a b --region r --overwrite")
    assert (args.input, args.overwrite, beam_args) == (["a", "b"], True, ["--project", "p", "--region", "r"])


@pytest.mark.parametrize(
    ("flag", "suggestion"),
    [
        ("--batchsize", "--batch_size"),
        ("--batch_sise=3", "--batch_size"),
        ("--wrokers", "--workers"),
        ("--Overwrite", "--overwrite"),
        ("--regoin", "--region"),
        ("--temp_locaton", "--temp_location"),
        ("--batch", "--batch_size"),
    ],
)
def test_an_unknown_flag_is_an_error_that_suggests_the_nearest(parser, flag, suggestion):
    with pytest.raises(UsageError, match=f"unknown flag {flag.split('=')[0]}; did you mean {suggestion}\\?"):
        parse(parser, f"--input a {flag} 1")


@pytest.mark.parametrize("flag", ["--strength", "--strenght"])
def test_what_is_not_nearly_a_flag_of_beam_is_not_taken_for_it(parser, flag):
    with pytest.raises(UsageError, match=f"unknown flag {flag}\nSee"):
        parse(parser, f"--input a {flag} 1")


def test_all_unknown_flags_are_named_at_once(parser):
    with pytest.raises(UsageError, match=r"--batchsize.*\n.*--wrokers.*\nSee vqbeam try --help"):
        parse(parser, "--input a --batchsize 3 --wrokers 2")


def test_an_unknown_flag_like_no_other_is_named_without_a_suggestion(parser):
    with pytest.raises(UsageError, match="unknown flag --qqqq\nSee"):
        parse(parser, "--input a --qqqq")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--batch_size 3", "required: --input"),
        ("--input a --batch_size many", "--batch_size: invalid int value: 'many'"),
        ("stray --input a", "unexpected argument 'stray'\nSee"),
        ("photos --batch_size 3", r"unexpected argument 'photos': did you mean --input photos\?"),
        ("--input a --project", "--project needs a value"),
        ("--input a --project --region r", "--project needs a value"),
        ("--input a --streaming=yes", "--streaming"),
        ("--input a --direct_running_mode fast", "--direct_running_mode: invalid choice: 'fast'"),
        ("--input a --direct_num_workers=two", "--direct_num_workers: invalid int value: 'two'"),
        ("--input a --runner no.such.Runner", "--runner no.such.Runner: cannot be imported"),
    ],
)
def test_what_cannot_be_parsed_is_a_usage_error_that_names_the_flag(parser, line, message):
    with pytest.raises(UsageError, match=message):
        parse(parser, line)


def test_commands_that_launch_nothing_refuse_flags_of_beam(parser):
    with pytest.raises(UsageError, match="unknown flag --project"):
        parse(parser, "--input a --project p", launches=False)


def test_the_names_read_from_beams_source_are_those_that_beam_declares():
    names = {name for name in parsing.flag_names(beam_flags.beam_parser()) if name.startswith("--")}
    assert {"--project", "--runner", "--flink_master", "--s3_region_name"} <= names
    names = {name for name in names if not name.startswith("--dask_")}  # there once its runner has been imported
    assert names <= set(parsing.flag_names(beam_flags.declared()))


def flags_of_imported_runners() -> set[str]:
    """What the runners declare that other tests have imported into this process, such as Dask's."""
    own = PipelineOptions.__module__
    found: set[str] = set()
    pending = [kind for kind in PipelineOptions.__subclasses__() if kind.__module__ != own]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if "_add_argparse_args" in vars(kind):
            parser = argparse.ArgumentParser(conflict_handler="resolve")
            kind._add_argparse_args(parser)
            found |= {action.dest for action in parser._actions if action.dest != "help"}
    return found


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--runner=DataflowRunner --project p --region=r --temp_location gs://b/t --no_auth --streaming",
        "--experiments=a,b --experiments c,d=1,e=2=3,4 --dataflow_service_options x=y;z,w",
        "--num_workers 3 --max_num_workers=5 --worker_machine_type n1 --number_of_worker_harness_threads 2",
        "--extra_package a --extra_packages b --setup_file s --requirements_file r --sdk_container_image i",
        "--job_endpoint embed --environment_type PROCESS --environment_config {} --flink_master h:1 --parallelism 4",
        "--flink_submit_uber_jar --spark_master_url spark://h:1 --job_server_jvm_properties=-Da=b --jar_cache_dir c",
        "--no_use_public_ips --direct_num_workers 2 --flexrs_goal COST_OPTIMIZED --job_name n --stray word",
    ],
)
def test_values_read_without_beam_are_those_that_beam_reads(line):
    theirs, _ = beam_flags.beam_parser().parse_known_args(line.split())
    for name in flags_of_imported_runners():
        delattr(theirs, name)
    ours = vars(beam_flags.options(line.split()))
    computed = {name for name, value in vars(theirs).items() if value is not None and ours.get(name) is None}
    assert {name: value for name, value in vars(theirs).items() if name not in computed} == {
        name: value for name, value in ours.items() if name in vars(theirs) and name not in computed
    }
    needed = set(vars(theirs)) & set(READ)
    assert not computed & needed, "these are read before Beam is imported"


def test_whatever_is_read_without_beam_is_declared():
    assert set(READ) <= set(vars(beam_flags.options([])))


def test_no_flag_of_encode_or_decode_hides_one_of_beam_but_dry_run():
    from pipelines import decode, encode

    for module in (encode, decode):
        parser = parsing.parser_of("try", module.COMMAND)
        assert set(parsing.flag_names(parser)) & set(parsing.flag_names(beam_flags.beam_parser())) == {"--dry_run"}


def test_the_help_names_what_is_needed_in_one_line(parser):
    assert parser.format_help().splitlines()[0] == "usage: vqbeam try --input PATTERN [PATTERN ...] [flags]"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (flag_values.share, "'x': expected a number from 0 to 1"),
        (flag_values.cosine, "'x': expected a number from -1 to 1"),
        (flag_values.positive, "'x': expected a whole number, at least 1"),
    ],
)
def test_what_is_no_number_is_told_what_is_expected(kind, message):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{message}$"):
        kind("x")


@pytest.mark.parametrize(
    ("message", "option", "shown"),
    [
        ("no column a; it has b", "batch_size", "--batch_size: no column a; it has b"),
        ("batch_size 0 is not at least 1", "batch_size", "--batch_size 0 is not at least 1"),
        ("2 of 3 rows, more than batch_size 1", None, "2 of 3 rows, more than --batch_size 1"),
        ("give input_format, or batch_size=1", None, "give input_format, or --batch_size=1"),  # has no input_format
        ("pick another input", None, "pick another input"),
        ("--batch_size 0", "batch_size", "--batch_size 0"),
        ("/data/batch_size/a.tar has a column 'batch_size'", None, "/data/batch_size/a.tar has a column 'batch_size'"),
    ],
)
def test_what_the_library_calls_an_option_is_shown_as_a_flag(parser, message, option, shown):
    assert parsing.in_flags(message, parser, option) == shown


@pytest.mark.parametrize(
    ("given", "meant"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("tf32", "tf32")]
)
@pytest.mark.parametrize("name", ["encode", "generate", "evaluate"])
def test_a_short_name_of_a_dtype_will_do(name: str, given: str, meant: str) -> None:
    parser = parsing.parser_of(name, find(name))
    line = ["--input", "a", "--output", "b", *(["--model", "emoji"] if name == "evaluate" else []), "--dtype", given]
    args, _ = parsing.parse(parser, line, launches=True)
    assert args.dtype == meant
