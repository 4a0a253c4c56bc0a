"""podman and buildah as Debian ships them, with the runtime under test, in a room of their own (daemons.py)."""

from pathlib import Path

from .daemons import Client, Result, Room, hierarchies, make_image, wait_for
from .users import User

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
"""podman refuses one of more than 50 characters; /run is the room's own.

Of a refusal in the clean-up that conmon starts nothing is told: the command before waits 20 s for the exit code.
"""

OWN_PODMAN = ("podman", "--root", "/run/p", "--runroot", "/run/r", "--storage-driver", "vfs", "--cgroup-manager",
              "cgroupfs", "--runtime", "runc")  # fmt: skip
"""podman to compare with, in a room whose /run is its own."""
RUN_PODMAN = (*OWN_PODMAN, "run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined",
              "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # fmt: skip


class Podman(Client):
    """podman; what it stores lies on file systems that only the room has, or below the home of an ordinary user."""

    remove = ("rm", "--force", "--time=0")

    def __init__(self, room: Room, runtime: str, user: User | None = None) -> None:
        self.room = room
        # An ordinary user may not make cgroups where v1 has the controllers; there podman does without.
        self.run_flags = () if user else (f"--cgroup-parent=/{room.cgroup}",)
        configuration = room.directory / "containers.conf"
        configuration.write_text(CONFIGURATION.format(runtime=runtime))
        env = {
            "CONTAINERS_CONF": str(configuration),
            # Health checks are run by hand: podman leaves their intervals to timers of systemd.
            "DISABLE_HC_SYSTEMD": "true",
        }
        self.prefix: tuple[str, ...] = ()
        if user:
            room("install", "--directory", "--mode=700", f"--owner={user.uid}", RUN_ROOT).ok()
            self.prefix = _become(user, {**env, "XDG_RUNTIME_DIR": RUN_ROOT})
        else:
            storage = room.directory / "storage.conf"
            storage.write_text(
                f"[storage]\ndriver = 'overlay'\ngraphroot = '{room.private}/root'\nrunroot = '{RUN_ROOT}'\n"
            )
            room.env |= {**env, "CONTAINERS_STORAGE_CONF": str(storage)}

    def words(self, *words: str | Path) -> list[str | Path]:
        return [*self.prefix, "podman", *words]

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
        self.podman = podman
        # buildah takes the cgroup that is called parent for the command's own.
        cgroup = f"--cgroup-parent=/{podman.room.cgroup}/build"
        self.flags = {
            "build": ("--runtime", runtime, "--isolation=oci", "--network=none", *([] if podman.prefix else [cgroup])),
            "run": ("--runtime", runtime, "--isolation=oci", "--network=none"),
            "from": (cgroup,),
        }

    def __call__(self, command: str, *words: str | Path) -> Result:
        return self.podman.room(*self.podman.prefix, "buildah", command, *self.flags.get(command, ()), *words)


def _become(user: User, env: dict[str, str]) -> tuple[str, ...]:
    ids = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--inh-caps=-all")
    variables = [f"{name}={value}" for name, value in (user.environment | env).items()]
    return ("setpriv", *ids, "env", "--ignore-environment", f"--chdir={user.home}", *variables)
