"""podman and buildah as Debian ships them, with the runtime under test, in a room of their own (daemons.py)."""

from pathlib import Path

from .daemons import Client, Result, Room, hierarchies, make_image, wait_for

CONFIGURATION = """
[containers]
# podman's defaults lie above the hard limits of a root that lacks CAP_SYS_RESOURCE.
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "tested"
[engine.runtimes]
tested = ["{runtime}"]
"""
RUN_ROOT = "/run/roots"
"""podman refuses one of more than 50 characters; /run is the room's own."""


class Podman(Client):
    """podman; what it stores lies on file systems that only the room has."""

    def __init__(self, room: Room, runtime: str) -> None:
        self.room = room
        self.run_flags = (f"--cgroup-parent=/{room.cgroup}",)
        configuration = room.directory / "containers.conf"
        configuration.write_text(CONFIGURATION.format(runtime=runtime))
        storage = room.directory / "storage.conf"
        storage.write_text(
            f"[storage]\ndriver = 'overlay'\ngraphroot = '{room.private}/root'\nrunroot = '{RUN_ROOT}'\n"
        )
        room.env |= {
            "CONTAINERS_CONF": str(configuration),
            "CONTAINERS_STORAGE_CONF": str(storage),
            # Health checks are run by hand: podman leaves their intervals to timers of systemd.
            "DISABLE_HC_SYSTEMD": "true",
        }

    def words(self, *words: str | Path) -> list[str | Path]:
        return ["podman", *words]

    def __enter__(self) -> "Podman":
        self("load", "--input", make_image(self.room.directory / "image.tar")).ok()
        # It makes conmon's cgroup, which stays; see Room.close().
        self.run("--rm", "true").ok()
        return self

    def __exit__(self, *_: object) -> None:
        self("rm", "--all", "--force", "--time=0").ok()
        conmons = [hierarchy / self.room.cgroup / "conmon/cgroup.procs" for hierarchy in hierarchies()]
        wait_for(lambda: not any(file.read_text() for file in conmons if file.exists()), "conmon does not end")


class Buildah:
    """buildah on podman's images, where `build` and `run` start each command with the runtime under test."""

    def __init__(self, podman: Podman, runtime: str) -> None:
        self.room = podman.room
        # buildah takes the cgroup that is called parent for the command's own.
        cgroup = f"--cgroup-parent=/{self.room.cgroup}/build"
        self.flags = {
            "build": ("--runtime", runtime, "--isolation=oci", "--network=none", cgroup),
            "run": ("--runtime", runtime, "--isolation=oci", "--network=none"),
            "from": (cgroup,),
        }

    def __call__(self, command: str, *words: str | Path) -> Result:
        return self.room("buildah", command, *self.flags.get(command, ()), *words)
