"""The same bundles, where systemd has the controllers in v1 hierarchies; crun refuses such hosts."""

import pytest

from tests.vm.guest.conftest import bundle, not_yet, probe_program, program_of
from tests.vm.systemd.conftest import oci

__all__ = ["bundle", "not_yet", "oci", "probe_program"]


@pytest.fixture(params=["runc", "warren-oci"])
def runtime_program(request: pytest.FixtureRequest) -> str:
    return program_of(request.param)
