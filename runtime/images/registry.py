"""A registry's HTTP interface (distribution-spec), on urllib3: tokens, retries, ranges, redirects; pull and push.

Nothing that a registry says is believed: sizes and digests are checked by who asked.
"""

import base64
import json
import os
import time
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from ..errors import ImageError, NotFoundError, UnsupportedError, WarrenError
from . import credentials, manifest
from .reference import DOCKER_HOST, DOCKER_INDEX, DOCKER_REGISTRY, is_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .configuration import Endpoint
    from .manifest import Descriptor

TRIES = 5
_TIMEOUT = urllib3.Timeout(connect=15, read=60)
_PIECE = 1 << 19
_CHUNK = 8 << 20
_REDIRECTS = 5
_PAGES = 100
_WAIT = 0.5
_MAX_WAIT = 30.0
_TRANSIENT = (408, 429, 500, 502, 503, 504)


class RegistryError(ImageError):
    """A registry refused; `status` is HTTP's, 0 when there was no answer."""

    def __init__(self, message: str, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Registry:
    """One repository on one host; used by several threads at a time.  `login` are user and password."""

    def __init__(self, endpoint: "Endpoint", login: "tuple[str, str] | None" = None) -> None:
        self._host = endpoint.host
        self.repository = endpoint.repository
        name = DOCKER_HOST if endpoint.host == DOCKER_REGISTRY else endpoint.host
        self._login = login if login is not None else credentials.find(name, endpoint.repository)
        self._insecure = endpoint.insecure
        self._scheme = "https"
        self._tokens: dict[str, str] = {}
        self._reached = False
        self._pool = _pool(endpoint)

    # ---- pull

    def ping(self) -> None:
        """Whether we may talk to it at all; RegistryError."""
        self._settle_scheme()
        _finish(self._ask("GET", "/v2/", ""))

    def manifest(self, wanted: str) -> "tuple[bytes, str]":
        """The manifest's bytes and its content type; checked where it was asked for by digest."""
        self._settle_scheme()
        path = f"/v2/{self.repository}/manifests/{wanted}"
        response = self._ask("GET", path, "pull", {"Accept": manifest.ACCEPT})
        data = response.read(manifest.MAX_SIZE + 1, decode_content=False)
        _finish(response)
        if len(data) > manifest.MAX_SIZE:
            raise ImageError(f"{self}: manifest {wanted} is larger than {manifest.MAX_SIZE} bytes")
        if is_digest(wanted) and manifest.digest_of(data) != wanted:
            raise ImageError(f"{self}: manifest {wanted} hashes to {manifest.digest_of(data)}")
        return data, str(response.headers.get("Content-Type", "")).partition(";")[0].strip()

    def blob(self, digest: str, size: int, offset: int = 0) -> "Iterator[bytes | None]":
        """The bytes of a blob from `offset` on.  None means: from the beginning again, the registry has no ranges.

        Goes on where a connection broke, a few times without progress.
        """
        self._settle_scheme()
        failures = 0
        while offset < size:
            before = offset
            try:
                response = self._get_blob(digest, offset)
                if offset and response.status == 200:
                    yield None
                    offset = 0
                for piece in response.stream(_PIECE, decode_content=False):
                    offset += len(piece)
                    if offset > size:
                        raise ImageError(f"{self}: blob {digest} is longer than {size} bytes")
                    yield piece
                _finish(response)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failures = failures + 1 if offset == before else 1
                if failures >= TRIES:
                    raise RegistryError(f"{self}: blob {digest}: {_why(error)}", hint="try again to resume") from error
                _pause(failures, "")
            else:
                if offset < size:
                    failures += 1
                    if failures >= TRIES:
                        raise ImageError(f"{self}: blob {digest} ends after {offset} of {size} bytes")

    def small_blob(self, blob: "Descriptor") -> bytes:
        """A whole blob, whose digest is right; the caller has looked at its size."""
        data = b""
        for piece in self.blob(blob.digest, blob.size):
            data = b"" if piece is None else data + piece
        if manifest.digest_of(data) != blob.digest:
            raise ImageError(f"{self}: blob {blob.digest} hashes to {manifest.digest_of(data)}")
        return data

    def _get_blob(self, digest: str, offset: int) -> "urllib3.BaseHTTPResponse":
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"/v2/{self.repository}/blobs/{digest}"
        try:
            return self._ask("GET", path, "pull", headers)
        except RegistryError as error:
            if error.status != 416:
                raise
            return self._ask("GET", path, "pull")

    # ---- search

    def search(self, term: str, limit: int) -> "list[dict[str, Any]]":
        """Repositories that fit, as docker's index tells them: name, description, star_count, is_official.

        A registry without such an index may list all its repositories (distribution-spec, "_catalog"): of these the
        names only.  Raises UnsupportedError for one that offers neither.
        """
        self._settle_scheme()
        index = f"https://{DOCKER_INDEX}" if self._host == DOCKER_REGISTRY else ""
        try:
            told, _ = self._json(f"{index}/v1/search?{urlencode({'q': term, 'n': limit})}", "")
            return [one for one in _list(told, "results") if isinstance(one, dict)][:limit]
        except (NotFoundError, RegistryError) as error:
            if isinstance(error, RegistryError) and not 400 <= error.status < 500:
                raise
        path, found = "/v2/_catalog", list[str]()
        for _ in range(_PAGES):
            try:
                told, path = self._json(path, "registry:catalog:*")
            except NotFoundError as error:
                raise UnsupportedError(f"{self} offers no search") from error
            found += [name for name in _list(told, "repositories") if isinstance(name, str) and term in name]
            if not path or len(found) >= limit:
                break
        return [{"name": name, "description": "", "star_count": 0, "is_official": False} for name in found[:limit]]

    def _json(self, path: str, scope: str) -> "tuple[object, str]":
        """An answer, and where its next page is (RFC 8288), "" for the last."""
        response = self._ask("GET", path, "", also=[scope] if scope else None)
        data = response.read(manifest.MAX_SIZE + 1, decode_content=False)
        link = str(response.headers.get("Link", ""))
        _finish(response)
        page = urljoin(path, link.partition("<")[2].partition(">")[0]) if 'rel="next"' in link else ""
        try:
            return json.loads(data), page
        except ValueError as error:
            raise ImageError(f"{self}: {path.partition('?')[0]}: the answer is no JSON") from error

    # ---- push

    def has_blob(self, digest: str) -> bool:
        self._settle_scheme()
        try:
            _finish(self._ask("HEAD", f"/v2/{self.repository}/blobs/{digest}", "pull,push"))
        except NotFoundError:
            return False
        return True

    def push_blob(self, digest: str, size: int, pieces: "Iterator[bytes]", mount_from: str = "") -> bool:
        """Upload it in chunks, unless the registry can take it from another repository; whether it was uploaded."""
        self._settle_scheme()
        query = {"mount": digest, "from": mount_from} if mount_from else {}
        extra = [f"repository:{mount_from}:pull"] if mount_from else []
        path = f"/v2/{self.repository}/blobs/uploads/"
        response = self._ask("POST", path + ("?" + urlencode(query) if query else ""), "pull,push", also=extra)
        _finish(response)
        if response.status == 201:
            return False
        location = self._location(path, response)
        sent, chunk = 0, b""
        for piece in pieces:
            chunk += piece
            if len(chunk) >= _CHUNK:
                location = self._patch(location, chunk, sent)
                sent, chunk = sent + len(chunk), b""
        if chunk:
            location = self._patch(location, chunk, sent)
            sent += len(chunk)
        if sent != size:
            raise ImageError(f"blob {digest} has {sent} bytes, not {size}")
        query_sign = "&" if "?" in location else "?"
        done = self._ask(
            "PUT", f"{location}{query_sign}{urlencode({'digest': digest})}", "pull,push", {"Content-Length": "0"}
        )
        _finish(done)
        return True

    def push_manifest(self, wanted: str, raw: bytes, type: str) -> None:
        path = f"/v2/{self.repository}/manifests/{wanted}"
        self._settle_scheme()
        _finish(self._ask("PUT", path, "pull,push", {"Content-Type": type}, body=raw))

    def _patch(self, location: str, chunk: bytes, offset: int) -> str:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{offset + len(chunk) - 1}",
            "Content-Length": str(len(chunk)),
        }
        response = self._ask("PATCH", location, "pull,push", headers, body=chunk)
        _finish(response)
        return self._location(location, response)

    def _location(self, base: str, response: "urllib3.BaseHTTPResponse") -> str:
        location = response.headers.get("Location")
        if not location:
            raise RegistryError(f"{self}: an upload without a location")
        return urljoin(self._url(base), location)

    # ---- requests

    def _ask(
        self,
        method: str,
        path: str,
        actions: str,
        headers: "dict[str, str] | None" = None,
        body: bytes = b"",
        also: "list[str] | None" = None,
    ) -> "urllib3.BaseHTTPResponse":
        """One successful answer, after tokens, redirects and retries; RegistryError, NotFoundError."""
        scope = self._scope(actions, also or [])
        challenged = False
        for attempt in range(1, TRIES + 1):
            try:
                response = self._send(method, self._url(path), scope, headers or {}, body)
            except urllib3.exceptions.HTTPError as error:
                # Who has never answered is not there, or not who it should be.
                if attempt == TRIES or not self._reached:
                    raise RegistryError(f"{self}: {_why(error)}", hint="is it running, and reachable?") from error
                _pause(attempt, "")
                continue
            self._reached = True
            if response.status == 401 and not challenged:
                challenged = True
                self._authorize(response, scope)
                response = self._send(method, self._url(path), scope, headers or {}, body)
            if response.status < 400:
                return response
            if response.status not in _TRANSIENT or attempt == TRIES:
                raise self._refusal(method, path, response)
            _finish(response)
            _pause(attempt, response.headers.get("Retry-After", ""))
        raise AssertionError("unreachable")

    def _send(
        self, method: str, url: str, scope: str, headers: "dict[str, str]", body: bytes
    ) -> "urllib3.BaseHTTPResponse":
        """Follow redirects; to another host Authorization does not go along (RULES 21)."""
        for _ in range(_REDIRECTS):
            same = urlsplit(url).netloc == self._host
            token = {"Authorization": self._tokens[scope]} if same and scope in self._tokens else {}
            response = self._pool.request(
                method, url, headers={**_AGENT, **headers, **token}, body=body or None, redirect=False, retries=False,
                preload_content=False, timeout=_TIMEOUT,
            )  # fmt: skip
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location or method in ("PATCH", "PUT", "POST"):
                return response
            _finish(response)
            new = urljoin(url, location)
            if urlsplit(url).scheme == "https" and urlsplit(new).scheme != "https":
                raise RegistryError(f"{self}: a redirect from https to {urlsplit(new).scheme}")
            url = new
        raise RegistryError(f"{self}: more than {_REDIRECTS} redirects")

    def _url(self, path: str) -> str:
        return path if "://" in path else f"{self._scheme}://{self._host}{path}"

    def _settle_scheme(self) -> None:
        """Plain HTTP for a registry that may be insecure and does not speak TLS."""
        if not self._insecure or self._scheme == "http":
            return
        try:
            _finish(self._send("GET", self._url("/v2/"), "", {}, b""))
        except urllib3.exceptions.HTTPError:
            self._scheme = "http"
        self._insecure = False

    def _refusal(self, method: str, path: str, response: "urllib3.BaseHTTPResponse") -> WarrenError:
        text = response.read(4096, decode_content=False)
        _finish(response)
        what = f"{self}: {method} {path.partition('?')[0].rpartition('/v2/')[2] or '/v2/'}"
        said = _message(text)
        if response.status in (401, 403):
            who = "as this user" if self._login else "without a login"
            return RegistryError(f"{what}: not allowed {who}{said}", response.status, hint=f"warren login {self._host}")
        if response.status == 404:
            return NotFoundError(f"{what}: no such thing there{said}")
        return RegistryError(f"{what}: HTTP status {response.status}{said}", response.status)

    # ---- tokens

    def _scope(self, actions: str, also: "list[str]") -> str:
        names = [f"repository:{self.repository}:{actions}"] if actions else []
        return " ".join([*names, *also])

    def _authorize(self, response: "urllib3.BaseHTTPResponse", scope: str) -> None:
        """Answer a challenge (RFC 7235; distribution, spec/auth/token)."""
        challenge = str(response.headers.get("WWW-Authenticate", ""))
        _finish(response)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            if self._login:
                self._tokens[scope] = _basic(*self._login)
        elif kind.lower() == "bearer":
            self._tokens[scope] = "Bearer " + self._token(_parameters(rest), scope)

    def _token(self, told: "dict[str, str]", scope: str) -> str:
        realm = told.get("realm", "")
        if urlsplit(realm).scheme not in ("https", self._scheme):
            raise RegistryError(f"{self}: a token server at {realm!r}")
        fields = [("service", told["service"])] if told.get("service") else []
        if self._login and self._login[0] == "<token>":
            form = [
                *fields,
                ("grant_type", "refresh_token"),
                ("refresh_token", self._login[1]),
                ("client_id", "warren"),
                ("scope", scope),
            ]
            method, url, body = "POST", realm, urlencode(form).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        else:
            scopes = [("scope", part) for part in (scope or told.get("scope", "")).split()]
            sign = "&" if "?" in realm else "?"
            method, url, body = "GET", realm + sign + urlencode([*fields, *scopes]), b""
            headers = {"Authorization": _basic(*self._login)} if self._login else {}
        try:
            response = self._pool.request(
                method, url, headers={**_AGENT, **headers}, body=body or None, retries=False, redirect=False,
                timeout=_TIMEOUT, preload_content=False,
            )  # fmt: skip
            text = response.read(1 << 20)
        except urllib3.exceptions.HTTPError as error:
            raise RegistryError(f"{self}: token server {urlsplit(realm).netloc}: {_why(error)}") from error
        try:
            answer = json.loads(text) if response.status == 200 else {}
        except ValueError:
            answer = {}
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str):
            hint = f"warren login {self._host}"
            raise RegistryError(
                f"{self}: no token: HTTP status {response.status}{_message(text)}", response.status, hint
            )
        return token

    def __str__(self) -> str:
        return f"registry {self._host}"


