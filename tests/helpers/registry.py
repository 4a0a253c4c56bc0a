"""Debian's docker-registry on loopback, and a proxy before it that does what bad networks and registries do."""

import contextlib
import http.client
import http.server
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

USER, PASSWORD = "beaver", "d@m:it"


class Registry:
    """The real one, in a process of its own; `restart()` after `kill()` serves the same images."""

    def __init__(self, directory: Path, *, tls: tuple[Path, Path] | None = None, users: bool = False) -> None:
        directory.mkdir()
        self._port = free_port()
        self.host = f"127.0.0.1:{self._port}"
        self._config = directory / "config.yml"
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {directory}/blobs}}, delete: {{enabled: true}}}}",
            "http:",
            f"  addr: {self.host}",
        ]
        if tls:
            lines.append(f"  tls: {{certificate: {tls[0]}, key: {tls[1]}}}")
        if users:
            words = ["htpasswd", "-Bbn", USER, PASSWORD]
            text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            (directory / "htpasswd").write_text(text)
            lines.append(f"auth: {{htpasswd: {{realm: den, path: {directory}/htpasswd}}}}")
        self._config.write_text("\n".join(lines) + "\n")
        self._log = directory / "log"
        self.restart()

    def restart(self) -> None:
        with open(self._log, "ab") as log:
            env = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
            self._process = subprocess.Popen(
                ["docker-registry", "serve", self._config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
            )
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._port)) == 0

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


Change = Callable[["Answer"], None]


class Answer:
    """What the registry has answered, to be changed before it is passed on."""

    def __init__(self, path: str, sent: dict[str, str], status: int, headers: dict[str, str], body: bytes) -> None:
        self.path, self.sent, self.status, self.headers, self.body = path, sent, status, headers, body
        self.cut = -1
        """Break the connection after so many bytes of the body."""

    @property
    def is_blob(self) -> bool:
        return "/blobs/" in self.path

    def replace(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {**{name.replace("_", "-"): value for name, value in headers.items()}}


class Proxy:
    """Passes GET and HEAD on to a registry.

    `change` is applied to each answer; `asked` are the paths, `sent` the bytes of blobs that went out.
    """

    def __init__(self, upstream: str) -> None:
        self.change: Change = lambda _answer: None
        self.asked: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                client = http.client.HTTPConnection(upstream, timeout=20)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                try:
                    client.request(self.command, self.path, headers=headers)
                    response = client.getresponse()
                    answer = Answer(self.path, headers, response.status, dict(response.getheaders()), response.read())
                except OSError:
                    answer = Answer(self.path, headers, 502, {}, b"")
                finally:
                    client.close()
                with lock:
                    proxy.asked.append(self.path)
                    proxy.requests.append(headers)
                    proxy.change(answer)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                told = answer.headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", told or str(len(answer.body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                body = answer.body if answer.cut < 0 else answer.body[: answer.cut]
                with contextlib.suppress(OSError):
                    self.wfile.write(body)
                    if answer.is_blob:
                        with lock:
                            proxy.sent += len(body)
                if answer.cut >= 0:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_certificates(directory: Path) -> tuple[Path, tuple[Path, Path]]:
    """A certificate authority's certificate, and a server's certificate for 127.0.0.1 and its key."""
    directory.mkdir()
    authority, key, certificate = directory / "ca.crt", directory / "server.key", directory / "server.crt"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]

    def openssl(*words: str | Path) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    openssl("req", "-x509", *curve, "-subj", "/CN=burrow", "-keyout", directory / "ca.key", "-out", authority)
    openssl(
        "req", "-x509", *curve, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext",
        "basicConstraints=critical,CA:FALSE", "-CA", authority, "-CAkey", directory / "ca.key", "-keyout", key, "-out",
        certificate,
    )  # fmt: skip
    return authority, (certificate, key)


def skopeo(*words: str | Path) -> str:
    command = ["skopeo", "--insecure-policy", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return done.stdout


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """These variables, for the code under test in this process."""
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        return bytes(response.read())
