"""How many rows a network takes a call on a GPU: of a few fixed sizes the one that measuring finds fastest."""

import math
from collections import Counter

#: calls of a size before its time counts: in the first one the runtime chooses its algorithms and takes its memory
WARM = 1
#: calls of a size that are timed before it is compared with others; the shortest counts: other lanes lengthen calls
TIMED = 2


class BatchSize:
    """The powers of two up to `most`, and what a call of each takes.

    A GPU's libraries choose algorithms, or build engines, for each shape that they meet; so they meet few. Sizes are
    tried from the smallest on as work comes, none that is larger than the rows that wait would fill. Lanes may use one
    object at once: a count that two of them lose costs one more timed call.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: Counter[int] = Counter()
        self._seconds: dict[int, float] = {}

    @property
    def most(self) -> int:
        """The largest size, as far as is known by now."""
        return self._most

    def of(self, rows: int) -> int:
        """The size of the next call where `rows` wait; more than those where the rest is padding."""
        sizes = [1]
        while sizes[-1] < rows and 2 * sizes[-1] <= self._most:
            sizes.append(2 * sizes[-1])
        for size in sizes:
            if self._calls[size] < WARM + TIMED:
                return size
        return min(sizes, key=lambda size: (math.ceil(rows / size) * self._seconds[size], -size))

    def took(self, size: int, seconds: float) -> None:
        """A call of `size` rows took `seconds`: for each element of a row where rows differ in shape."""
        self._calls[size] += 1
        if self._calls[size] > WARM:
            self._seconds[size] = min(seconds, self._seconds.get(size, math.inf))

    def too_many(self, size: int) -> bool:
        """The device's memory did not suffice for `size` rows; whether a smaller size is left."""
        self._most = min(self._most, max(1, size // 2))
        return size > 1
