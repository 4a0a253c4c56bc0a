"""Moves network devices of the host into a container (config-linux.md, "Network Devices").

The host's half: our own socket takes a device out of our namespace, and one that `init` opened in the container's and
passed to us sets it up there.  What becomes of it afterwards is the kernel's: with the namespace virtual devices end,
and physical ones return.  Only containers that ask for it load this module.
"""

import posix
from _struct import Struct
from errno import EEXIST, EINVAL, EPERM

from ..errors import WarrenError
from ..netlink import CREATE, DUMP, EXCL, GETADDR, GETLINK, NEWADDR, SETLINK, Netlink, attribute, attributes

_LINK = Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_UP = 0x1
_IFNAME, _NET_NS_PID, _NEW_IFINDEX = 3, 19, 49
_KEPT = (1, 2, 4)
"""IFA_ADDRESS, IFA_LOCAL and IFA_BROADCAST; a label would name the device as it was called."""
_IFA_FLAGS = 8
_PERMANENT = 0x80
_HINTS = {
    EINVAL: "loopback, bridges and some others stay where they are made",
    EPERM: "it takes CAP_NET_ADMIN in both network namespaces",
}


def move(devices: "dict[str, dict[str, str]]", pid: int, fd: int) -> None:
    """Move `devices`, linux.netDevices, to the namespace of process `pid`, of which `fd` is a route socket.

    Permanent addresses of global scope go with them, and they are up afterwards.  Raises WarrenError.
    """
    with Netlink() as ours, Netlink(fd) as theirs:
        for name, device in devices.items():
            new = device.get("name") or name
            try:
                _move(ours, theirs, name, new, pid)
            except OSError as error:
                to = f" as {new}" if new != name else ""
                text = posix.strerror(error.errno or 0).lower()
                raise WarrenError(
                    f"linux.netDevices: cannot move {name}{to}: {text}", hint=_HINTS.get(error.errno or 0, "")
                ) from error


def _move(ours: Netlink, theirs: Netlink, name: str, new: str, pid: int) -> None:
    index = _LINK.unpack_from(ours.request(GETLINK, _link() + attribute(_IFNAME, name))[0])[2]
    # The kernel drops them on the way, and those of IPv6 as soon as the device is down.
    kept = list(_addresses(ours, index))
    there = _links(theirs)
    if new in there:
        raise FileExistsError(EEXIST, "")
    # The number must be known, as the name may be the kernel's choice.
    at = index if index not in there.values() else max(there.values()) + 1
    ours.request(SETLINK, _link(index, 0, _UP))
    target = attribute(_IFNAME, new) + attribute(_NET_NS_PID, pid) + attribute(_NEW_IFINDEX, at)
    ours.request(SETLINK, _link(index) + target)
    for head, rest in kept:
        theirs.request(NEWADDR, _ADDRESS.pack(*head, at) + rest, CREATE | EXCL)
    theirs.request(SETLINK, _link(at, _UP, _UP))


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, flags, change)


def _links(netlink: Netlink) -> "dict[str, int]":
    """Name -> index of every interface."""
    return {
        attributes(link[_LINK.size :])[_IFNAME].rstrip(b"\0").decode("utf-8", "replace"): _LINK.unpack_from(link)[2]
        for link in netlink.request(GETLINK, _link(), DUMP)
    }


def _addresses(netlink: Netlink, index: int) -> "list[tuple[tuple[int, int, int, int], bytes]]":
    """What has to be set again: family, prefix length, flags and scope, and the attributes.

    Neither what came by DHCP or a router's advertisement and expires, nor what is valid on the link alone.
    """
    found = []
    for answer in netlink.request(GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), DUMP):
        family, prefix, flags, scope, owner = _ADDRESS.unpack_from(answer)
        rest = attributes(answer[_ADDRESS.size :])
        if _IFA_FLAGS in rest:
            flags = int.from_bytes(rest[_IFA_FLAGS], "little")
        if owner == index and flags & _PERMANENT and scope == 0:
            kept = b"".join([attribute(kind, rest[kind]) for kind in _KEPT if kind in rest])
            found.append(((family, prefix, 0, scope), kept))
    return found
