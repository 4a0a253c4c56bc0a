"""The same table where there are cpuset and hugetlb."""

from tests.vm.guest.test_limit_table import test_what_the_kernel_can_hold_is_held

__all__ = ["test_what_the_kernel_can_hold_is_held"]
