"""Who we are to a registry: where people already keep it (containers-auth.json(5), docker's config.json and helpers).

Looked up for a repository, then for its host; written by login to the first of these files.
"""

import base64
import binascii
import json
import os
import shutil
import subprocess

from ..errors import ImageError, UsageError
from .reference import DOCKER_HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_DOCKER_KEY = "https://index.docker.io/v1/"
_HELPER_SECONDS = 30


def files() -> "list[str]":
    """auth.json and docker's config.json, in the order in which they are looked at."""
    env, home = os.environ, os.environ.get("HOME", "")
    found = [env["REGISTRY_AUTH_FILE"]] if env.get("REGISTRY_AUTH_FILE") else []
    if env.get("XDG_RUNTIME_DIR"):
        found.append(env["XDG_RUNTIME_DIR"] + "/containers/auth.json")
    elif os.geteuid() == 0:
        found.append("/run/containers/0/auth.json")
    config = env.get("XDG_CONFIG_HOME") or home + "/.config"
    found += [config + "/containers/auth.json", (env.get("DOCKER_CONFIG") or home + "/.docker") + "/config.json"]
    return found


def find(registry: str, repository: str = "") -> "tuple[str, str] | None":
    """User and password, or None for nobody in particular.  The user "<token>" means a password that is a token."""
    parts = repository.split("/") if repository else []
    keys = ["/".join([registry, *parts[:count]]) for count in range(len(parts), 0, -1)] + _host_keys(registry)
    for path in files():
        config = _read(path)
        auths = _object(config, "auths", path)
        for key in keys:
            if (entry := _object(auths, key, path)) and (pair := _decode(entry, path)):
                return pair
        helpers = _object(config, "credHelpers", path)
        helper = next((helpers[key] for key in keys if key in helpers), config.get("credsStore"))
        if helper and (pair := _ask_helper(str(helper), keys)):
            return pair
    return None


def store(registry: str, user: str, password: str) -> str:
    """Keep it in the first of the files, readable by the caller only; returns its path."""
    path = files()[0]
    config = _read(path)
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    config.setdefault("auths", {})[registry] = entry
    _write(path, config)
    return path


def forget(registry: str) -> bool:
    """Remove it from every file; whether it was in any."""
    found = False
    for path in files():
        config = _read(path)
        auths = config.get("auths") or {}
        for key in [key for key in _host_keys(registry) if key in auths]:
            del auths[key]
            found = True
            _write(path, config)
    return found


def _host_keys(registry: str) -> "list[str]":
    keys = [registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"]
    return [*keys, _DOCKER_KEY, "index.docker.io"] if registry == DOCKER_HOST else keys


def _object(config: "Json", key: str, path: str) -> "Json":
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise UsageError(f"{path}: {key!r} is no object")
    return found


def _decode(entry: "Json", path: str) -> "tuple[str, str] | None":
    if token := entry.get("identitytoken"):
        return "<token>", str(token)
    if not entry.get("auth"):
        return (str(entry["username"]), str(entry.get("password", ""))) if entry.get("username") else None
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        raise ImageError(f"{path}: an entry's auth is not base64", hint="log in again") from error
    return (user, password.rstrip("\0")) if colon else None


def _ask_helper(name: str, keys: "list[str]") -> "tuple[str, str] | None":
    """docker-credential-NAME get (docker's credential helper protocol): the server on stdin, JSON on stdout."""
    program = shutil.which(f"docker-credential-{name}") if name.replace("-", "").isalnum() else None
    if not program:
        return None
    for key in keys:
        try:
            done = subprocess.run(
                [program, "get"], input=key, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
            )
            answer = json.loads(done.stdout) if not done.returncode else {}
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise ImageError(f"credential helper {name}: {type(error).__name__}", hint="is it unlocked?") from error
        if isinstance(answer, dict) and answer.get("Secret"):
            return str(answer.get("Username", "")), str(answer["Secret"])
    return None


def _read(path: str) -> "Json":
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON") from error
    return found if isinstance(found, dict) else {}


def _write(path: str, config: "Json") -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(config, file, indent=1)
    os.rename(temporary, path)
