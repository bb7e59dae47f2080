"""What a job on Dask lacks is refused before anything is stored; and how its shards are shared out. Needs no Dask."""

from __future__ import annotations

import sys

import apache_beam as beam
import pytest
from apache_beam.runners.runner import PipelineRunner

from pipelines.beam_flags import runner_class
from tests.support.run_command import run
from transforms.errors import UsageError
from transforms.inference import handlers
from transforms.inference.images import DecodeTokens

FULL = "apache_beam.runners.dask.dask_runner.DaskRunner"


@pytest.mark.parametrize("name", ["DaskRunner", "daskrunner", "dask", "Dask", FULL])
def test_the_short_name_is_enough(name):
    assert runner_class(name) == FULL


@pytest.mark.parametrize("name", ["FlinkRunner", "my.own.Runner", ""])
def test_other_names_are_left_alone(name):
    assert runner_class(name) == name


@pytest.mark.parametrize("name", ["DaskRunner", FULL])
def test_without_dask_the_extra_is_named(tmp_path, monkeypatch, name):
    for module in [module for module in sys.modules if module.startswith("apache_beam.runners.dask")]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("dask", "dask.bag", "distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    outcome = run("encode", "--input", tmp_path / "none", "--runner", name, output=tmp_path / "out")
    outcome.check_refused("DaskRunner needs more packages", 'pip install "vqbeam[dask]"')
    assert outcome.err.count("\n") == 1


def test_transforms_refuse_a_runner_that_mixes_their_outputs(monkeypatch):
    class Mixing(PipelineRunner):
        pass

    monkeypatch.setattr(handlers, "MIXING", (Mixing.__module__,))
    rows = beam.Pipeline(runner=Mixing()) | beam.Create([{"encoding": [0]}])
    with pytest.raises(UsageError, match="Mixing mixes the outputs of a step"):
        rows | DecodeTokens("emoji")
