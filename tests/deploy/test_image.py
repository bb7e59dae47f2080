"""The Dockerfile and the Flex Template, as far as they can be checked without a builder of images."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import runpy
import shlex

import pytest

from deploy import flex_template
from deploy.flex_launch import command_line
from pipelines.command import COMMANDS, find
from pipelines.parsing import flag_names, parser_of
from tests.support.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (line.split()[0], line.split(maxsplit=1)[1])
    for line in DOCKERFILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")


def of(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_the_image_has_the_pinned_beam_and_a_pinned_launcher() -> None:
    launcher, base = of("FROM")
    assert base == f"apache/beam_python3.11_sdk:{PINS['apache-beam']}"
    assert launcher.split(":")[0] == "gcr.io/dataflow-templates-base/python311-template-launcher-base"
    assert re.fullmatch(r"LAUNCHER=\d{8}_RC\d\d", of("ARG")[0])
    assert all("-c constraints.txt" in command for command in of("RUN") if "pip install" in command)
    assert "torch" in PINS


def test_the_image_is_a_worker_and_a_launcher() -> None:
    assert of("ENTRYPOINT") == ['["/opt/apache/beam/boot"]']
    copies = [shlex.split(rest) for rest in of("COPY")]
    target = "/opt/google/dataflow/python_template_launcher"
    assert ["--from=template_launcher", target, target] in copies
    (script,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=(\S+)", DOCKERFILE)
    assert ["deploy/flex_launch.py", script] in copies


def test_what_is_copied_is_there_and_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    sent = [rule[1:].rstrip("/") for rule in rules if rule.startswith("!")]
    sources = [word for rest in of("COPY") if "--from" not in rest for word in shlex.split(rest)[:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, rule) for rule in sent), source
    assert sorted(sent) == sorted(set(sources)), "nothing else is sent"


def test_the_package_that_is_installed_is_whole() -> None:
    """Every package of setup.py is copied, and what it reads."""
    setup = (ROOT / "setup.py").read_text()
    (packages,) = re.findall(r"find_packages\(include=\[(.*?)\]", setup)
    copied = " ".join(of("COPY"))
    for package in re.findall(r"\"(\w+)", packages):
        assert f"{package} {package}" in copied
    read = re.findall(r"ROOT / \"(.*?)\"", setup)
    modules = [f"{name.replace('.', '/')}.py" for name in re.findall(r"^from (deploy\.\w+)", setup, re.MULTILINE)]
    assert (read, modules) == (["README.md"], ["deploy/links.py"])
    for file in (*read, *modules):
        assert file in copied


@pytest.mark.parametrize(
    "path", ["Dockerfile", "Makefile", "README.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_the_extras_that_are_named_exist(path: str) -> None:
    (defined,) = re.findall(r"extras_require=\{(.*?)^    \}", (ROOT / "setup.py").read_text(), re.DOTALL | re.MULTILINE)
    extras = set(re.findall(r"^        \"([\w-]+)\":", defined, re.MULTILINE))
    named = re.findall(r"(?:\.|vqbeam)\[([\w,-]+)\]", (ROOT / path).read_text())
    assert {extra for names in named for extra in names.split(",")} <= extras


def test_the_template_is_that_of_the_flags() -> None:
    written = flex_template.FILE.read_text(encoding="utf-8")
    assert written == flex_template.as_json(), "run `make flex-template`"


def test_the_template_has_every_flag_of_every_command() -> None:
    names = {parameter["name"] for parameter in json.loads(flex_template.as_json())["parameters"]}
    for name in COMMANDS:
        command = find(name)
        if command.launches:
            flags = {flag[2:] for flag in flag_names(parser_of(name, command)) if flag.startswith("--")}
            assert flags - names <= set(flex_template.LEFT_OUT)
    for parameter in json.loads(flex_template.as_json())["parameters"]:
        assert set(parameter) <= {"name", "label", "helpText", "isOptional", "regexes"}
        for pattern in parameter.get("regexes", ()):
            re.compile(pattern)


def test_parameters_become_the_command() -> None:
    words = command_line(
        [
            "--command=encode",
            "--input=gs://b/a.tar 'gs://b/c d.tar'",
            "--output=gs://b/out",
            "--overwrite=true",
            "--extend=false",
            "--accelerator=nvidia-l4:1",
            "--project=my-project",
            "--template_location=gs://b/t.json",
        ]
    )
    assert words == [
        *("encode", "--input", "gs://b/a.tar", "gs://b/c d.tar", "--output=gs://b/out", "--overwrite"),
        *("--accelerator=nvidia-l4:1", "--project=my-project", "--template_location=gs://b/t.json"),
        "--runner=DataflowRunner",
    ]
    assert command_line(["--command=evaluate", "--model=emoji hf://a/b", "--runner=DataflowRunner"]) == [
        *("evaluate", "--model", "emoji", "--model", "hf://a/b", "--runner=DataflowRunner")
    ]


@pytest.mark.parametrize("parameters", [[], ["--command=nothing"]])
def test_a_template_without_a_command_says_so(parameters: list[str]) -> None:
    with pytest.raises(SystemExit, match="the parameter command is one of encode, "):
        command_line(parameters)


def test_the_launcher_runs_as_a_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("launch", ROOT / "deploy" / "flex_launch.py")
    assert spec is not None
    monkeypatch.setattr("sys.argv", ["x", "--command=encode", "--input=here.tar", "--output=gs://b/out"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(spec.origin), run_name="__main__")
    assert ended.value.code == 2
    assert "vqbeam encode: --input here.tar is on this machine" in capsys.readouterr().err
