"""Embeddings as BSON binary vectors (subtype 9, float32) and back, without a Python number in between."""

from collections.abc import Iterable

import numpy as np
from bson.binary import VECTOR_SUBTYPE, Binary
from numpy.typing import NDArray

Vector = NDArray[np.float32]

#: data type FLOAT32 and no padding bits, as the BSON specification of binary vectors has it
_FLOAT32 = b"\x27\x00"


def to_binary(vector: Vector) -> Binary:
    """A vector of shape (d,) → BSON binary vector."""
    return Binary(_FLOAT32 + np.ascontiguousarray(vector, dtype="<f4").tobytes(), VECTOR_SUBTYPE)


def from_binary(binary: bytes) -> Vector:
    """A float32 BSON binary vector → array of shape (d,). Raises ValueError for another data type."""
    if binary[:2] != _FLOAT32:
        raise ValueError("not a float32 BSON vector")
    return np.frombuffer(binary, dtype="<f4", offset=2).astype(np.float32)


def stack(binaries: Iterable[bytes], dimensions: int) -> NDArray[np.float32]:
    """Many BSON vectors of one length → array of shape (n, dimensions)."""
    joined = b"".join(binary[2:] for binary in binaries)
    return np.frombuffer(joined, dtype="<f4").reshape(-1, dimensions).astype(np.float32)
