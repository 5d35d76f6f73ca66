"""The allocator of shared memory."""

import random

import pytest

from daemon.arena import Arena


def test_first_fit_uses_freed_memory_again() -> None:
    arena = Arena(256)
    first, second = arena.allocate(64), arena.allocate(64)
    assert (first, second) == (0, 64)
    arena.free(0)
    assert arena.allocate(1) == 0  # rounded up to a whole line, lowest address first


def test_neighbours_merge() -> None:
    arena = Arena(192)
    offsets = [arena.allocate(64) for _ in range(3)]
    assert arena.allocate(1) is None
    for offset in (offsets[0], offsets[2], offsets[1]):
        assert offset is not None
        arena.free(offset)
    assert arena.empty
    assert arena.allocate(192) == 0


def test_freeing_twice_is_an_error() -> None:
    arena = Arena(64)
    arena.allocate(1)
    arena.free(0)
    with pytest.raises(KeyError):
        arena.free(0)


def test_random_use_never_overlaps() -> None:
    arena, rng = Arena(10_000), random.Random(7)
    taken: dict[int, int] = {}
    for _ in range(2000):
        if taken and rng.random() < 0.5:
            offset = rng.choice(list(taken))
            del taken[offset]
            arena.free(offset)
        else:
            size = rng.randint(1, 2000)
            offset = arena.allocate(size)
            if offset is not None:
                assert offset + size <= 10_000
                assert all(offset + size <= o or o + s <= offset for o, s in taken.items())
                taken[offset] = size
    for offset in taken:
        arena.free(offset)
    assert arena.empty and arena.allocate(9_984) == 0
