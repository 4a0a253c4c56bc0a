"""What runs in the helper of helper.py: one task on the files of a container, told by a JSON object in argv.

    descriptor 0    a socket, over which the container's root comes; unless that is the working directory ("mounted")
    descriptor 1    the stream: a tar, or JSON
    descriptor 2    what went wrong, or what is to be noted, as a line of JSON

It has the container's view of the files and no other part of the container: it is in none of its namespaces, and a
process of its own, so that what happens to it happens to nobody else.
"""

import _socket
import os
import sys
from _struct import calcsize, unpack

from ..errors import UsageError, WarrenError
from ..images import tar
from ..jsontext import dump_json, parse_json
from .streams import Ids, Source, Tree, Unpacker, pack, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]


def main() -> int:
    """Entry of the helper; its exit code."""
    request: Any = parse_json(sys.argv[1].encode("utf-8", "surrogateescape"), "request")
    os.umask(0)
    code, answer = 0, {}
    try:
        answer = _TASKS[request["task"]](request) or {}
    except BrokenPipeError:
        code = 1
    except WarrenError as error:
        code, answer = 1, {"kind": type(error).__name__, "error": error.message}
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        code, answer = 1, {"kind": "UsageError", "error": f"{where}{error.strerror or error}".lower()}
    os.write(2, dump_json(answer).encode("utf-8", "surrogateescape") + b"\n")
    return code


def _tree(request: "Json") -> Tree:
    ids = Ids(request["uids"], request["gids"]) if request.get("uids") else Ids()
    if create := request.get("create_as"):
        from ..syscalls import create_files_as

        create_files_as(*create)
    if request["mounted"]:
        return Tree(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ids)
    return Tree(_received(), ids)


def _received() -> int:
    """The descriptor that unix(7) brings over the socket on our standard input."""
    taking = _socket.socket(fileno=os.dup(0))
    _, messages, _, _ = taking.recvmsg(16, _socket.CMSG_SPACE(calcsize("i")), _socket.MSG_CMSG_CLOEXEC)
    taking.close()
    return int(unpack("i", messages[0][2])[0])


def _pack(request: "Json") -> None:
    with open(1, "wb", closefd=False, buffering=1 << 16) as stream:
        pack(_tree(request), request["path"], stream, request["name"], follow=bool(request.get("follow")),
             one_file_system=bool(request.get("one_file_system")))  # fmt: skip


def _unpack(request: "Json") -> "Json":
    tree, rename = _tree(request), None
    base = Source(request["path"]).path
    if "is_directory" in request:
        base, rename = place(tree, request["path"], request["name"], is_directory=request["is_directory"],
                             contents=request["contents"])  # fmt: skip
    elif not tree.kind(base, follow=True):
        raise UsageError(f"{request['path']}: no such directory")
    archive = bool(request.get("archive"))
    unpacker = Unpacker(tree, base, contained=True, archive=archive, owner=None if archive else (0, 0), rename=rename)
    with open(1, "rb", closefd=False) as stream:
        unpacker.unpack(tar.Reader(stream))
    return {"notes": unpacker.notes}


def _layer(request: "Json") -> None:
    from ..images.changes import write_layer
    from ..images.overlay import Owner

    with open(1, "wb", closefd=False, buffering=1 << 16) as stream:
        write_layer(request["upper"], stream, Owner(privileged=True), request["lower"])


def _changes(request: "Json") -> None:
    from ..images.changes import changes

    with open(1, "wb", closefd=False) as stream:
        stream.write(dump_json(changes(request["upper"], request["lower"])).encode("utf-8", "surrogateescape"))


def _remove(request: "Json") -> None:
    from .trees import remove_tree

    for path in request["paths"]:
        remove_tree(path)


_TASKS = {"pack": _pack, "unpack": _unpack, "layer": _layer, "changes": _changes, "remove": _remove}
