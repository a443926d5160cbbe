"""A login server that lets one user in at once, as GitHub's would after a click."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlencode, urlsplit


class OAuth:
    """Serves on a free port of 127.0.0.1 while the context lasts.

    Args:
        email: of the one who logs in.
    """

    def __init__(self, email: str) -> None:
        #: Where browsers are sent back to.
        self.back_to = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if urlsplit(self.path).path == "/login/oauth/authorize":
                    outer._send_back(self)
                else:
                    self._answer([{"email": email, "verified": True}])

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer({"access_token": "t"})

            def _answer(self, body: object) -> None:
                written = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, format: str, *arguments: object) -> None:
                """Nowhere."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OAuth:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _send_back(self, handler: BaseHTTPRequestHandler) -> None:
        state = parse_qs(urlsplit(handler.path).query)["state"][0]
        handler.send_response(302)
        handler.send_header("Location", f"{self.back_to}?{urlencode({'code': 1, 'state': state})}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
