"""A stub of Dataflow's service on this machine: takes a job, and says of it what the test has written down."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOB = "2026-01-02_03_04_05-678"


@dataclass
class Service:
    """`states` are told one after the other, the last one for ever; `created` are the jobs that were asked for."""

    url: str = ""
    states: list[str] = field(default_factory=lambda: ["JOB_STATE_DONE"])
    metrics: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    another: bool = False  # there is a job of that name

    def counter(self, name: str, value: int, *, tentative: bool = False) -> None:
        context = {"namespace": "vqbeam", "step": "s3"} | ({"tentative": "true"} if tentative else {})
        self.metrics.append({"name": {"origin": "user", "name": name, "context": context}, "scalar": value})

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            if self.refusal:
                code, message = self.refusal
                return code, {"error": {"code": code, "message": message}}
            asked = json.loads(body)
            self.created.append(asked)
            request = "another" if self.another else asked.get("clientRequestId", "")
            return 200, {"id": JOB, "name": asked["name"], "clientRequestId": request, "projectId": "my-project"}
        if path.endswith("/metrics"):
            return 200, {"metrics": self.metrics}
        if path.endswith("/messages"):
            return 200, {"jobMessages": [self._message(*message) for message in self.messages]}
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return 200, {"id": JOB, "currentState": state}

    @staticmethod
    def _message(importance: str, text: str) -> dict[str, str]:
        return {"messageImportance": f"JOB_MESSAGE_{importance}", "messageText": text, "time": "2026-01-02T03:04:05Z"}


@contextmanager
def dataflow_service() -> Iterator[Service]:
    """A service that runs while this context is open."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            assert re.fullmatch(r"/v1b3/projects/my-project/locations/us-central1/jobs(/[^/]+(/\w+)?)?", path), path
            code, said = service.answer(self.command, path, body)
            data = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    service.url = f"http://localhost:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
