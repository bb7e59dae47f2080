"""The private parts of other packages that vqbeam uses, which may change without notice: see docs/architecture.md.

Each test fails with a sentence that names the missing part, the version seen and the module that needs it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import logging
import platform
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import urllib3
from torch import nn

from pipelines import engines


def gone(package: str, what: str, user: str) -> str:
    seen = platform.python_version() if package == "Python" else version(package)
    return f"{package} {seen} has no {what} as {user} needs it"


def source(package: str, module: str) -> str:
    """The text of a module, which need not be importable here."""
    found = importlib.util.find_spec(module)
    assert found is not None, gone(package, f"module {module}", "vqbeam")
    assert found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")


# argparse


def test_argparse_keeps_its_flags_by_name() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    action = parser.add_argument("--flag")
    kept = getattr(parser, "_option_string_actions", None)
    assert kept == {"--flag": action}, gone("Python", "ArgumentParser._option_string_actions", "pipelines/parsing.py")


def test_argparse_tells_negative_numbers_from_flags_by_a_pattern() -> None:
    matcher = getattr(argparse.ArgumentParser(), "_negative_number_matcher", None)
    message = gone("Python", "ArgumentParser._negative_number_matcher", "pipelines/parsing.py")
    assert matcher is not None, message
    assert matcher.match("-1"), message


def test_argparse_formats_a_usage_line_of_chosen_flags() -> None:
    parser = argparse.ArgumentParser(prog="tool")
    needed = parser.add_argument("--needed", required=True)
    parser.add_argument("--other")
    message = gone("Python", "_get_formatter, _actions or add_usage of a parser", "pipelines/parsing.py")
    assert needed in getattr(parser, "_actions", ()), message
    assert hasattr(parser, "_get_formatter"), message
    formatter = parser._get_formatter()
    formatter.add_usage(None, [needed], [], prefix="")
    assert formatter.format_help().strip() == "tool --needed NEEDED", message


# Apache Beam


def test_beam_parses_flags_with_a_parser_of_its_own() -> None:
    from apache_beam.options import pipeline_options

    needed = "_BeamArgumentParser or PipelineOptions._add_argparse_args"
    message = gone("apache-beam", needed, "pipelines/beam_flags.py")
    assert issubclass(getattr(pipeline_options, "_BeamArgumentParser", object), argparse.ArgumentParser), message
    assert callable(getattr(pipeline_options.StandardOptions, "_add_argparse_args", None)), message


def test_beam_spells_its_flags_in_one_file() -> None:
    text = source("apache-beam", "apache_beam.options.pipeline_options")
    for flag in ("--runner", "--direct_num_workers", "--temp_location", "--sdk_container_image"):
        assert f"'{flag}'" in text or f'"{flag}"' in text, gone("apache-beam", f"{flag} in its source", "--help")


def test_beam_has_the_runner_of_local_runs() -> None:
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    runner = getattr(fn_runner, "FnApiRunner", None)
    assert runner is not None, gone("apache-beam", "fn_runner.FnApiRunner", "pipelines/launch.py")
    message = gone("apache-beam", "FnApiRunner(default_environment=, provision_info=)", "pipelines/launch.py")
    assert {"default_environment", "provision_info"} <= inspect.signature(runner).parameters.keys(), message
    assert hasattr(fn_runner, "ExtendedProvisionInfo"), gone(
        "apache-beam", "fn_runner.ExtendedProvisionInfo", "pipelines/launch.py"
    )


def test_beam_keeps_the_worker_command_where_no_running_mode_is_set() -> None:
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    text = inspect.getsource(FnApiRunner.run_pipeline)
    message = gone("apache-beam", "worker command kept without direct_running_mode", "pipelines/launch.py")
    assert "running_mode == 'multi_processing'" in text, message
    assert "running_mode == 'multi_threading'" in text, message


def test_beam_writes_options_for_workers() -> None:
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    message = gone("apache-beam", "JobServiceHandle.encode_pipeline_options", "pipelines/launch.py")
    assert hasattr(JobServiceHandle, "encode_pipeline_options"), message
    encoded = JobServiceHandle.encode_pipeline_options({"project": "p"})
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    assert "beam:option:project:v1" in info.pipeline_options.fields, message


def test_beam_starts_workers_with_a_command() -> None:
    from apache_beam.transforms import environments

    environment = getattr(environments, "SubprocessSDKEnvironment", None)
    assert hasattr(environment, "from_command_string"), gone(
        "apache-beam", "SubprocessSDKEnvironment.from_command_string", "pipelines/launch.py"
    )


def test_the_portable_runner_shows_its_job_servers_and_results() -> None:
    from apache_beam.runners.portability.portable_runner import PipelineResult, PortableRunner
    from apache_beam.runners.portability.prism_runner import PrismJobServer
    from apache_beam.utils.subprocess_server import JavaJarServer, SubprocessServer

    result = PipelineResult(None, "job", None, None)
    assert {"_job_id", "_metrics"} <= vars(result).keys(), gone(
        "apache-beam", "PipelineResult", "pipelines/elsewhere.py"
    )
    for kind, names in (
        (PortableRunner, ("default_job_server",)),
        (PrismJobServer, ("BIN_CACHE",)),
        (JavaJarServer, ("path_to_maven_jar", "JAR_CACHE")),
    ):
        for name in names:
            assert hasattr(kind, name), gone("apache-beam", f"{kind.__name__}.{name}", "pipelines/engines.py")
    kept = Path(engines.KEPT).expanduser()
    assert (Path(PrismJobServer.BIN_CACHE), Path(JavaJarServer.JAR_CACHE)) == (kept / "prism" / "bin", kept / "jars")
    name = engines.JARS["flinkrunner"][1].format(version="1.19")
    known = f"{engines.MAVEN}/{name}/2.77.0/{name}-2.77.0.jar"
    assert JavaJarServer.path_to_maven_jar(name, JavaJarServer.BEAM_GROUP_ID, "2.77.0") == known
    cached = getattr(SubprocessServer, "_cache", None)
    assert hasattr(cached, "_cache"), gone("apache-beam", "SubprocessServer._cache", "pipelines/elsewhere.py")


def test_beam_runs_a_worker_in_this_process() -> None:
    from apache_beam.runners.worker import sdk_worker_main

    message = gone("apache-beam", "sdk_worker_main.main(argv)", "pipelines/local_worker.py")
    assert list(inspect.signature(getattr(sdk_worker_main, "main", int)).parameters) == ["unused_argv"], message
    assert "LOGGING_API_SERVICE_DESCRIPTOR" in inspect.getsource(sdk_worker_main), gone(
        "apache-beam", "variable LOGGING_API_SERVICE_DESCRIPTOR", "pipelines/local_worker.py"
    )


@pytest.mark.parametrize(
    ("module", "thread"),
    [
        ("apache_beam.runners.portability.fn_api_runner.worker_handlers", "run_worker"),
        ("apache_beam.runners.portability.fn_api_runner.worker_handlers", "beam_control_read"),
        ("apache_beam.runners.worker.data_plane", "read_grpc_client_inputs"),
    ],
)
def test_beam_names_the_threads_that_talk_to_workers(module: str, thread: str) -> None:
    from pipelines.launch import WORKER_THREADS

    assert thread in WORKER_THREADS
    assert f"'{thread}'" in source("apache-beam", module), gone(
        "apache-beam", f"thread {thread}", "pipelines/launch.py, to keep it from printing tracebacks,"
    )


def test_beam_logs_what_it_says_of_workers_under_the_name_of_the_module() -> None:
    from apache_beam.runners.worker import data_plane

    message = gone("apache-beam", "logger of its data plane", "pipelines/launch.py")
    assert getattr(data_plane, "_LOGGER", None) is logging.getLogger("apache_beam.runners.worker.data_plane"), message


def test_beam_makes_a_runner_of_a_name() -> None:
    from apache_beam.runners import runner

    message = gone("apache-beam", "runner.create_runner", "pipelines/launch.py")
    assert type(getattr(runner, "create_runner", lambda name: None)("FnApiRunner")).__name__ == "FnApiRunner", message


# tarfile


def test_tarfile_has_an_exception_for_each_kind_of_end() -> None:
    for name in ("EOFHeaderError", "EmptyHeaderError"):
        kind = getattr(tarfile, name, None)
        message = gone("Python", f"tarfile.{name}", "transforms/inputs/formats/tar.py")
        assert kind is not None, message
        assert issubclass(kind, tarfile.HeaderError), message


def test_tarfile_reads_a_member_where_its_offset_says() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("a", "b"):
            tar.addfile(tarfile.TarInfo(name))
    file.seek(0)
    read = tarfile.TarFile(fileobj=file, mode="r")
    message = gone("Python", "TarFile.offset, members or tarinfo.fromtarfile", "transforms/inputs/formats/tar.py")
    assert hasattr(read, "offset"), message
    assert hasattr(read, "members"), message
    read.offset = tarfile.BLOCKSIZE
    file.seek(read.offset)
    member = read.tarinfo.fromtarfile(read)
    assert (member.name, member.offset_data, read.offset) == ("b", 1024, 1024), message
    assert member.sparse is None, gone("Python", "TarInfo.sparse", "transforms/inputs/formats/tar.py")


# urllib3


def test_urllib3_makes_its_connections_by_a_method_that_can_be_replaced() -> None:
    message = gone("urllib3", "HTTPConnection._new_conn, which connect() calls,", "transforms/inputs/connections.py")
    for base in (urllib3.HTTPConnectionPool.ConnectionCls, urllib3.HTTPSConnectionPool.ConnectionCls):
        assert callable(getattr(base, "_new_conn", None)), message

        class Refusing(base):  # type: ignore[misc, valid-type]
            def _new_conn(self) -> None:
                raise ConnectionRefusedError

        with pytest.raises(ConnectionRefusedError):
            Refusing("127.0.0.1", 1).connect()


# torch

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize(
    "name",
    ["_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"],
)
def test_torch_has_the_operators_of_packed_weights(name: str) -> None:
    assert hasattr(torch.ops.mkldnn, name), gone("torch", f"torch.ops.mkldnn.{name}", "models/bart/decoder.py")


@needs_onednn
def test_torch_multiplies_by_packed_weights_and_goes_on_from_there() -> None:
    x, weight, other = torch.randn(64, 32), torch.randn(48, 32), torch.randn(64, 48)
    ops, expected = torch.ops.mkldnn, F.linear(x, weight)
    packed = ops._reorder_linear_weight(weight, 64)
    results = {
        '"none"': (ops._linear_pointwise(x, packed, None, "none", [], ""), expected),
        '"gelu"': (ops._linear_pointwise(x, packed, None, "gelu", [], "none"), F.gelu(expected)),
        '"mul"': (ops._linear_pointwise.binary(x, other, packed, None, "mul"), expected * other),
    }
    for what, (found, wanted) in results.items():
        message = gone("torch", f"mkldnn._linear_pointwise with {what}", "models/bart/decoder.py")
        assert torch.allclose(found, wanted, atol=1e-4), message


def test_torch_keeps_the_compiled_call_of_a_module_in_one_attribute() -> None:
    module = nn.Linear(2, 2)
    module.compile(backend=lambda graph, inputs: graph.forward)
    message = gone("torch", "Module._compiled_call_impl", "models/vqgan/codec.py, to run a network uncompiled,")
    assert getattr(module, "_compiled_call_impl", None) is not None, message
    module._compiled_call_impl = None
    assert torch.equal(module(torch.ones(1, 2)), module.forward(torch.ones(1, 2))), message


def test_torch_raises_one_kind_of_error_from_its_compiler() -> None:
    exceptions = importlib.import_module("torch._dynamo.exc")
    kind = getattr(exceptions, "TorchDynamoException", None)
    message = gone("torch", "torch._dynamo.exc.TorchDynamoException", "models/vqgan/codec.py")
    assert kind is not None, message
    assert issubclass(exceptions.BackendCompilerFailed, kind), message


def test_torch_draws_first_weights_by_functions_of_its_init_module() -> None:
    from models.weights.checks import without_weights

    message = gone("torch", "functions of nn.init that a function mode sees", "models/weights/checks.py")
    assert nn.init.kaiming_uniform_.__module__ == nn.init.__name__, message
    before = torch.get_rng_state()
    without_weights(lambda: nn.Linear(3, 3))
    assert torch.equal(torch.get_rng_state(), before), message


def test_torch_names_what_a_pickle_asks_for() -> None:
    for name in ("safe_globals", "get_unsafe_globals_in_checkpoint"):
        assert hasattr(torch.serialization, name), gone("torch", f"serialization.{name}", "models/weights/pickled.py")


def test_torch_moves_many_weights_at_once() -> None:
    assert hasattr(torch, "_foreach_lerp_"), gone("torch", "_foreach_lerp_", "examples/emoji/trainer.py")


# transformers


def test_transformers_keeps_positions_of_clip_in_two_buffers() -> None:
    from tests.support.tiny_clip import tiny_model

    model = tiny_model()
    found = {name for name, _ in model.named_buffers()}
    wanted = {f"{part}_model.embeddings.position_ids" for part in ("text", "vision")}
    assert found == wanted, gone(
        "transformers", f"CLIPModel with the buffers {wanted} alone", "models/clip/checkpoint.py"
    )


def test_transformers_emu3_has_its_parts() -> None:
    theirs = importlib.import_module("transformers").Emu3VQVAE
    config = importlib.import_module("transformers").Emu3VQVAEConfig(
        codebook_size=8, base_channels=32, channel_multiplier=[1], num_res_blocks=1, attn_resolutions=[], hidden_size=32
    )
    found = {name for name, _ in theirs(config).named_children()}
    wanted = {"encoder", "quant_conv", "post_quant_conv", "decoder", "quantize"}
    assert found == wanted, gone("transformers", f"Emu3VQVAE with the parts {wanted}", "models/vqgan/emu3_network.py")
    halves = {"time_conv", "time_res_stack", "conv_in", "middle_block", "norm_out", "conv_out"}
    for half, own in (("encoder", "down_block"), ("decoder", "up_block")):
        found = {name for name, _ in getattr(theirs(config), half).named_children()}
        assert found == halves | {own}, gone("transformers", f"{half} of Emu3VQVAE", "models/vqgan/emu3_network.py")


def test_transformers_lists_its_activations() -> None:
    activations = importlib.import_module("transformers.activations")
    message = gone("transformers", "activations.ACT2FN", "models/clip/checkpoint.py")
    assert "quick_gelu" in getattr(activations, "ACT2FN", {}), message


def test_beam_lets_a_job_of_dataflow_be_followed() -> None:
    message = gone("apache-beam", "DataflowApplicationClient", "pipelines/dataflow_job.py")
    runner = importlib.util.find_spec("apache_beam.runners.dataflow.dataflow_runner")
    client = importlib.util.find_spec("apache_beam.runners.dataflow.internal.apiclient")
    assert runner is not None, message
    assert client is not None, message
    assert "self.dataflow_client = " in Path(str(runner.origin)).read_text(), message
    source = Path(str(client.origin)).read_text()
    for name in ("def get_job(", "def list_messages(", "def get_job_metrics(", "class DataflowJobAlreadyExistsError("):
        assert name in source, gone("apache-beam", name, "pipelines/dataflow_job.py")
    assert ("from apitools" in source) != ("from google.cloud import dataflow" in source), message


# numba and llvmlite

numba_only = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@numba_only
def test_numba_declares_functions_of_llvm() -> None:
    cgutils = importlib.import_module("numba.core.cgutils")
    message = gone("numba", "core.cgutils.get_or_insert_function", "models/bart/compiled/vectors.py")
    assert hasattr(cgutils, "get_or_insert_function"), message


@numba_only
def test_numba_says_for_which_processor_it_compiles() -> None:
    import numba

    for name in ("CPU_NAME", "CPU_FEATURES", "NUMBA_NUM_THREADS"):
        message = gone("numba", f"config.{name}", "models/bart/compiled")
        assert hasattr(numba.config, name), message


@numba_only
def test_numba_lends_intrinsics_the_address_of_an_array() -> None:
    from numba.core.base import BaseContext

    make: Callable[..., object] | None = getattr(BaseContext, "make_array", None)
    assert make is not None, gone("numba", "make_array of a target's context", "models/bart/compiled/vectors.py")


@numba_only
def test_llvmlite_names_the_features_of_the_processor() -> None:
    from llvmlite import binding

    message = gone("llvmlite", "binding.get_host_cpu_features", "models/bart/compiled/tiles.py")
    assert hasattr(binding, "get_host_cpu_features"), message


# fsspec


def test_fsspec_passes_the_wish_to_create_only_through_to_stores() -> None:
    from fsspec.asyn import AsyncFileSystem

    for method in ("_put_file", "_pipe_file"):
        message = gone("fsspec", f"mode of {method}", "transforms/object_stores.py, for commits that replace nothing,")
        assert "mode" in inspect.signature(getattr(AsyncFileSystem, method)).parameters, message
