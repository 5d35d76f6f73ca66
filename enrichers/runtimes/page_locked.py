"""Memory from which a GPU reads without the processor's help: page-locked by the CUDA driver, and used again."""

import ctypes
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

log = logging.getLogger(__name__)

#: CU_MEMHOSTALLOC_PORTABLE of the CUDA driver API: locked for every context of the process, ONNX Runtime's too
PORTABLE = 0x01
#: idle buffers that are kept: two batches in flight, of networks with up to two inputs
KEPT = 4
#: bytes of the smallest buffer
SMALLEST = 1 << 16

#: a number of bytes → that many bytes as a one-dimensional uint8 array
Allocate = Callable[[int], NDArray[np.uint8]]


def pageable(size: int) -> NDArray[np.uint8]:
    """Ordinary memory."""
    return np.empty(size, np.uint8)


def page_locked() -> Allocate:
    """Page-locked memory of the first GPU's driver; ordinary memory where there is none to be had: a copy out of it is
    slower and the same."""
    try:
        return Driver(ctypes.CDLL("libcuda.so.1")).allocate
    except OSError as error:
        log.debug("batches travel to the GPU out of ordinary memory, which is slower: %s", error)
        return pageable


class Driver:
    """cuMemHostAlloc and cuMemFreeHost of the CUDA driver API, in the first device's primary context: the one that the
    CUDA runtime, and so ONNX Runtime, works in. (ONNX Runtime's Python API allocates no such memory for CUDA.)"""

    def __init__(self, library: Any) -> None:
        """Raises OSError where the driver finds no device."""
        self._library = library
        self._context = ctypes.c_void_p()
        device = ctypes.c_int()
        self._checked("cuInit", 0)
        self._checked("cuDeviceGet", ctypes.byref(device), 0)
        self._checked("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

    def allocate(self, size: int) -> NDArray[np.uint8]:
        """Page-locked memory, freed with the last array that is a view of it; ordinary memory where none is left."""
        pointer = ctypes.c_void_p()
        try:
            with self._current():
                self._checked("cuMemHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), PORTABLE)
        except OSError as error:
            log.debug("%d bytes of ordinary memory instead of page-locked: %s", size, error)
            return pageable(size)
        memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
        weakref.finalize(memory, self._free, pointer).atexit = False  # the driver frees what a process leaves
        return np.asarray(memory)

    def _free(self, pointer: ctypes.c_void_p) -> None:
        with self._current():
            self._checked("cuMemFreeHost", pointer)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """The primary context is this thread's for as long as it lasts."""
        self._checked("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._checked("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _checked(self, function: str, *arguments: Any) -> None:
        if (status := getattr(self._library, function)(*arguments)) != 0:
            raise OSError(f"{function} of the CUDA driver answered {status}")


class Buffers:
    """Buffers that are lent for a call and used again. Several threads may borrow at once."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._idle: list[NDArray[np.uint8]] = []  # from the smallest to the largest
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[NDArray[Any]]:
        """An array of this shape, with anything in it."""
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._taken(wanted)
        try:
            yield memory[:wanted].view(dtype).reshape(shape)
        finally:
            with self._lock:
                self._idle = sorted([*self._idle, memory], key=len)[-KEPT:]

    def _taken(self, wanted: int) -> NDArray[np.uint8]:
        with self._lock:
            for n, memory in enumerate(self._idle):
                if len(memory) >= wanted:
                    return self._idle.pop(n)
        return self._allocate(max(SMALLEST, 1 << wanted.bit_length()))
