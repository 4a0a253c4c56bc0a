"""The rows of docs/limits.md for this kernel; what peers do is only printed."""

import contextlib

import pytest

from tests.helpers.limit_table import Limit, check, limits
from tests.helpers.oci import Bundle, Runtime
from tests.vm.guest.conftest import CGROUPS


@pytest.mark.parametrize("limit", limits(), ids=lambda limit: limit.name.replace(" ", "-"))
def test_what_the_kernel_can_hold_is_held(oci: Runtime, bundle: Bundle, limit: Limit) -> None:
    if oci.program.endswith("warren-oci"):
        check(oci, bundle, limit)
        return
    with contextlib.suppress(AssertionError):
        check(oci, bundle, limit)
    for left in CGROUPS.glob(f"wrn-{oci.name}*"):  # crun leaves the cgroup of what it refuses.
        left.rmdir()