_AGENT = {"User-Agent": "warren"}


def _finish(response: "urllib3.BaseHTTPResponse") -> None:
    """Let the next request have the connection; one with much more to say is closed instead."""
    if len(response.read(1 << 16, decode_content=False)) == 1 << 16:
        response.close()
    response.release_conn()


def _pool(endpoint: "Endpoint") -> "urllib3.PoolManager":
    options: dict[str, Any] = {"maxsize": 8, "retries": False}
    for directory in ("/etc/containers/certs.d", "/etc/docker/certs.d"):
        authority = f"{directory}/{endpoint.host}/ca.crt"
        if os.path.exists(authority):
            options["ca_certs"] = authority
        certificate = f"{directory}/{endpoint.host}/client.cert"
        if os.path.exists(certificate):
            options["cert_file"], options["key_file"] = certificate, certificate.removesuffix("cert") + "key"
    if "ca_certs" not in options and os.environ.get("SSL_CERT_FILE"):
        options["ca_certs"] = os.environ["SSL_CERT_FILE"]
    if endpoint.insecure:
        options["cert_reqs"] = "CERT_NONE"
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if proxy := _proxy(endpoint.host):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _proxy(host: str) -> str:
    """HTTPS_PROXY and NO_PROXY, as curl reads them."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return "" if proxy_bypass(host) else proxies.get("https", proxies.get("http", ""))


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _parameters(text: str) -> "dict[str, str]":
    """realm="...",service="...",scope="a,b": quoted values may hold commas."""
    found: dict[str, str] = {}
    while text := text.lstrip(" ,"):
        name, _, text = text.partition("=")
        if text.startswith('"'):
            value, _, text = text[1:].partition('"')
        else:
            value, _, text = text.partition(",")
        found[name.strip().lower()] = value
    return found


def _list(told: object, key: str) -> "list[Any]":
    found = told.get(key) if isinstance(told, dict) else None
    return found if isinstance(found, list) else []


def _message(text: bytes) -> str:
    """What the registry says (distribution-spec, "Error Codes")."""
    try:
        errors = json.loads(text).get("errors") or []
        first = errors[0].get("message") or errors[0].get("code")
    except (ValueError, AttributeError, IndexError, TypeError, KeyError):
        return ""
    return f": {str(first)[:200]}" if first else ""


def _why(error: BaseException) -> str:
    """The innermost reason, without urllib3's objects."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    text = str(inner)
    return text.rpartition(": ")[2][:200] or type(inner).__name__


def _pause(attempt: int, told: str) -> None:
    """Back off, or do what Retry-After says, within reason."""
    wait = float(told) if told.isdigit() else _WAIT * 2 ** (attempt - 1)
    time.sleep(min(wait, _MAX_WAIT))
