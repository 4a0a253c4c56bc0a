"""What images are called: docker's names, tags and digests (distribution/reference), short ones completed.

A reference names a registry, a repository and a tag or digest; whether there is such an image is not known here.
"""

from ..errors import UsageError

DOCKER_HOST, DOCKER_REGISTRY, LIBRARY = "docker.io", "registry-1.docker.io", "library/"
DOCKER_INDEX = "index.docker.io"
DOCKER_NAMES = (DOCKER_HOST, DOCKER_INDEX, DOCKER_REGISTRY)
MAX_NAME = 255
_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_TAG = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_HEX = frozenset("0123456789abcdef")


class Reference:
    """`registry` is the name people use ("docker.io"); `tag` is "" where only a digest is given."""

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(self, registry: str, repository: str, tag: str = "", digest: str = "") -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag
        self.digest = digest

    @property
    def host(self) -> str:
        """Where it is asked for; docker.io answers under another name (RULES 21)."""
        return DOCKER_REGISTRY if self.registry == DOCKER_HOST else self.registry

    @property
    def wanted(self) -> str:
        """What a manifest is asked for by: the digest where there is one."""
        return self.digest or self.tag

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """As docker shows it: without docker.io and library/."""
        if self.registry != DOCKER_HOST:
            return str(self)
        short = self.repository.removeprefix(LIBRARY)
        if _is_id(short):
            return str(self)
        return (self.repository if "/" in short else short) + self._ending()

    def __str__(self) -> str:
        return self.name + self._ending()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def _ending(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """busybox, user/app:1.2, host:5000/a/b@sha256:..., docker.io/library/busybox; UsageError for anything else.

    Without tag and digest the tag is "latest".
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _wrong(text, f"{digest!r} is no digest")
    tag = ""
    if ":" in rest.rpartition("/")[2]:
        rest, _, tag = rest.rpartition(":")
        if not tag or len(tag) > 128 or tag[0] in ".-" or not _TAG.issuperset(tag):
            raise _wrong(text, f"{tag!r} is no tag")
    registry, repository = _split(rest)
    if _is_id(rest):
        raise _wrong(text, "64 hexadecimal digits are an id")
    if not repository or len(f"{registry}/{repository}") > MAX_NAME:
        raise _wrong(text, "it has no repository" if not repository else "it is too long")
    if bad := next((part for part in repository.split("/") if not _is_component(part)), None):
        raise _wrong(text, f"{bad!r} is not lower-case letters and digits, joined by . _ or -")
    if "" in repository.split("/"):
        raise _wrong(text, "a part of it is empty")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def is_digest(text: str) -> bool:
    """sha256, the one algorithm that is used (image-spec, descriptor.md; sha512 is optional)."""
    return text.startswith("sha256:") and len(text) == 71 and _HEX.issuperset(text[7:])


def _split(name: str) -> "tuple[str, str]":
    """docker's rule: the first part is a host if it has a dot, a port, capitals, or is localhost."""
    first, slash, rest = name.partition("/")
    is_host = slash and (set(first) & set(".:[") or first == "localhost" or first != first.lower())
    if not is_host:
        return DOCKER_HOST, name if slash or not name else LIBRARY + name
    if not _is_host(first):
        raise _wrong(name, f"{first!r} is no host")
    if first in DOCKER_NAMES:
        return DOCKER_HOST, rest if "/" in rest or not rest else LIBRARY + rest
    return first, rest


def _is_id(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)


def _is_host(text: str) -> bool:
    """A name, an IPv4 address or an IPv6 address in brackets, and a port if it likes."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not address or not (_HEX | set("ABCDEF:")).issuperset(address):
            return False
        name, colon, port = "", rest[:1], rest[1:]
        if colon not in ("", ":"):
            return False
    else:
        name, colon, port = text.partition(":")
        if not all(_HOST.issuperset(label) and label.strip("-") == label != "" for label in name.split(".")):
            return False
    return not colon or (port.isdecimal() and port.isascii())


def _is_component(part: str) -> bool:
    """Words of small letters and digits, joined by ".", "_", "__" or dashes."""
    if not part or part[0] not in _WORD or part[-1] not in _WORD:
        return not part
    words = part.replace("__", ".").replace("_", ".")
    while "--" in words:
        words = words.replace("--", "-")
    words = words.replace("-", ".")
    return all(word and _WORD.issuperset(word) for word in words.split("."))


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"invalid image reference {text!r}: {why}", hint="[HOST[:PORT]/]NAME[:TAG][@DIGEST]")
