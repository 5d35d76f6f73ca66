"""A stretch of shared memory that one decode worker fills with pixels and inference workers read without copying."""

from bisect import insort


class Arena:
    """Which parts of a stretch of memory are taken: first fit, lowest address first, so that memory once touched is
    used again. Offsets and sizes are bytes, rounded up to whole cache lines."""

    #: bytes; keeps rows of different images out of each other's cache lines
    ALIGNMENT = 64

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[tuple[int, int]] = [(0, size)]  # offset, length; sorted, never adjacent
        self._taken: dict[int, int] = {}

    @property
    def empty(self) -> bool:
        return not self._taken

    def allocate(self, size: int) -> int | None:
        """The offset of `size` free bytes; None where there is no such gap at present."""
        size = max(self.ALIGNMENT, -(-size // self.ALIGNMENT) * self.ALIGNMENT)
        for index, (offset, length) in enumerate(self._free):
            if length >= size:
                if length == size:
                    del self._free[index]
                else:
                    self._free[index] = (offset + size, length - size)
                self._taken[offset] = size
                return offset
        return None

    def free(self, offset: int) -> None:
        """Gives an allocation back. Raises KeyError where there is none at `offset`."""
        length = self._taken.pop(offset)
        insort(self._free, (offset, length))
        merged: list[tuple[int, int]] = []
        for start, size in self._free:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        self._free = merged
