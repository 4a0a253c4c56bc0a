"""The arithmetic of `make bench`, its table, and that its floor does what its bundle says."""

from pathlib import Path

import pytest

from tests.bench import bundle, figures, report, session, targets
from tests.bench.figures import Range, Target
from tests.bench.session import BACK_TO_BACK, Samples
from tests.bench.targets import Comparison

OURS = ("run", BACK_TO_BACK, "warren-oci")
THEIRS = ("run", BACK_TO_BACK, "crun")
BENCH = Path(report.__file__).parent


def test_medians_and_quartiles() -> None:
    assert figures.median([9, 1, 5]) == 5
    assert figures.median([4, 1, 2, 3]) == 2.5
    assert figures.quartiles([1, 2, 3, 4, 5]) == (2, 4)
    assert figures.quartiles([50, 10, 40, 20]) == (17.5, 42.5)
    assert figures.quartiles([7]) == (7, 7)


def test_a_ratio_is_of_medians_and_its_quartiles_are_of_rounds() -> None:
    # The machine is ten times slower in the last round, for both: only medians may notice.
    assert figures.ratio([1, 2, 30], [2, 4, 60]) == Range(0.5, 0.5, 0.5)
    assert figures.ratio([1, 2, 3], [1, 1, 2]) == Range(2, 1.25, 1.75)
    assert figures.difference([30, 50, 80], [10, 10, 10]) == Range(40, 30, 55)


def test_rounds_must_be_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        figures.ratio([1, 2], [1])


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.5, "met, and the stretch"), (0.501, "met"), (0.65, "met"), (0.6501, "**missed**")],
)
def test_an_upper_bound(value: float, verdict: str) -> None:
    assert Target(0.65, 0.5).verdict(value) == verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.7, "met, and the stretch"), (1.69, "met"), (1.5, "met"), (1.49, "**missed**")],
)
def test_a_lower_bound(value: float, verdict: str) -> None:
    assert Target(1.5, 1.7, at_least=True).verdict(value) == verdict


def test_without_a_stretch_there_is_none_to_meet() -> None:
    assert Target(0.25).verdict(0) == "met"


def test_a_line_shows_the_ratio_and_what_it_is_worth() -> None:
    samples: Samples = {OURS: [9.0, 10.0, 11.0], THEIRS: [20.0, 20.0, 20.0]}
    assert report.line(Comparison(OURS, THEIRS, Target(0.65, 0.5)), samples) == (
        *("run", BACK_TO_BACK, "warren-oci", "10.00 ms", "crun", "20.00 ms"),
        *("0.50 (0.47 to 0.53)", "≤ 0.65 (0.5)", "met, and the stretch"),
    )


def test_a_difference_and_a_value_of_its_own_have_units() -> None:
    samples: Samples = {OURS: [60.0], THEIRS: [10.0], ("created init", "", "warren-oci"): [80.0]}
    apart = report.line(Comparison(OURS, THEIRS, Target(45, 25), "difference"), samples)
    assert apart[6:] == ("+50.0 ms (+50.0 to +50.0)", "≤ 45 (25) ms", "**missed**")
    alone = report.line(Comparison(("created init", "", "warren-oci"), None, Target(200, 60), "itself"), samples)
    assert alone[2:] == ("warren-oci", "80 KiB", "", "", "", "≤ 200 (60) KiB", "met")


def test_columns_line_up() -> None:
    assert report.render([("a", "bb"), ("ccc", "d")]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"


def test_every_target_is_of_something_that_is_measured() -> None:
    """A scenario that is renamed must not lose its target silently."""
    samples: Samples = {key: [1.0] for key in everything()}
    lines = targets.comparisons(samples)
    assert {line.theirs for line in lines if line.target} >= set(targets.TARGETS)
    assert all(line.ours in samples and (line.theirs is None or line.theirs in samples) for line in lines)


def everything() -> list[session.Key]:
    scenarios = ("run", *targets.FILTERED, "create + start + delete", "exec", "state")
    timed = [(what, spacing, who) for what in scenarios for spacing in session.SPACINGS for who in PROGRAMS]
    host = [("host true", spacing, who) for spacing in session.SPACINGS for who in ("warren", "bwrap")]
    loops = [("launch", session.IN_A_LOOP, who) for who in ("run", "bundle", "sandbox", "floor")]
    rates = [("launches a second", session.IN_A_LOOP, who) for who in ("run", "threads")]
    rates.append(("first instruction", session.IN_A_LOOP, "pool"))
    memory = [(what, "", who) for what in ("created init", "peak of run", "peak of create") for who in PROGRAMS]
    return [*timed, *host, *loops, *rates, *memory]


PROGRAMS = ("warren-oci", "crun", "runc")


def test_only_the_marked_part_of_the_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.publish("new", page)
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"page\.md lacks the marks"):
        report.publish("new", page)


def test_the_engine_s_profile_differs_from_ours_in_its_architectures_only() -> None:
    ours, theirs = bundle.profile(), bundle.profile(bundle.ENGINE)
    assert len(theirs["architectures"]) > len(ours["architectures"]) == 1
    assert theirs | {"architectures": ours["architectures"]} == ours


def test_the_floor_does_what_the_bundle_says() -> None:
    source = (BENCH / "floor.h").read_text()
    for path in (*bundle.MASKED, *bundle.READ_ONLY, *(mount[0] for mount in bundle.MOUNTS)):
        assert f'"{path}"' in source
    assert sum(source.count(f'"{start}') for start in ("/proc/", "/sys/firmware")) == len(bundle.MASKED) + len(
        bundle.READ_ONLY
    ) + len(["/proc/self/fd", "its 0", "its 1", "its 2", "/proc/kcore as a link"])
