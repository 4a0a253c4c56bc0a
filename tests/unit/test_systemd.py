"""Names of units, values of properties, and the wire: what systemd, sd-bus and GVariant say is the measure."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cgroups import limits, systemd, unit_properties
from runtime.cgroups.dbus import CallError, Connection, marshal, split, unmarshal
from runtime.errors import SpecError, UnsupportedError, WarrenError
from tests.helpers.host import require
from tests.unit.test_cgroup_limits import V1, V2, host

ROOT = host()
USER = host(uid_map="0 1000 1\n")


# ---- names


@pytest.mark.parametrize(
    ("slice", "path"),
    [
        ("system.slice", "/system.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
    ],
)
def test_slices_expand(slice: str, path: str) -> None:
    assert systemd.expand(slice) == path


@pytest.mark.parametrize("slice", ["", ".slice", "a", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "a b.slice"])
def test_other_slices_are_refused(slice: str) -> None:
    with pytest.raises(SpecError, match="no name of a slice"):
        systemd.expand(slice)


def test_three_parts_name_a_scope() -> None:
    assert systemd.name("a-b.slice:libpod:12ab", "id", ROOT) == ("a-b.slice", "libpod-12ab.scope")
    assert systemd.name("", "id", ROOT) == ("system.slice", "warren-id.scope")
    assert systemd.name(":p:n", "id", USER) == ("user.slice", "p-n.scope")


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a.slice:b:c:d", "a.slice:b:", "a.slice:b:c d", "a.slice:b:../c"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(SpecError, match=r"linux\.cgroupsPath"):
        systemd.name(path, "id", ROOT)


def test_a_slice_is_no_place_for_processes() -> None:
    with pytest.raises(UnsupportedError, match="is a slice"):
        systemd.name("a.slice:b:c.slice", "id", ROOT)


# ---- properties


def told(resources: dict[str, Any], mounts: str = V2) -> dict[str, object]:
    found = systemd.properties(limits.settings(resources, host(mounts), best_effort=True))
    return {name: value for name, (_, value) in found}


def test_limits_are_properties() -> None:
    resources = {
        "memory": {"limit": 1 << 30, "reservation": 1 << 29, "swap": 3 << 29},
        "cpu": {"shares": 1024, "quota": 25500, "period": 100000, "cpus": "0-2,9", "mems": "0"},
        "pids": {"limit": 0},
        "blockIO": {"weight": 500},
    }
    assert told(resources) == {
        "MemoryMax": 1 << 30,
        "MemoryLow": 1 << 29,
        "MemorySwapMax": 1 << 29,
        "CPUWeight": 100,
        "CPUQuotaPerSecUSec": 260000,
        "CPUQuotaPeriodUSec": 100000,
        "AllowedCPUs": b"\x07\x02",
        "AllowedMemoryNodes": b"\x01",
        "TasksMax": 1,
        "IOWeight": 4950,
    }


def test_limits_of_v1_are_properties_too() -> None:
    resources = {
        "memory": {"limit": 1 << 30},
        "cpu": {"shares": 512, "quota": -1, "period": 50000},
        "pids": {"limit": -1},
        "blockIO": {"weight": 500},
    }
    infinity = (1 << 64) - 1
    assert told(resources, V1) == {
        "MemoryLimit": 1 << 30,
        "CPUShares": 512,
        "CPUQuotaPerSecUSec": infinity,
        "CPUQuotaPeriodUSec": 50000,
        "TasksMax": infinity,
        "BlockIOWeight": 500,
    }


def test_unified_says_the_last_word_and_the_rest_is_the_kernels() -> None:
    unified = {"memory.high": "max", "memory.max": " 5000 ", "cpu.max": "max", "io.max": "7:0 rbps=1", "pids.max": "x"}
    infinity = (1 << 64) - 1
    assert told({"memory": {"limit": 4096}, "unified": unified}) == {
        "MemoryMax": 5000,
        "MemoryHigh": infinity,
        "CPUQuotaPerSecUSec": infinity,
    }


@pytest.mark.parametrize(("text", "mask"), [("0", b"\1"), ("8", b"\0\1"), ("0-15", b"\xff\xff"), ("1,1", b"\2")])
def test_lists_are_masks(text: str, mask: bytes) -> None:
    assert systemd._mask(text) == mask


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "99999", "-1", "1,,2", "²"])
def test_what_is_no_list_is_left_to_the_kernel(text: str) -> None:
    assert systemd._mask(text) == b""


def allowed(*rules: dict[str, Any]) -> tuple[object, list[tuple[str, str]]]:
    found = systemd.device_properties(list(rules), ROOT)
    assert found[1] == ("DeviceAllow", ("a(ss)", []))
    return found[0][1][1], found[-1][1][1]  # type: ignore[return-value]


DENY = {"allow": False, "access": "rwm"}


def test_device_rules_are_a_list_of_what_is_allowed() -> None:
    policy, nodes = allowed(
        {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"},
        DENY,
        {"allow": True, "type": "b", "major": 7, "minor": 0, "access": "rw"},
        {"allow": True, "type": "c", "major": 10},
    )
    assert policy == "strict"
    assert nodes[:2] == [("/dev/block/7:0", "rw"), ("char-10", "rwm")]
    assert ("/dev/char/1:3", "rwm") in nodes and ("char-136", "rwm") in nodes and ("block-*", "m") in nodes


@pytest.mark.parametrize(
    "rules",
    [
        [{"allow": True}],
        [{"allow": True, "type": "c", "minor": 3}],
        [{"allow": True, "type": "c", "major": 1, "minor": 8}, {"allow": False, "type": "c", "major": 1, "minor": 8}],
    ],
)
def test_what_systemd_cannot_say_it_keeps_out_of(rules: list[dict[str, Any]]) -> None:
    assert allowed(*rules) == ("auto", [])


# ---- annotations


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", "b", True),
        ("5", "i", 5),
        ("-0x10", "i", -16),
        ("uint64 18446744073709551615", "t", (1 << 64) - 1),
        ("@t 7", "t", 7),
        ("1.5", "d", 1.5),
        ("double 2", "d", 2.0),
        ("'a\\'b\\n'", "s", "a'b\n"),
        ('"x y"', "s", "x y"),
        ("objectpath '/a'", "o", "/a"),
        ("['a', 'b']", "as", ["a", "b"]),
        ("[uint32 1, 2]", "au", [1, 2]),
        ("@as []", "as", []),
        ("[['a'], @as []]", "aas", [["a"], []]),
    ],
)
def test_gvariant_text(text: str, kind: str, value: object) -> None:
    assert unit_properties.parse(text) == (kind, value)


BAD = ["", "tru", "uint64 -1", "byte 256", "'open", "[1,", "[", "[]", "[1 2]", "1 2", "@zz 1", "@ 1", "uint32", "1_0"]


@pytest.mark.parametrize("text", [*BAD, "[1,'a']", "boolean 1", "'x\\", "@as 'x'", "[" * 5000, "9" * 5000])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="annotation"):
        unit_properties.from_annotations({"org.systemd.property.Some": text})


@given(st.text(alphabet="[]'\"@, auint64s\\-0.", max_size=20))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    try:
        kind, value = unit_properties.parse(text)
    except (ValueError, IndexError):
        return
    marshal("v", (kind, value))


def test_annotations_name_properties() -> None:
    found = unit_properties.from_annotations(
        {"org.systemd.property.TimeoutStopSec": "1.5", "org.systemd.property.After": "['a']", "other": "x"}
    )
    assert found == [("After", ("as", ["a"])), ("TimeoutStopUSec", ("t", 1500000))]


@pytest.mark.parametrize("name", ["", "ab", "a.b", "Some=", "Söme"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="no name of a property"):
        unit_properties.from_annotations({"org.systemd.property." + name: "true"})


# ---- the wire

VALUES = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "(ss)": st.tuples(st.just("a"), st.just("b")),
}
TYPED = st.one_of([values.map(lambda value, kind=kind: (kind, value)) for kind, values in VALUES.items()])
LISTS = st.one_of([st.tuples(st.just("a" + kind), st.lists(values)) for kind, values in VALUES.items()])


@given(st.lists(st.one_of(TYPED, LISTS), max_size=8))
def test_what_is_marshalled_is_read_back(values: list[tuple[str, Any]]) -> None:
    signature = "".join(kind for kind, _ in values)
    assert list(split(signature)) == [kind for kind, _ in values]
    assert unmarshal(signature, marshal(signature, *[value for _, value in values])) == [value for _, value in values]
    assert unmarshal("av", marshal("av", values)) == [[value for _, value in values]]


def test_alignment_is_the_specifications() -> None:
    """dbus-specification, "Marshaling": arrays are padded before their first item, which their length leaves out."""
    assert marshal("at", [1]).hex(" ", 4) == "08000000 00000000 01000000 00000000"
    assert marshal("at", []).hex(" ", 4) == "00000000 00000000"
    body = marshal("ya(sv)", 1, [("a", ("b", True))])
    assert body.hex(" ", 4) == "01000000 10000000 01000000 61000162 00000000 01000000"


@contextmanager
def service(directory: Path, *answers: bytes) -> Iterator[str]:
    """Something that listens, and says these things whatever it hears."""
    path = str(directory / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as client:
                for answer in answers:
                    client.recv(65536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


WELCOME = b"DATA\r\nOK 0123456789abcdef\r\n"


def message(kind: int, body: bytes = b"", *fields: tuple[int, tuple[str, object]]) -> bytes:
    head = marshal("yyyyuua(yv)", ord("l"), kind, 0, 1, len(body), 9, list(fields))
    return head + bytes(-len(head) % 8) + body


def test_a_service_that_will_not_have_us(tmp_path: Path) -> None:
    with service(tmp_path, b"REJECTED EXTERNAL\r\nERROR\r\n") as path, pytest.raises(WarrenError, match="not accept"):
        Connection(path, bus=False)


NONSENSE = [b"", b"l\2\0\1" + b"\xff" * 12, b"l\2\0\1" + bytes(4) + b"\1\0\0\0\4\0\0\0abcdefgh"]


@pytest.mark.parametrize("answer", NONSENSE)
def test_a_service_that_talks_nonsense(tmp_path: Path, answer: bytes) -> None:
    with service(tmp_path, WELCOME, answer) as path:
        connection = Connection(path, bus=False)
        with pytest.raises(WarrenError, match="systemd"):
            connection.call("s", "/", "i", "Member")
        connection.close()


def test_an_error_carries_its_name_and_signals_wait(tmp_path: Path) -> None:
    signal = message(4, marshal("s", "job"), (3, ("s", "JobRemoved")), (8, ("g", "s")))
    refusal = message(3, marshal("s", "No such unit"), (4, ("s", "a.b.NoSuchUnit")), (5, ("u", 1)), (8, ("g", "s")))
    with service(tmp_path, WELCOME, signal + refusal) as path:
        connection = Connection(path, bus=False)
        with pytest.raises(CallError, match="StopUnit: No such unit") as error:
            connection.call("s", "/", "i", "StopUnit")
        assert error.value.name == "a.b.NoSuchUnit"
        assert connection.wait_for("JobRemoved", lambda values: True) == ["job"]
        connection.close()


def test_a_real_bus_understands_us(tmp_path: Path) -> None:
    require("dbus-daemon")
    path = tmp_path / "bus"
    command = ["dbus-daemon", "--session", f"--address=unix:path={path}", "--nofork", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            connection = Connection(str(path), bus=True)
            bus = "org.freedesktop.DBus"
            names = connection.call(bus, "/org/freedesktop/DBus", bus, "ListNames")[0]
            assert bus in names  # type: ignore[operator]
            owner = connection.call(bus, "/org/freedesktop/DBus", bus, "GetNameOwner", "s", bus)
            assert owner == [bus]
            with pytest.raises(CallError, match="Hello"):
                connection.call(bus, "/org/freedesktop/DBus", bus, "Hello")
            connection.close()
        finally:
            process.terminate()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Connection(str(tmp_path / "none"), bus=False)
