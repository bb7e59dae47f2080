"""Proof that a change of the code changes no output: run every command before and after it, and compare each byte.

    python tests/support/output_bytes.py --vqbeam OLD/.venv/bin/vqbeam --work /tmp/old --to old.json
    python tests/support/output_bytes.py --vqbeam NEW/.venv/bin/vqbeam --work /tmp/new --to new.json --against old.json

It knows vqbeam by its command line alone, so that it outlives any move of the code. Outputs name their inputs by
absolute paths, so all runs work in one folder, set the times of files, and move it to --work at the end. The hashes
depend on processor and packages: compare two runs on one machine.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # of the repository, for `tests`

from tests.support.forked_commands import ForkedCommands
from tests.support.output_cases import Case, Run, all_cases
from tests.support.output_hashes import Hashes, hashes_below
from tests.support.output_inputs import write_inputs, write_web_list
from tests.support.output_models import write_models
from tests.support.paths import GOLDEN, SAMPLE

WORK = Path(tempfile.gettempdir()) / "vqbeam-output-bytes"
EARLIER = 1_600_000_000  # mtime of every input, and of every output, which may be the input of a later step
PORT = 18_571  # the URLs are in the outputs
LANES = 2  # cases at once

Results = dict[str, Any]  # case -> step -> {"code": exit code, "files": {path: Hashes, or None if it is gone}}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keeps stderr for the cases."""


