"""Writes deploy/flex_template.json, the parameters of the Flex Template, from the flags of the commands.

python -m deploy.flex_template
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipelines.command import COMMANDS, find
from pipelines.parsing import flag_names, parser_of

FILE = Path(__file__).with_suffix(".json")
# The service sets its own, or the job is not its own to set, or they are of the launcher's machine, which goes away.
LEFT_OUT = ("help", "dry_run", "no_wait", "workers", "log_to", "metrics_port", "metrics_host", "wandb", "tensorboard")
BEAM = {
    "sdk_container_image": "the image of the workers: the one that the template was built with",
    "dataflow_service_options": "options of the service, for GPUs that --accelerator does not know",
    "experiments": "experiments of the service",
    "number_of_worker_harness_threads": "shards at once in a worker; default: one for each GPU",
    "element_processing_timeout_minutes": "a worker that is longer at one shard starts again",
}


def metadata() -> dict[str, Any]:
    """What `gcloud dataflow flex-template build --metadata-file` reads."""
    launching = [name for name in COMMANDS if find(name).launches]
    taken: dict[str, tuple[argparse.Action, list[str]]] = {}
    for name in launching:
        for flag, action in flag_names(parser_of(name, find(name))).items():
            plain = flag.removeprefix("--")
            if flag.startswith("--") and plain not in LEFT_OUT:
                taken.setdefault(plain, (action, []))[1].append(name)
    parameters = [
        parameter("command", "what is done", optional=False, pattern=f"^({'|'.join(launching)})$"),
        parameter("output", "a folder on gs://", optional=False, pattern="^gs://.+$"),
        *(of_flag(name, *found, launching) for name, found in taken.items() if name != "output"),
        *(parameter(name, text) for name, text in BEAM.items()),
    ]
    return {
        "name": "vqbeam",
        "description": "Images with captions to VQGAN tokens, tokens to images, prompts to images",
        "parameters": parameters,
    }


def of_flag(name: str, action: argparse.Action, takers: list[str], launching: list[str]) -> dict[str, Any]:
    text = (action.help or "") % {"default": action.default, "prog": "vqbeam"}
    if action.nargs == 0:
        text += " (true or false)"
    elif isinstance(action.nargs, str):
        text += " (several: with spaces between)"
    if takers != launching:
        text += f"; of {', '.join(takers)}"
    choices = [str(choice) for choice in action.choices or ()]
    pattern = f"^({'|'.join(choices)})$" if choices else "^(true|false)$" if action.nargs == 0 else None
    return parameter(name, text, pattern=pattern)


def parameter(name: str, text: str, *, optional: bool = True, pattern: str | None = None) -> dict[str, Any]:
    found = {"name": name, "label": name.replace("_", " "), "helpText": text.strip() or name, "isOptional": optional}
    return found | ({"regexes": [pattern]} if pattern else {})


def as_json() -> str:
    return json.dumps(metadata(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_json(), encoding="utf-8")
