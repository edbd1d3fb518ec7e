"""Dask as an executor, for those who have it: workers on any number of machines, which may die and come late."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from opdlib.errors import MeasureError, MissingDependencyError, ParameterError

PATIENCE = 5
"""Seconds in which a scheduler must answer."""


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """An executor over the workers that the Dask scheduler at `address` has now and will get.

    Raises ParameterError at once if nobody answers there or no worker is there, MissingDependencyError without
    `distributed`, MeasureError if a part keeps killing its workers.
    """
    try:
        from distributed import Client, KilledWorker
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{error.name} is not installed; run: pip install distributed") from error
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"dask {address!r}: no scheduler answers there ({type(error).__name__}); "
            "wanted the address that dask scheduler prints, such as tcp://HOST:8786"
        ) from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ParameterError(f"dask {address!r}: its scheduler has no worker; start one: dask worker {address}")
        try:
            yield client.get_executor()
        except KilledWorker as error:
            raise MeasureError(f"dask {address!r}: {error}; give its workers more memory") from error
