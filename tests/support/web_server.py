"""Real web servers for tests, each in a thread of the test's own process."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


class WebServer(ThreadingHTTPServer):
    """Answers at `url` until the end of its `with` block."""

    def __init__(self, handler: type[QuietHandler]) -> None:
        super().__init__(("localhost", 0), handler)
        self.url = f"http://localhost:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client gave up, as some tests mean it to
            super().handle_error(request, client_address)

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
