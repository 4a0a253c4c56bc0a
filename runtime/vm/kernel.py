"""Kernels for guests: --kernel, the host's own, or Debian's package as `warren vm setup` has unpacked it; modules."""

import lzma
import os
import posix
import subprocess

from ..errors import UnsupportedError, UsageError, WarrenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SYSTEM = "/var/lib/warren/vm"
"""root's; what it has fetched serves ordinary users as well."""
UML_MODULES = "/usr/lib/uml/modules"


def data_directory() -> str:
    """Where `warren vm setup` puts things, and initramfs and disks are kept; below the XDG directory for users."""
    if posix.geteuid() == 0:
        return _SYSTEM
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ.get("HOME", ""), ".local/share")
    if not home.startswith("/"):
        raise UsageError("no place for virtual machines: neither XDG_DATA_HOME nor HOME is set")
    return home + "/warren/vm"


class Kernel:
    """A bootable kernel and where its modules are ("" for nowhere)."""

    __slots__ = ("file", "modules", "origin")

    def __init__(self, file: str, modules: str, origin: str) -> None:
        self.file = file
        self.modules = modules
        self.origin = origin
        """In words: "--kernel", "the host's own", "Debian's"."""

    def __repr__(self) -> str:
        return f"Kernel({self.file!r}, {self.modules!r})"

    def module_files(self, names: "Iterable[str]") -> "list[tuple[str, bytes]]":
        """These modules and what they need, in the order of loading, but for what is built in.

        Raises UnsupportedError when the kernel has neither.  Where nothing is known of a kernel, everything is taken
        to be built in: the guest will say what it lacks.
        """
        if not self.modules:
            return []
        index, built_in = self._index(), self._built_in()
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in found or name in built_in:
                return
            if name not in index:
                raise UnsupportedError(
                    f"kernel {self.file}: it has no module {name}", hint="--kernel FILE, or warren vm setup"
                )
            data = read_module(index[name])
            for needed in needs(data):
                add(needed)
            found[name] = data

        for name in names:
            add(name)
        return list(found.items())

    def _index(self) -> dict[str, str]:
        return {
            module_name(name): os.path.join(directory, name)
            for directory, _, names in os.walk(self.modules)
            for name in names
            if ".ko" in name
        }

    def _built_in(self) -> set[str]:
        try:
            with open(os.path.join(self.modules, "modules.builtin")) as file:
                return {module_name(line.strip()) for line in file}
        except OSError:
            return set()


def module_name(path: str) -> str:
    return os.path.basename(path).partition(".ko")[0].replace("-", "_")


def needs(data: bytes) -> list[str]:
    """What a module's .modinfo section says it depends on."""
    start = data.find(b"\0depends=")
    if start < 0:
        return []
    text = data[start + 9 : data.index(b"\0", start + 9)].decode()
    return [name.replace("-", "_") for name in text.split(",") if name]


def read_module(path: str) -> bytes:
    """A module, unpacked."""
    if path.endswith(".xz"):
        with lzma.open(path) as file:
            return file.read()
    if path.endswith(".zst"):
        try:
            return subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise WarrenError(f"module {path}: cannot be unpacked", hint="install zstd") from error
    with open(path, "rb") as plain:
        return plain.read()


def find(given: str = "") -> Kernel:
    """The kernel for QEMU; UsageError for one that is given and is none, UnsupportedError when there is none."""
    if given:
        return _given(given)
    release = posix.uname().release
    own = f"/boot/vmlinuz-{release}"
    if os.path.exists(own) and os.path.isdir(f"/lib/modules/{release}"):
        return Kernel(own, f"/lib/modules/{release}", "the host's own")
    for place in (data_directory(), _SYSTEM):
        if fetched := fetched_kernel(place + "/kernel"):
            return fetched
    raise UnsupportedError(
        f"no kernel for a guest: {own} with its modules is missing", hint="warren vm setup, or --kernel FILE"
    )


def fetched_kernel(tree: str) -> "Kernel | None":
    """What Debian's package holds, unpacked in `tree`."""
    try:
        names = sorted(name for name in os.listdir(tree + "/boot") if name.startswith("vmlinuz-"))
    except OSError:
        return None
    return _with_modules(f"{tree}/boot/{names[-1]}", "Debian's") if names else None


def _given(path: str) -> Kernel:
    path = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            head = file.read(0x206)
    except OSError as error:
        raise UsageError(f"--kernel {path}: {posix.strerror(error.errno or 0)}".lower()) from error
    if head[0x202:0x206] != b"HdrS" and not head.startswith(b"\x7fELF"):
        raise UsageError(f"--kernel {path}: this is no Linux kernel", hint="a bzImage, as in /boot/vmlinuz-VERSION")
    return _with_modules(path, "--kernel")


def _with_modules(path: str, origin: str) -> Kernel:
    """Modules are looked for where distributions put them: beside a boot directory, or in /lib/modules."""
    release = os.path.basename(path).partition("-")[2]
    tree = os.path.dirname(os.path.dirname(path)).rstrip("/")
    places = [f"{tree}/lib/modules/{release}", f"{tree}/usr/lib/modules/{release}", f"/lib/modules/{release}"]
    return Kernel(path, next((place for place in places if release and os.path.isdir(place)), ""), origin)


def find_uml(given: str = "") -> Kernel:
    """User-mode Linux: --kernel, the installed or a fetched one; modules lie beside it, or are the installed ones."""
    trees = ["", data_directory() + "/uml", _SYSTEM + "/uml"]
    for file in [given] if given else [tree + "/usr/bin/linux.uml" for tree in trees]:
        if os.access(file, os.X_OK) and os.path.isfile(file):
            return _uml(os.path.abspath(file), "--kernel" if given else "Debian's")
    if given:
        raise UsageError(f"--kernel {given}: not an executable file", hint="user-mode Linux is a program")
    raise UnsupportedError(
        "user-mode Linux is not installed", hint="apt install user-mode-linux, or warren vm setup uml"
    )


def _uml(file: str, origin: str) -> Kernel:
    release = _uml_release(file)
    beside = file.removesuffix("/" + os.path.basename(file)).removesuffix("/usr/bin")
    places = [f"{tree}{UML_MODULES}/{release}" for tree in (beside, "")]
    return Kernel(file, next((place for place in places if os.path.isdir(place)), ""), origin)


def _uml_release(file: str) -> str:
    """What it says of itself; UsageError for what is something else."""
    try:
        done = subprocess.run(
            [file, "--version"], capture_output=True, timeout=10, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--kernel {file}: this is no user-mode Linux") from error
    text = done.stdout.decode(errors="replace").strip()
    if not text[:1].isdigit() or len(text) > 64 or "\n" in text:
        raise UsageError(f"--kernel {file}: this is no user-mode Linux")
    return text
