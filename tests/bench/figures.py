"""The arithmetic: medians, quartiles, ratios, and whether a target is met.  Nothing here measures anything."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Series = Sequence[float]
"""One value for each round, in the order of the rounds."""


@dataclass(frozen=True)
class Range:
    """A value between the quartiles of what single rounds gave."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Target:
    """A bound on a value, and a stricter one to aim at."""

    bound: float
    stretch: float | None = None
    at_least: bool = False

    def verdict(self, value: float) -> str:
        """The value counts as it is, not as it is printed: 0.652 misses 0.65."""
        if self.stretch is not None and self._meets(value, self.stretch):
            return "met, and the stretch"
        return "met" if self._meets(value, self.bound) else "**missed**"

    def _meets(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


def median(values: Series) -> float:
    return statistics.median(values)


def quartiles(values: Series) -> tuple[float, float]:
    """25 and 75 per cent, interpolated; a single value is its own quartiles."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def summary(values: Series) -> Range:
    return Range(median(values), *quartiles(values))


def ratio(ours: Series, theirs: Series) -> Range:
    """The ratio of the medians; the quartiles are those of the ratios within each round, which drift cannot widen."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Range(median(ours) / median(theirs), *quartiles(pairs))


def difference(ours: Series, theirs: Series) -> Range:
    """As ratio(), by subtraction."""
    pairs = [one - other for one, other in zip(ours, theirs, strict=True)]
    return Range(median(ours) - median(theirs), *quartiles(pairs))
