"""What the kernel has a file for is held, and the rest is refused; `-rP` prints the rows of docs/limits.md.

Machines with cgroup v2 run it as well (tests/vm).
"""

import pytest

from tests.helpers.limit_table import Limit, check, limits
from tests.helpers.oci import Bundle, Runtime


@pytest.mark.parametrize("limit", limits(), ids=lambda limit: limit.name.replace(" ", "-"))
def test_what_the_kernel_can_hold_is_held(oci: Runtime, bundle: Bundle, limit: Limit) -> None:
    check(oci, bundle, limit)
