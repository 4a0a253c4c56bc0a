"""What a contrast makes of its figures: claims, sentences, a table and a page."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from runtime.contrast.findings import claims, document, findings, isolation_table, text_table
from runtime.contrast.measure import Plan, Result
from runtime.contrast.report import html
from runtime.contrast.rows import all_rows


def result(key: str, shared: bool = True, **samples: list[float]) -> Result:
    found = Result(next(row for row in all_rows() if row.key == key))
    found.samples = dict(samples)
    reach = {"mount": "Operation not permitted" if shared else "yes", "host_file": "No such file or directory"}
    found.isolation = {
        "kernel": "1.0" if shared else "2.0",
        "kernel_shared": shared,
        "calls_answered": 300,
        "reach": reach,
    }
    found.guest_memory = {"memory_total": 1 << 27}
    return found


def unavailable(key: str, reason: str) -> Result:
    found = result(key)
    found.samples, found.isolation, found.row.reason = {}, {}, reason
    return found


def by_claim(results: list[Result]) -> dict[str, bool]:
    return {claim["claim"]: claim["shown"] for claim in claims(results)}


BASE = {"started": [0.01, 0.02], "cpu": [0.01], "disk": [100.0], "memory": [1e5]}


def test_a_claim_is_shown_when_every_sample_says_so() -> None:
    slow = {"started": [1.0, 2.0], "cpu": [1.0], "disk": [1e7], "memory": [1e8]}
    assert all(by_claim([result("container", **BASE), result("uml", False, **slow)]).values())


@pytest.mark.parametrize(("samples", "shown"), [([0.021, 5.0], True), ([0.02, 5.0], False), ([0.001], False)])
def test_a_claim_fails_where_samples_overlap(samples: list[float], shown: bool) -> None:
    found = by_claim([result("container", **BASE), result("uml", False, started=samples)])
    assert found["Containers start faster"] is shown


def test_one_machine_that_differs_is_named() -> None:
    fast, slow = result("uml", False, started=[0.001]), result("pc-tcg", False, started=[9.0])
    claim = claims([result("container", **BASE), fast, slow])[0]
    assert not claim["shown"] and claim["why"].endswith("not less than user-mode Linux")


def test_isolation_is_less_only_where_the_kernel_is_shared() -> None:
    name = "Containers isolate less"
    assert by_claim([result("container"), result("uml", False)])[name]
    assert not by_claim([result("container"), result("uml", True)])[name]
    assert not by_claim([result("container", False), result("uml", False)])[name]


def test_without_machines_nothing_is_shown() -> None:
    results = [result("container", **BASE), unavailable("uml", "it is not installed")]
    assert not any(by_claim(results).values())
    assert all("nothing to compare" in claim["why"] for claim in claims(results))


def test_findings_compare_with_the_container() -> None:
    results = [
        result("container", started=[0.01], throughput=[1e9]),
        result("uml", False, started=[1.0], throughput=[1e7]),
    ]
    first, second, *_ = findings(results)
    assert first == (
        "Start to the program's first instruction: container 10 ms, user-mode Linux 1,000 (100 times as much)."
    )
    assert "(100 times less)" in second


def told(**changes: Any) -> dict[str, Any]:
    base = result("container", started=[0.01, 0.03, 0.02], disk=[0.0])
    machine = result("uml", False, started=[1.5], disk=[2e7])
    machine.missing = {"rtt": "no <slirp> & so on"}
    machine.density = {"count": 3, "memory": 3e8, "seconds": 4.0}
    plan = Plan("an <image>", command=["a & b"])
    return {**document(plan, [base, machine, unavailable("pc-kvm", "KVM: <hangs>")], 12.3), **changes}


def test_a_document_is_plain_data() -> None:
    figures = told()["rows"][0]["metrics"]["started"]
    assert figures == {"median": 20.0, "min": 10.0, "max": 30.0, "samples": [10.0, 30.0, 20.0]}
    assert told()["rows"][2] == {
        "key": "pc-kvm", "title": "PC (KVM)", "available": False, "reason": "KVM: <hangs>",
        "term": "full virtualization (IDE, e1000, VGA, firmware) on a hardware-assisted hypervisor",
    }  # fmt: skip


def test_the_table_tells_everything() -> None:
    text = text_table(told())
    assert "20 (10 to 30)" in text and "1,500" in text
    assert "not run: PC (KVM)" in text and "KVM: <hangs>" in text
    assert "not measured: user-mode Linux, rtt: no <slirp>" in text
    assert "shown: Containers start faster" in text


def test_what_root_reaches_is_told_apart() -> None:
    answers = dict(isolation_table([row for row in told()["rows"] if row["available"]]))
    assert answers["Root may mount a file system"] == ["no", "its own"]
    assert answers["Root may read a file of the host"] == ["no", "no"]
    assert answers["Root may use bpf"] == ["not tried", "not tried"]


def test_the_page_is_well_formed_and_escaped() -> None:
    page = html(told())
    body = page[page.index("<body>") : page.index("</body>") + 7].replace("<br>", "<br/>").replace("&ensp;", " ")
    tree = ElementTree.fromstring(body)
    text = "".join(tree.itertext())
    assert "an <image>" in text and "no <slirp> & so on" in text and "KVM: <hangs>" in text
    assert "prefers-color-scheme: dark" in page and "http" not in page


def test_bars_lie_on_a_logarithmic_scale() -> None:
    page = html(told())
    plot = page[page.index("<svg") : page.index("</svg>")]
    widths = [float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', plot)]
    grid = [float(at) for at in re.findall(r'<line class="grid" x1="([\d.]+)"', plot)]
    decade = grid[1] - grid[0]
    # 20 ms and 1,500 ms.
    assert (widths[1] - widths[0]) / decade == pytest.approx(1.875, abs=0.02)


def test_zero_has_no_bar_to_speak_of() -> None:
    page = html(told())
    plot = page[page.index("Files needed") :]
    first = float(re.findall(r'<rect[^>]* width="([\d.]+)"', plot)[0])
    assert first == 2.0
