"""An HTTP proxy on loopback in front of an S3 server: it records requests and injects faults."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Request"], "int | bytes | None"]
"""Return a status to answer with, a body in place of the true one, or None for no fault; called after the answer."""


@dataclass(frozen=True)
class Request:
    """A request, and the body of its answer."""

    method: str
    path: str
    range: str | None
    body: bytes = field(repr=False)


class Proxy:
    """Forward requests to a server on loopback.

    Attributes
    ----------
    url : address for clients.
    requests : all requests so far; clear the list to count anew.
    fault : injects faults; None for none.
    dropped_header : header of requests that the server does not get.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.fault: Fault | None = None
        self.dropped_header: str | None = None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                sent = {name: value for name, value in self.headers.items() if name.lower() != proxy.dropped_header}
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                data, status = answer.read(), answer.status
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
                connection.close()
                request = Request(self.command, self.path, self.headers.get("Range"), data)
                proxy.requests.append(request)
                fault = None if proxy.fault is None else proxy.fault(request)
                if isinstance(fault, int):
                    status, data, headers = fault, b"", []
                elif fault is not None:
                    data = fault
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, method: str, ending: str = "") -> list[Request]:
        """Return the requests of a method whose path ends so."""
        return [one for one in self.requests if one.method == method and one.path.partition("?")[0].endswith(ending)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


_OWN = ("content-length", "transfer-encoding", "connection", "date", "server")
