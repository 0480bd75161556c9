"""A Beam step over few, large elements that works on some of them at once.

Arrow and numpy work without the interpreter's lock, so one worker can read or write one element
while it sorts another. Beam's own parallelism is over workers; this is within one.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

# Elements in work at once; with the one that comes in, they bound the memory of a worker.
THREADS: Final = 2


class OverlappedMap(beam.DoFn):  # type: ignore[misc]  # Beam has no types
    """`function` over elements, `THREADS` at a time; outputs in the order of the elements.

    For bounded input in the global window.

    Args:
        function: element -> outputs, each maybe a `TaggedOutput`; called from other threads.
    """

    def __init__(self, function: Callable[[Any], list[Any]]) -> None:
        self._function = function
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[list[Any]]] = deque()

    def setup(self) -> None:
        """Beam's hook: let Arrow use the C library's allocator in this worker.

        The large, short-lived columns of several threads cost jemalloc and mimalloc twice as
        much time in the kernel, which they ask for the same pages again and again.
        """
        pa.set_memory_pool(pa.system_memory_pool())

    def start_bundle(self) -> None:
        """Beam's hook: nothing is left over from a bundle that failed."""
        self._close()
        self._pool = ThreadPoolExecutor(THREADS)

    def process(self, element: Any) -> Iterator[Any]:
        """Beam's hook: start this element; hand out the oldest when enough are in work."""
        if self._pool is None:
            msg = "an element came before its bundle began"
            raise RuntimeError(msg)
        self._waiting.append(self._pool.submit(self._function, element))
        if len(self._waiting) > THREADS:
            yield from self._waiting.popleft().result()

    def finish_bundle(self) -> Iterator[Any]:
        """Beam's hook: hand out the rest."""
        try:
            while self._waiting:
                for output in self._waiting.popleft().result():
                    if isinstance(output, TaggedOutput):
                        yield TaggedOutput(output.tag, _in_global_window(output.value))
                    else:
                        yield _in_global_window(output)
        finally:
            self._close()

    def teardown(self) -> None:
        """Beam's hook: leave no thread behind, even after a failure."""
        self._close()

    def _close(self) -> None:
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _in_global_window(value: Any) -> WindowedValue:
    return WindowedValue(value, MIN_TIMESTAMP, (GlobalWindow(),))
