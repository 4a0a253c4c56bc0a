"""User namespaces: identity maps, who writes them, and the id of the set-up.

A namespace is made by a helper process of `init` before everything else, so that mounts can be idmapped with it
while `init` still has the host's privileges (mount_setattr(2), MOUNT_ATTR_IDMAP).
"""

import posix

from ..errors import UnsupportedError
from ..steps import LaunchPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..host import Host
    from ..spec import Spec

    Json = dict[str, object]
    Mappings = list[dict[str, int]]

_MAX_PASSWD = 1 << 20
RANGE = 65536
"""Ids of a container."""


def create(plan: LaunchPlan, spec: "Spec", host: "Host", network: int = -1) -> int:
    """Add the step that makes a new user namespace; returns its slot, -1 when the container has none of its own.

    In the slot `network` a new network namespace is to come from it (network.order).
    """
    if spec.namespaces().get("user", "-") != "":
        return -1
    linux = spec.config["linux"]
    uids, gids = linux["uidMappings"], linux["gidMappings"]
    own = is_single(uids, host.euid) and is_single(gids, host.egid)
    mapper = not host.privileged and not own
    if mapper and not (host.newuidmap and host.newgidmap):
        raise UnsupportedError(
            "user namespace needs newuidmap and newgidmap for more than the user's own id",
            hint="install the package uidmap, or map a single id",
        )
    slot = plan.slot()
    deny_setgroups = not host.privileged and own
    plan.add("userns", slot, map_text(uids), map_text(gids), int(deny_setgroups), int(mapper), network)
    return slot


def is_single(mappings: "Mappings", own: int) -> bool:
    """Whether an unprivileged process may write this map itself (user_namespaces(7))."""
    return len(mappings) == 1 and mappings[0]["size"] == 1 and mappings[0]["hostID"] == own


def map_text(mappings: "Mappings") -> str:
    """The text of /proc/PID/uid_map for OCI mappings."""
    return "".join([f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings])


def subordinate_map(host: "Host", kind: str) -> "Mappings":
    """An ordinary user's map (`kind`: uid, gid): its own id is root's, the others are those of /etc/subuid or
    /etc/subgid; [] where there are none, or no program that may write such a map."""
    first, count = host.subordinate(kind)
    if not (count and host.newuidmap and host.newgidmap):
        return []
    own = host.euid if kind == "uid" else host.egid
    return [
        {"containerID": 0, "hostID": own, "size": 1},
        {"containerID": 1, "hostID": first, "size": min(count, RANGE)},
    ]


def can_setgroups(spec: "Spec", host: "Host") -> bool:
    """Whether setgroups(2) will be allowed: not in or below a namespace whose single map an ordinary user wrote."""
    if not host.initial_userns and host.read("/proc/self/setgroups").strip() == "deny":
        return False
    if host.privileged:
        return True
    linux = spec.config.get("linux") or {}
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    return bool(uids) and not (is_single(uids, host.euid) and is_single(gids, host.egid))


def setup_ids(plan: LaunchPlan, spec: "Spec", host: "Host", user: "tuple[int, int]") -> None:
    """Become the root of the user namespace for the set-up, or `user` where 0 is not mapped.

    Files made by an id that the namespace does not map fail with EOVERFLOW.
    """
    namespaces = spec.namespaces()
    if "user" not in namespaces:
        return
    linux = spec.config["linux"]
    joined = bool(namespaces["user"])
    uid = 0 if joined or _maps(linux["uidMappings"], 0) else user[0]
    gid = 0 if joined or _maps(linux["gidMappings"], 0) else user[1]
    plan.add("setup_ids", uid, gid, int(can_setgroups(spec, host)))


def _maps(mappings: "Mappings", container_id: int) -> bool:
    return host_id(mappings, container_id) >= 0


def host_id(mappings: "Mappings", container_id: int) -> int:
    """What an id of the namespace is on the host; -1 for one that is not mapped."""
    for m in mappings:
        if m["containerID"] <= container_id < m["containerID"] + m["size"]:
            return m["hostID"] + container_id - m["containerID"]
    return -1


def host_user(config: "Json", process: "Json") -> int:
    """The user of a process as the host sees him; -1 where a namespace that is joined, or no map, says who that is."""
    account: Json = process.get("user") or {}  # type: ignore[assignment]
    uid = int(account.get("uid") or 0)  # type: ignore[call-overload]
    linux: Json = config.get("linux") or {}  # type: ignore[assignment]
    if mappings := linux.get("uidMappings"):
        return host_id(mappings, uid)  # type: ignore[arg-type]
    kinds: list[Json] = linux.get("namespaces") or []  # type: ignore[assignment]
    return -1 if any(one["type"] == "user" for one in kinds) else uid


def set_home(process: "Json", root: str) -> None:
    """Add HOME to an environment that has none, from /etc/passwd below `root`, else / (as runc does).

    `process` is a process object of the spec, and is changed.
    """
    env = [*(process.get("env") or [])]  # type: ignore[misc]
    if any(entry.startswith("HOME=") for entry in env):
        return
    account: Json = process.get("user") or {}  # type: ignore[assignment]
    process["env"] = [*env, "HOME=" + _home_of(str(account.get("uid") or 0), root)]


def _home_of(uid: str, root: str) -> str:
    for line in _passwd(root).split("\n"):
        fields = line.split(":")
        if len(fields) > 5 and fields[2] == uid and fields[5].startswith("/"):
            return fields[5]
    return "/"


def _passwd(root: str) -> str:
    """Contents of /etc/passwd below `root`: no link is followed, and nothing but a regular file of 1 MiB is read."""
    try:
        etc = posix.open(root + "/etc", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open("passwd", flags, dir_fd=etc)
    except OSError:
        return ""
    finally:
        posix.close(etc)
    try:
        info = posix.fstat(fd)
        if info.st_mode & 0o170000 != 0o100000 or info.st_size > _MAX_PASSWD:
            return ""
        return posix.read(fd, _MAX_PASSWD).decode("utf-8", "replace")
    finally:
        posix.close(fd)
