"""People have folders called models and transforms: the command runs beside them, or says which one is in its way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CONSOLE_SCRIPT = "import sys; sys.path.pop(0); from pipelines.__main__ import main; sys.exit(main())"


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder that stands for site-packages, with the parts of the three packages that a usage error needs."""
    site = tmp_path / "site"
    for name in ("pipelines", "transforms", "models"):
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return site


@pytest.fixture
def project(tmp_path) -> Path:
    """A user's working folder with packages of the same names."""
    folder = tmp_path / "project"
    for name in ("models", "transforms"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise SystemExit('the package of the user was imported')")
    return folder


def run(arguments: list[str], site: Path, cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, site]))}
    return subprocess.run([sys.executable, *arguments, "nope"], cwd=cwd, env=env, capture_output=True, text=True)


def test_the_module_runs_in_a_folder_with_packages_of_the_same_names(installed, project):
    done = run(["-m", "pipelines"], installed, project)
    assert (done.returncode, done.stderr[:30]) == (2, "vqbeam: unknown command 'nope'")


def test_the_console_script_runs_in_a_folder_with_packages_of_the_same_names(installed, project):
    done = run(["-c", CONSOLE_SCRIPT], installed, project)
    assert (done.returncode, done.stderr[:30]) == (2, "vqbeam: unknown command 'nope'")


def test_a_shadowing_package_on_pythonpath_is_named_with_what_to_do(installed, project, tmp_path):
    done = run(["-m", "pipelines"], installed, tmp_path, project)
    assert done.returncode == 2
    assert f"{project / 'models'} is imported as 'models'" in done.stderr
    assert f"Take {project} off PYTHONPATH" in done.stderr


def test_a_single_shadowing_module_is_named_too(installed, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "transforms.py").write_text("")
    done = run(["-m", "pipelines"], installed, tmp_path, tmp_path / "other")
    assert done.returncode == 2
    assert f"{tmp_path / 'other' / 'transforms.py'} is imported as 'transforms'" in done.stderr


def test_a_plain_folder_of_data_called_models_is_no_trouble(installed, tmp_path):
    (tmp_path / "data" / "models").mkdir(parents=True)
    done = run(["-m", "pipelines"], installed, tmp_path / "data")
    assert (done.returncode, done.stderr[:30]) == (2, "vqbeam: unknown command 'nope'")
