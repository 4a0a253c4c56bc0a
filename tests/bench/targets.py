"""What is compared with what, and the targets: a table to be read, and to be changed in one place."""

from dataclasses import dataclass
from typing import Literal

from .figures import Range, Target, difference, ratio, summary
from .session import AFTER_IDLE, AT_REST, BACK_TO_BACK, IN_A_LOOP, SPACINGS, Key, Samples

How = Literal["ratio", "difference", "itself"]


@dataclass(frozen=True)
class Comparison:
    """One line of the report.  Against nobody, the value is our own."""

    ours: Key
    theirs: Key | None = None
    target: Target | None = None
    how: How = "ratio"

    def value(self, samples: Samples) -> Range:
        ours = samples[self.ours]
        if self.theirs is None:
            return summary(ours)
        return (difference if self.how == "difference" else ratio)(ours, samples[self.theirs])


OURS = "warren-oci"
FILTERED = ("run, seccomp", "run, engine's seccomp")
FLOOR = ("launch", IN_A_LOOP, "floor")

# Scenario, spacing, peer: the target.
TARGETS: dict[Key, Target] = {
    ("run", BACK_TO_BACK, "crun"): Target(1.5, 1.2),
    ("run", BACK_TO_BACK, "runc"): Target(0.45),
    ("run", AFTER_IDLE, "crun"): Target(0.8, 0.5),
    **{(scenario, spacing, "crun"): Target(0.65, 0.5) for scenario in FILTERED for spacing in SPACINGS},
    **{(scenario, spacing, "runc"): Target(0.25) for scenario in FILTERED for spacing in SPACINGS},
    **{("create + start + delete", spacing, "crun"): Target(1.6, 1.2) for spacing in SPACINGS},
    **{("create + start + delete", spacing, "runc"): Target(0.6) for spacing in SPACINGS},
    **{("exec", spacing, "crun"): Target(2, 1.5) for spacing in SPACINGS},
    **{("exec", spacing, "runc"): Target(0.7) for spacing in SPACINGS},
}


def comparisons(samples: Samples) -> list[Comparison]:
    """All lines, for whatever peers were measured."""
    return [*_commands(samples), *_host(), *_library(), *_memory(samples)]


def _commands(samples: Samples) -> list[Comparison]:
    """warren-oci against each peer of the same scenario and spacing."""
    scenarios = [scenario for scenario, spacing, who in samples if (spacing, who) == (BACK_TO_BACK, OURS)]
    return [
        Comparison((scenario, spacing, OURS), (scenario, spacing, peer), TARGETS.get((scenario, spacing, peer)))
        for scenario in scenarios
        for spacing in SPACINGS
        for peer in _peers(samples, scenario, spacing)
    ]


def _peers(samples: Samples, scenario: str, spacing: str) -> list[str]:
    return [who for *key, who in samples if key == [scenario, spacing] and who != OURS]


def _host() -> list[Comparison]:
    target = Target(45, 25)
    keys = [("host true", spacing) for spacing in SPACINGS]
    return [Comparison((*key, "warren"), (*key, "bwrap"), target, "difference") for key in keys]


def _library() -> list[Comparison]:
    crun = ("run, seccomp", BACK_TO_BACK, "crun")
    launches = "launches a second"
    lines = [
        Comparison(("launch", IN_A_LOOP, what), theirs, target)
        for what in ("run", "bundle")
        for theirs, target in ((crun, Target(0.2)), (FLOOR, Target(2, 1.5)))
    ]
    default = ("run, engine's seccomp", BACK_TO_BACK, "crun")
    lines.append(Comparison(("launch", IN_A_LOOP, "sandbox"), default, Target(0.3)))
    lines.append(Comparison(("first instruction", IN_A_LOOP, "pool"), None, Target(1), "itself"))
    one, two = (launches, IN_A_LOOP, "run"), (launches, IN_A_LOOP, "threads")
    return [*lines, Comparison(two, one, Target(1.5, 1.7, at_least=True))]


def _memory(samples: Samples) -> list[Comparison]:
    peers = _peers(samples, "created init", AT_REST)
    init: Key = ("created init", AT_REST, OURS)
    peaks: list[Key] = [("peak of run", AT_REST, OURS), ("peak of create", AT_REST, OURS)]
    return [
        Comparison(init, None, Target(200, 60), "itself"),
        *[Comparison(key, (*key[:2], peer)) for key in (init, *peaks) for peer in peers],
    ]
