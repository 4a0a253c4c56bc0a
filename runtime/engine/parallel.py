"""The same for many containers, by a few threads: while one waits for the kernel, another is in Python."""

import _thread
import sys
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

THREADS = 4
_SWITCH_SECONDS = 0.0005
"""The default, 5 ms, is as long as a launch."""


def in_parallel(act: "Callable[[int], T]", count: int) -> "Iterator[T]":
    """act(1) ... act(count), in no certain order; what it raises first is raised when the others have ended.

    What the other threads have finished by then comes before.  To close the iterator ends it likewise.
    """
    results: SimpleQueue[tuple[bool, object]] = SimpleQueue()
    numbers = list(range(count, 0, -1))

    def work() -> None:
        try:
            while numbers:
                results.put((True, act(numbers.pop())))
        except BaseException as error:
            numbers.clear()
            results.put((False, error))
        results.put((False, None))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    threads = min(THREADS, count)
    failed: BaseException | None = None
    try:
        for _ in range(threads):
            _thread.start_new_thread(work, ())
        while threads:
            good, result = results.get()
            if good:
                yield result  # type: ignore[misc]
            elif result is None:
                threads -= 1
            else:
                failed = failed or result  # type: ignore[assignment]
    finally:
        numbers.clear()
        while threads:
            threads -= results.get() == (False, None)
        sys.setswitchinterval(interval)
    if failed:
        raise failed
