"""All eigenvalues of a Gram matrix and the vectors of the largest few, from one tridiagonal form.

A library's eigensolver finds either no vector or all of them; here at most a fifth is wanted. So on a CPU the steps of
such a solver are called one by one: reduction to tridiagonal form (dsytrd), all its eigenvalues (dsterf), the wanted
vectors by inverse iteration (dstein), and their way back by the reflections of the reduction. Every step is as exact as
those of torch.linalg.eigh: eigenvalues to about n * 2^-52 of the largest, and vectors that are orthonormal to
ORTHOGONALITY, which is checked each time because inverse iteration does not promise it for every matrix.

The first three steps are SciPy's LAPACK, called at its addresses: SciPy's own functions hold Python's lock while they
work, and small matrices are measured several at a time. Other devices take torch.linalg.eigh. Measured against the two
plain ways, whole geometry of the SmolLM2-135M pair in one run on two shared cores: scipy.linalg.eigvalsh and
eigh(subset_by_index=...) take 1.27 times the CPU time and 1.84 times as long, torch.linalg.eigh 1.19 times the CPU
time. A fifth of the vectors at order 576 and 1536 takes 1.9 to 2.3 times as long with the one, 1.4 to 1.7 times with
the other.
"""

import ctypes
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from numba.extending import get_cython_function_address
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

LinAlgError: type[RuntimeError] = torch.linalg.LinAlgError  # type: ignore[attr-defined]
"""What every solver raises when it fails."""

ORTHOGONALITY = 1e-12
"""Largest error of an inner product of two vectors."""

_REDUCED_TOGETHER = 32
"""Columns of a step of dsytrd."""


class _OneThread:
    """One thread as long as anybody is inside; who leaves last brings back what the first one found."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit.enter_context(_blas().limit(limits=1))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.close()


_ONE_THREAD = _OneThread()


def one_blas_thread() -> AbstractContextManager[None]:
    """The BLAS of NumPy and SciPy on one thread, until left; torch has its own and is not touched.

    Several threads of it do not make a reduction faster on small matrices, and they fight for the cores with those that
    call it. The whole process is meant, so it stays with one until all who entered have left.
    """
    return _ONE_THREAD


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg.cython_lapack  # noqa: F401  # what is not loaded is not found

    return ThreadpoolController().select(user_api="blas")


def largest_first(gram: torch.Tensor, count: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and vectors of a symmetric (n, n) float64 matrix without negative eigenvalues, which is used up.

    Returns all eigenvalues, (n,) descending with rounding errors below 0 set to 0, and the `count` leading vectors as
    columns, (n, count). Raises LinAlgError if a solver fails or the vectors miss ORTHOGONALITY.
    """
    if gram.device.type != "cpu":
        values, vectors = torch.linalg.eigh(gram)
        return values.flip(0).clamp(min=0), vectors.flip(1)[:, :count].contiguous()
    n = len(gram)
    reflections = gram.numpy().T  # symmetric, so these are its columns
    diagonal, beside, tau = np.empty(n), np.empty(max(n - 1, 1)), np.empty(max(n - 1, 1))
    work = np.empty(n * _REDUCED_TOGETHER)
    with one_blas_thread():
        _lapack("dsytrd", b"L", n, reflections, n, diagonal, beside, tau, work, work.size)
        ascending = diagonal.copy()
        _lapack("dsterf", n, ascending, beside.copy())
        vectors = _of_tridiagonal(diagonal, beside, ascending[n - count :])
    if count and n > 1:
        vectors[1:] = torch.ormqr(torch.from_numpy(reflections)[1:, :-1], torch.from_numpy(tau), vectors[1:])
    return torch.from_numpy(ascending).flip(0).clamp(min=0), vectors.flip(1).contiguous()


def _of_tridiagonal(
    diagonal: NDArray[np.float64], beside: NDArray[np.float64], ascending: NDArray[np.float64]
) -> torch.Tensor:
    """Eigenvectors of a tridiagonal matrix for some of its eigenvalues, (n, len(ascending)) float64."""
    n, count = len(diagonal), len(ascending)
    vectors = np.empty((n, count), order="F")
    block, ends = np.ones(n, np.int32), np.full(n, n, np.int32)  # one block, which ends with the matrix
    work, places, failed = np.empty(5 * n), np.empty(n, np.int32), np.empty(max(count, 1), np.int32)
    _lapack("dstein", n, diagonal, beside, count, ascending, block, ends, vectors, n, work, places, failed)
    found = torch.from_numpy(vectors)
    error = (found.mT @ found).fill_diagonal_(0)
    if count and not float(error.abs().max()) <= ORTHOGONALITY:  # NaN does not pass
        raise LinAlgError(f"eigenvectors are not orthogonal to {ORTHOGONALITY:g}")
    return found


def _lapack(name: str, *arguments: bytes | int | NDArray[Any]) -> None:
    """Call a routine of LAPACK without Python's lock. Its last argument, the outcome, is added here and looked at."""
    held = [
        a if isinstance(a, np.ndarray) else ctypes.c_char(a) if isinstance(a, bytes) else ctypes.c_int(a)
        for a in (*arguments, 0)
    ]
    _routine(name, len(held))(*(a.ctypes.data if isinstance(a, np.ndarray) else ctypes.addressof(a) for a in held))
    outcome = held[-1]
    assert isinstance(outcome, ctypes.c_int)
    if outcome.value:
        raise LinAlgError(f"{name} failed with {outcome.value}")


@cache
def _routine(name: str, count: int) -> Any:
    address = get_cython_function_address("scipy.linalg.cython_lapack", name)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(address)