def main() -> int:
    args = _arguments()
    with open(f"{WORK}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        chosen = [case for case in all_cases() if any(name in case.name for name in args.only or [""])]
        results, wrong = _run_all(args.vqbeam.absolute(), chosen)
        shutil.rmtree(args.work, ignore_errors=True)
        shutil.move(WORK, args.work)
    args.to.write_text(json.dumps({"place": str(WORK), "cases": results}, indent=1, sort_keys=True) + "\n")
    for line in wrong:
        print(line)
    if args.against is None:
        return 1 if wrong else 0
    differences, only_messages = _compare(json.loads(args.against.read_text()), results, partly=bool(args.only))
    for line in (*only_messages, *differences):
        print(line)
    print(f"{len(differences)} differences, {len(only_messages)} of messages only, in {len(results)} cases")
    return 1 if wrong or differences or (only_messages and not args.messages_may_differ) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vqbeam", type=Path, required=True, metavar="COMMAND", help="the command that is run")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="gets all inputs, outputs and texts")
    parser.add_argument("--to", type=Path, required=True, metavar="JSON", help="gets the hashes")
    parser.add_argument("--against", type=Path, metavar="JSON", help="the hashes of another run, to compare with")
    parser.add_argument("--messages_may_differ", action="store_true", help="other words are no difference")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose names contain one of these")
    return parser.parse_args()


def _run_all(command: Path, cases: list[Case]) -> tuple[Results, list[str]]:
    """The results of all cases, and a line for each exit code that the case does not expect."""
    began = time.monotonic()
    environment = {"VQBEAM_CACHE": str(WORK / "cache"), "COLUMNS": "100"}
    lanes = [ForkedCommands(command, environment) for _ in range(LANES)]
    with ThreadingHTTPServer(
        ("127.0.0.1", PORT), functools.partial(QuietHandler, directory=str(WORK / "in"))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _prepare(lanes[0])
        free: queue.Queue[ForkedCommands] = queue.Queue()
        for lane in lanes:
            free.put(lane)

        def work(case: Case) -> tuple[str, Results]:
            lane = free.get()
            try:
                start = time.monotonic()
                steps = _run_case(case, lane)
                print(f"{time.monotonic() - began:6.0f} s  {time.monotonic() - start:5.1f} s  {case.name}", flush=True)
                return case.name, steps
            finally:
                free.put(lane)

        with ThreadPoolExecutor(LANES) as pool:
            results = dict(pool.map(work, cases))
        server.shutdown()
    for lane in lanes:
        lane.close()
    wrong = [
        f"{case.name}: {step.name}: exit code {results[case.name][_key(number, step.name)]['code']}, not {step.code}"
        for case in cases
        for number, step in enumerate(case.steps)
        if isinstance(step, Run) and results[case.name][_key(number, step.name)]["code"] != step.code
    ]
    return results, wrong


def _prepare(lane: ForkedCommands) -> None:
    inputs = WORK / "in"
    (inputs / "models").mkdir(parents=True)
    write_inputs(inputs, SAMPLE)
    write_web_list(inputs, f"http://127.0.0.1:{PORT}")

    def convert(source: Path, target: Path) -> None:
        code = lane.run(["convert", str(source), str(target)], WORK, WORK / "preparing.txt")
        if code:
            raise RuntimeError(f"vqbeam convert ended with {code}: see {WORK / 'preparing.txt'}")

    write_models(inputs / "models", GOLDEN, convert)
    for path in inputs.rglob("*"):
        os.utime(path, (EARLIER, EARLIER))


def _run_case(case: Case, lane: ForkedCommands) -> Results:
    """Each step, with the changes that it made in the folder of the case."""
    folder = WORK / "cases" / case.name.replace(" ", "_")
    folder.mkdir(parents=True)
    texts = WORK / "texts" / f"{folder.name}.txt"
    texts.parent.mkdir(exist_ok=True)
    roots = {"IN": str(WORK / "in"), "HERE": str(folder), "WEB": f"http://127.0.0.1:{PORT}"}
    steps: Results = {}
    before: dict[str, Hashes] = {}
    for number, step in enumerate(case.steps):
        with open(texts, "a") as file:
            print(f"\n--- {number} {step.name}", file=file)
        code = None
        if isinstance(step, Run):
            code = lane.run(step.argv(roots), folder, texts)
            with open(texts, "a") as file:
                print(f"\n--- exit code {code}", file=file)
        else:
            step.act(folder, WORK / "in")
        after = hashes_below(folder)
        changed: dict[str, Hashes | None] = {
            name: hashes for name, hashes in after.items() if before.get(name) != hashes
        }
        changed |= dict.fromkeys(before.keys() - after.keys())
        steps[_key(number, step.name)] = {"code": code, "files": changed}
        if isinstance(step, Run):
            _set_times(folder)
        before = after
    return steps


def _key(number: int, name: str) -> str:
    return f"{number:02d} {name}"


def _set_times(folder: Path) -> None:
    """Sets the times of what a command has written, since plans of later commands hold them."""
    now = time.time()
    for path in folder.rglob("*"):
        if path.is_file() and now - path.stat().st_mtime < 3600:
            os.utime(path, (EARLIER, EARLIER))


def _compare(old: dict[str, Any], results: Results, *, partly: bool) -> tuple[list[str], list[str]]:
    """A line for each difference, and for each difference in messages only."""
    if old["place"] != str(WORK):
        sys.exit(f"the other run was made in {old['place']}, this one in {WORK}: set TMPDIR alike")
    differences: list[str] = []
    only_messages: list[str] = []
    for case in sorted(results.keys() | old["cases"].keys()):
        now, then = results.get(case), old["cases"].get(case)
        if now is None:
            differences += [] if partly else [f"{case}: only in the other run"]
            continue
        if then is None:
            differences.append(f"{case}: not in the other run")
            continue
        for step in sorted(now.keys() | then.keys()):
            if step not in now or step not in then:
                differences.append(f"{case}: {step}: the steps are others")
                continue
            if now[step]["code"] != then[step]["code"]:
                differences.append(f"{case}: {step}: exit code {now[step]['code']}, was {then[step]['code']}")
            files, others = now[step]["files"], then[step]["files"]
            for name in sorted(files.keys() | others.keys()):
                new, was = files.get(name, "untouched"), others.get(name, "untouched")
                line = f"{case}: {step}: {name}"
                if new == was:
                    continue
                if not (isinstance(new, dict) and isinstance(was, dict)):
                    differences.append(f"{line}: {_fate(new)}, was {_fate(was)}")
                elif "but_messages" in new and new["but_messages"] == was.get("but_messages"):
                    only_messages.append(f"{line}: other messages")
                else:
                    differences.append(f"{line}: other bytes")
    return differences, only_messages


def _fate(file: Hashes | str | None) -> str:
    """What a step did to a file."""
    return file if isinstance(file, str) else "gone" if file is None else "written"


if __name__ == "__main__":
    sys.exit(main())
