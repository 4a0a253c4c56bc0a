"""The same bundle and the same runtimes as in user-mode Linux."""

from tests.vm.guest.conftest import bundle, not_yet, probe_program, runtime_program

__all__ = ["bundle", "not_yet", "probe_program", "runtime_program"]
