"""`warren contrast`: figures that are plausible by construction, and a report that a browser shows."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.contrast.rows import all_rows, find_machines
from runtime.contrast.session import PROBE, Instance, Source, make_layer
from tests.helpers.host import require
from tests.helpers.warren import Warren

Json = dict


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("root")
    require("user-mode-linux")
    root = tmp_path_factory.mktemp("root")
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "bin/true").symlink_to("busybox")
    root.chmod(0o755)
    return root


@pytest.fixture(scope="module")
def measured(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Path]:
    """One round of what boots fast."""
    report = tmp_path_factory.mktemp("report") / "report.html"
    rows = [word for name in ("process", "container", "uml") for word in ("--row", name)]
    done = Warren()(
        "contrast", "-q", "--rounds", "1", *rows, "--budget", "200m", "--format", "json", "--report", report,
        "--rootfs", rootfs, timeout=300,
    )  # fmt: skip
    return json.loads(done.ok().out), report


def rows_of(told: Json) -> dict[str, Json]:
    return {row["key"]: row for row in told["rows"]}


def test_kernels_are_whose_they_should_be(measured: tuple[Json, Path]) -> None:
    rows = rows_of(measured[0])
    release = os.uname().release
    assert rows["process"]["isolation"]["kernel"] == rows["container"]["isolation"]["kernel"] == release
    assert rows["container"]["isolation"]["kernel_shared"] and not rows["uml"]["isolation"]["kernel_shared"]
    assert rows["uml"]["isolation"]["kernel"] != release


def test_every_figure_is_there_and_ordered(measured: tuple[Json, Path]) -> None:
    told, _ = measured
    for row in rows_of(told).values():
        missing = row["missing"]
        for metric in told["metrics"]:
            if metric["key"] in missing:
                continue
            figure = row["metrics"][metric["key"]]
            assert figure["min"] <= figure["median"] <= figure["max"]
            assert figure["min"] > 0 or (row["key"], metric["key"]) == ("process", "disk")
        assert row["metrics"]["started"]["median"] <= row["metrics"]["exited"]["median"]


def test_a_machine_costs_more_than_a_container(measured: tuple[Json, Path]) -> None:
    """Not how much more; but a kernel that boots is never free."""
    rows = rows_of(measured[0])
    for metric in ("started", "cpu", "memory", "disk", "syscall"):
        container, machine = (rows[name]["metrics"][metric]["median"] for name in ("container", "uml"))
        assert machine > container, metric
    assert all(claim["shown"] for claim in measured[0]["claims"]), measured[0]["claims"]


def test_isolation_is_told_apart(measured: tuple[Json, Path]) -> None:
    rows = rows_of(measured[0])
    container, machine = rows["container"]["isolation"], rows["uml"]["isolation"]
    assert container["processes"] == 1 and machine["processes"] == 2
    for name in ("host_file", "host_process"):
        assert container["reach"][name] != "yes" and machine["reach"][name] != "yes"
    for name in ("mount", "kernel_module", "reboot", "clock"):
        assert container["reach"][name] != "yes" and machine["reach"][name] == "yes"
    assert container["calls_denied"] > 50 > machine["calls_denied"]
    assert rows["process"]["isolation"]["reach"] == {}, "nothing is tried on the host"
    assert rows["uml"]["guest"]["memory_total"] < 128 << 20 < rows["container"]["guest"]["memory_total"]


def test_many_ran_at_once_within_the_budget(measured: tuple[Json, Path]) -> None:
    rows = rows_of(measured[0])
    assert rows["container"]["density"]["count"] == 64
    assert 1 <= rows["uml"]["density"]["count"] <= 8
    assert rows["uml"]["density"]["memory"] > rows["container"]["density"]["memory"]


def test_memory_of_a_machine_is_at_least_what_its_guest_touches(rootfs: Path, tmp_path: Path) -> None:
    rows = [row for row in all_rows() if row.kind in ("container", "uml")]
    find_machines(rows, "", 60)
    source = Source("", str(rootfs), [], make_layer(), str(tmp_path))
    touched = 32 << 20
    for row in rows:
        with Instance(row, source, [PROBE, "hold", str(touched)], memory="128m") as instance:
            instance.start()
            instance.ready()
            assert touched <= instance.memory() < 8 * touched, row


def test_rows_that_cannot_run_say_why(rootfs: Path) -> None:
    done = Warren()(
        "contrast", "-q", "--rounds", "1", "--row", "container", "--row", "microvm-tcg", "--no-density",
        "--kernel", "/etc/passwd", "--rootfs", rootfs, timeout=120,
    ).ok()  # fmt: skip
    assert "not run: microvm (TCG)" in done.out and "no Linux kernel" in done.out
    assert "NOT shown: Containers start faster: there is nothing to compare with here" in done.out


def test_a_users_command_is_what_is_timed(rootfs: Path) -> None:
    words = ["contrast", "-q", "--rounds", "1", "--row", "container", "--no-density", "--rootfs", rootfs, "--"]
    told = json.loads(Warren()(*words[:-1], "--format", "json", "--", "/bin/busybox", "sleep", "0.4").ok().out)
    figures = rows_of(told)["container"]["metrics"]
    assert figures["started"]["median"] < figures["exited"]["median"] - 350
    Warren()(*words, "/missing").fails(127, "no such file")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "no image is given"),
        (["--row", "xen", "host"], "--row 'xen' is unknown"),
        (["--report", "here.pdf", "host"], "is not called FILE.html"),
        (["--rootfs", "/nonexistent"], "not a directory"),
        (["--guest-memory", "much", "host"], "--guest-memory"),
        (["no/such:image:name"], "no/such:image:name"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], part: str) -> None:
    require("root")
    Warren()("contrast", "-q", *words).fails(125, part)


def test_the_report_is_one_page_that_a_browser_shows(measured: tuple[Json, Path], tmp_path: Path) -> None:
    require("chromium")
    _, report = measured
    text = report.read_text()
    assert "http://" not in text and "https://" not in text and "<script" not in text and "@import" not in text
    common = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/profile", "--window-size=1000,1200",
    ]  # fmt: skip
    sizes = {}
    for scheme, setting in (("light", "1"), ("dark", "0")):
        picture = tmp_path / f"{scheme}.png"
        command = [
            *common,
            f"--blink-settings=preferredColorScheme={setting}",
            f"--screenshot={picture}",
            f"file://{report}",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        sizes[scheme] = picture.read_bytes()
    assert sizes["light"] != sizes["dark"]
    assert all(len(data) > 20_000 for data in sizes.values()), "an empty page compresses to nothing"
    shown = subprocess.run([*common, "--dump-dom", f"file://{report}"], check=True, capture_output=True, timeout=120)
    assert shown.stdout.count(b"<svg") >= 10 and b"user-mode Linux" in shown.stdout
