"""podman and buildah as Debian ships them, with the runtime under test, in a room of their own (daemons.py)."""

from pathlib import Path

from .daemons import Client, Room, hierarchies, make_image, wait_for

ULIMITS = '["nofile=1024:4096", "nproc=4096:4096"]'
"""podman's defaults lie above the hard limits of a root that lacks CAP_SYS_RESOURCE."""


class Podman(Client):
    """podman; what it stores lies on file systems that only the room has."""

    def __init__(self, room: Room, runtime: str) -> None:
        self.room = room
        self.run_flags = (f"--cgroup-parent=/{room.cgroup}",)
        configuration = room.directory / "containers.conf"
        configuration.write_text(
            f"[containers]\ndefault_ulimits = {ULIMITS}\n"
            f"[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'file'\nlock_type = 'file'\n"
            f"runtime = 'tested'\n[engine.runtimes]\ntested = ['{runtime}']\n"
        )
        storage = room.directory / "storage.conf"
        # podman refuses a run root of more than 50 characters; /run is the room's own.
        storage.write_text(f"[storage]\ndriver = 'overlay'\ngraphroot = '{room.private}/root'\nrunroot = '/run/roots'\n")
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
