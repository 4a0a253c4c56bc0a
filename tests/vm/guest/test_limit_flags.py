"""Limits of `warren run` where cgroup v2 holds them: the same tests as on the host."""

from pathlib import Path

import pytest

from tests.helpers.warren import Result, Warren
from tests.privileged.test_limit_flags import (  # noqa: F401
    Run,
    root,
    test_a_fifth_of_a_processor_is_a_fifth,
    test_a_single_process_runs_and_forks_nothing,
    test_a_writer_over_its_memory_is_killed_and_that_is_said,
    test_little_memory_is_enough_for_a_little_program,
    test_too_little_memory_to_start_is_said,
    test_what_v2_has_not_is_refused_or_noted,
)


@pytest.fixture
def run(root: Path) -> Run:  # noqa: F811
    """Without an overlay, for the machine's kernel has none over layers that are not attached, and without nftables."""

    def start(*words: str) -> Result:
        *options, script = words
        return Warren()("run", *options, "--network", "none", "--write", "--rootfs", root, "sh", "-c", script)

    return start
