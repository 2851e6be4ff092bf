"""A real S3-protocol server on loopback, and a proxy before it that does what networks do."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest

Fault = Literal["drop", "cut", "500", "503", "silent", "drip", "slow"]
"""No answer at all; half of one; an error; a connection that stays open without a byte; a byte now
and then; a whole answer that took its time."""

BUCKET = "lexmill"
DRIP_SECONDS = 0.3
SLOW_SECONDS = 0.4


class FaultProxy:
    """Forwards requests to a server; ``plan`` says what goes wrong with which.

    Attributes:
        plan: called with the number of a request, its method and its path.
        requests: methods and paths so far.
        happened: the faults so far.
    """

    def __init__(self, port: int) -> None:
        self.plan: Callable[[int, str, str], Fault | None] = lambda number, method, path: None
        self.requests: list[tuple[str, str]] = []
        self.happened: list[Fault] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                fault = proxy._next(self.command, self.path)
                if fault in ("500", "503"):
                    self._answer(int(fault), [], b"<Error><Code>InternalError</Code></Error>")
                    return
                if fault == "drop":
                    self._hang_up()
                    return
                if fault == "silent":
                    proxy.closing.wait(60)
                    self._hang_up()
                    return
                if fault == "slow":
                    time.sleep(SLOW_SECONDS)
                forward = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                forward.request(self.command, self.path, body, headers)
                answer = forward.getresponse()
                data = answer.read()
                skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
                kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in skipped]
                size = answer.getheader("Content-Length") if self.command == "HEAD" else None
                forward.close()
                self._answer(answer.status, kept, data, fault, size)

            def _answer(
                self,
                status: int,
                headers: list[tuple[str, str]],
                data: bytes,
                fault: Fault | None = None,
                size: str | None = None,
            ) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", size or str(len(data)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fault == "cut":
                    self.wfile.write(data[: len(data) // 2])
                    self._hang_up()
                elif fault == "drip":
                    for place in range(len(data)):
                        self.wfile.write(data[place : place + 1])
                        self.wfile.flush()
                        if proxy.closing.wait(DRIP_SECONDS):
                            return
                else:
                    self.wfile.write(data)

            def _hang_up(self) -> None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Clients hang up here; that is the point."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _next(self, method: str, path: str) -> Fault | None:
        with self._lock:
            number = len(self.requests)
            self.requests.append((method, path))
            fault = self.plan(number, method, path)
            if fault is not None:
                self.happened.append(fault)
            return fault

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def s3_server() -> Iterator[FaultProxy]:
    """An empty bucket behind a proxy; the environment leads every client there."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/moto-api/reset")  # what other tests of this process left
    connection.getresponse().read()
    connection.close()
    proxy = FaultProxy(port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAABCDEFGHIJKLMNOP")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "open/sesame+open/sesame+open/sesame+1234")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            s3fs.S3FileSystem().mkdir(BUCKET)
            yield proxy
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            proxy.close()
            server.stop()
