"""Device nodes: config-linux.md, "Devices" and "Default Devices"."""

import os
from pathlib import Path

import pytest

from tests.helpers.oci import Bundle, Runtime

DEFAULT = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def device(path: str, type: str, major: int, minor: int, **more: int) -> dict[str, object]:
    return {"path": path, "type": type, "major": major, "minor": minor, **more}


def test_default_devices(oci: Runtime, bundle: Bundle) -> None:
    """ "In addition to any devices configured with this setting, the runtime MUST also supply: /dev/null /dev/zero
    /dev/full /dev/random /dev/urandom /dev/tty" """
    question = "stat " + " ".join(f"/dev/{name}" for name in DEFAULT)
    answers = oci.ask(bundle, question, "access rw /dev/null", "access r /dev/urandom", "touch /dev/x")
    for line in answers[question]:
        path, type, mode, uid, gid, number = line.split()
        assert (type, mode, uid, gid, number) == ("c", "0666", "0", "0", DEFAULT[path.removeprefix("/dev/")])
    assert answers.one("access rw /dev/null") == answers.one("access r /dev/urandom") == "OK"


def test_default_links(oci: Runtime, bundle: Bundle) -> None:
    """runtime-linux.md: "the runtime MUST create the following symlinks if the source file exists after processing
    mounts: /proc/self/fd /dev/fd, ..." and "/dev/ptmx. A bind-mount or symlink of the container's /dev/pts/ptmx"."""
    answers = oci.ask(bundle, *(f"readlink /dev/{name}" for name in LINKS), "access rw /dev/ptmx")
    assert {name: answers.one(f"readlink /dev/{name}") for name in LINKS} == LINKS
    assert answers.one("access rw /dev/ptmx") == "OK"


def test_there_are_no_other_devices(oci: Runtime, bundle: Bundle) -> None:
    """ "Containers MAY NOT access any device node that is not either explicitly referenced in the devices array or
    listed as being part of the default devices." """
    names = set(oci.ask(bundle, "ls /dev")["ls /dev"])
    assert names == {*DEFAULT, *LINKS, "ptmx", "pts", "shm", "mqueue"} | names & {"core"}


def test_listed_devices_are_available(oci: Runtime, bundle: Bundle) -> None:
    """ "devices (array of objects, OPTIONAL) lists devices that MUST be available in the container. ... path: The
    path MAY be anywhere in the container filesystem, notably outside of /dev." """
    bundle.linux["devices"] = [
        device("/dev/mine", "c", 1, 5, fileMode=0o640, uid=7, gid=8),
        device("/other/place", "c", 1, 3, fileMode=0o600),
        {"path": "/tmp/pipe", "type": "p", "fileMode": 0o622},
    ]
    question = "stat /dev/mine /other/place /tmp/pipe"
    lines = [line.split()[1:] for line in oci.ask(bundle, question)[question]]
    assert lines == [["c", "0640", "7", "8", "1:5"], ["c", "0600", "0", "0", "1:3"], ["p", "0622", "0", "0", "0:0"]]


def test_unbuffered_is_a_character_device(oci: Runtime, bundle: Bundle) -> None:
    """ "type (string, REQUIRED) - type of device: c, b, u or p. More info in mknod(1)": u is another word for c."""
    bundle.linux["devices"] = [device("/dev/mine", "u", 1, 5)]
    assert oci.ask(bundle, "stat /dev/mine").one("stat /dev/mine").split()[1] == "c"


@pytest.mark.parametrize(
    "wrong", [{"type": "x"}, {"path": "dev/relative"}, {"path": ""}, {"major": "one"}, {"fileMode": -1}], ids=str
)
def test_malformed_devices_are_errors(oci: Runtime, bundle: Bundle, wrong: dict[str, object]) -> None:
    """ "path (string, REQUIRED) - full path to device inside container." """
    bundle.linux["devices"] = [device("/dev/mine", "c", 1, 5) | wrong]
    oci.refuses(bundle)


def test_a_file_in_the_way_is_an_error(oci: Runtime, bundle: Bundle) -> None:
    """ "If a file already exists at path that does not match the requested device, the runtime MUST generate an
    error." """
    (bundle.rootfs / "data/mine").write_text("a file")
    bundle.linux["devices"] = [device("/data/mine", "c", 1, 5)]
    oci.refuses(bundle)
    assert (bundle.rootfs / "data/mine").read_text() == "a file"


def test_devices_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """ "The runtime MAY supply them however it likes (with mknod, by bind mounting from the runtime mount
    namespace, ...)": only the latter works where mknod(2) is refused."""
    bundle.maps(200000)
    answers = oci.ask(bundle, "stat /dev/null /dev/tty", "write /dev/null x", "cat /dev/null")
    assert [line.split()[5] for line in answers["stat /dev/null /dev/tty"]] == ["1:3", "5:0"]
    assert answers.one("write /dev/null x") == "OK"


def test_devices_of_a_plain_directory(oci: Runtime, bundle: Bundle) -> None:
    """Without a mount on /dev the nodes are made in the root file system, and a second run finds them there."""
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    for _ in range(2):
        answers = oci.ask(bundle, "stat /dev/null", "access rw /dev/null")
        assert answers.one("stat /dev/null").split()[5] == "1:3"
    assert os.listdir(bundle.rootfs / "dev")


def test_the_default_device_list_allows_the_default_devices(oci: Runtime, bundle: Bundle) -> None:
    """Engines always write "deny all" first; the default devices work all the same, and mknod of others is of no
    use."""
    bundle.process["capabilities"]["bounding"].append("CAP_MKNOD")
    bundle.process["capabilities"]["permitted"].append("CAP_MKNOD")
    bundle.process["capabilities"]["effective"].append("CAP_MKNOD")
    answers = oci.ask(bundle, "access rw /dev/zero", "access rw /dev/tty", "mknod /tmp/mem c 1 1", "access r /tmp/mem")
    assert answers.one("access rw /dev/zero") == "OK"
    assert answers.one("access rw /dev/tty") in ("OK", "ENXIO")
    assert answers["access r /tmp/mem"] == ["EPERM"]


def test_device_paths_stay_inside(oci: Runtime, bundle: Bundle, directory: Path) -> None:
    """A device's path is resolved inside the container, as a mount's is."""
    (directory / "outside").mkdir()
    (bundle.rootfs / "link").symlink_to(directory / "outside")
    bundle.linux["devices"] = [device("/link/mine", "c", 1, 5)]
    oci.run(bundle.asks("true"))
    assert os.listdir(directory / "outside") == []
