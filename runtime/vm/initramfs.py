"""The initramfs of guests: our `init`, the modules that its machine needs, and a plan that loads them.

It is the same for all machines of a kind, and kept; what differs comes over the line to the supervisor.
"""

import hashlib
import os

from ..launch import guest_init_path
from ..steps import LaunchPlan
from .kernel import Kernel, data_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PLAN = "/plan"
_DIRECTORY, _FILE, _CHARACTER = 0o040755, 0o100755, 0o020600


def boot_plan(modules: "Iterable[str]", devices: "list[str]") -> LaunchPlan:
    """What a guest does before it can be told anything."""
    plan = LaunchPlan()
    plan.add("mount", "devtmpfs", "/dev", [], 0, 0)
    plan.add("mount", "proc", "/proc", [], 0, 2)
    for name in modules:
        plan.add("module", f"/modules/{name}.ko")
    plan.add("channel", devices)
    return plan


def build(kernel: Kernel, wanted: "Iterable[str]", devices: "list[str]", *, keep: bool = True) -> str:
    """Path of an initramfs for this kernel; made where it is not kept yet, unless `keep` is false."""
    modules = kernel.module_files(wanted)
    with open(guest_init_path(), "rb") as file:
        init = file.read()
    data = archive(init, modules, boot_plan([name for name, _ in modules], devices))
    directory = data_directory() + "/initramfs"
    path = f"{directory}/{hashlib.sha256(data).hexdigest()[:32]}"
    if keep and not os.path.exists(path):
        os.makedirs(directory, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as out:
            out.write(data)
        os.rename(temporary, path)
    return path


def archive(init: bytes, modules: "list[tuple[str, bytes]]", plan: LaunchPlan) -> bytes:
    entries = [_entry(name, _DIRECTORY) for name in ("dev", "proc", "sys", "lower", "modules", "share")]
    entries.append(_entry("dev/console", _CHARACTER, device=(5, 1)))
    entries.append(_entry("dev/null", _CHARACTER, device=(1, 3)))
    entries.append(_entry("init", _FILE, init))
    entries.append(_entry(PLAN[1:], _FILE, plan.encode({})))
    entries += [_entry(f"modules/{name}.ko", _FILE, data) for name, data in modules]
    return b"".join([*entries, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, data: bytes = b"", device: "tuple[int, int]" = (0, 0)) -> bytes:
    """One entry of a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    numbers = [_entry_number(name), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _entry_number(name: str) -> int:
    """An inode number; only hard links would care."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
