"""Parts of files over HTTP and from object stores, over lines that drop, stall and lie about lengths."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from opdlib.checkpoints.remote import RemoteCheckpoint
from opdlib.checkpoints.shards import chosen
from opdlib.errors import CheckpointError
from opdlib.foreign import foreign

ATTEMPTS = 8
"""How often in a row nothing may come."""
PAUSE = 0.5
"""Seconds before the first new attempt; twice as long before every next one in a row."""
STALL = 30
"""Seconds without a byte after which a line counts as dropped."""
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which to ask again."""


def patiently(
    what: str, start: int, stop: int, ask: Callable[[int, bytearray], tuple[int, str]], dropped: type[Exception]
) -> tuple[bytes, int]:
    """The bytes of a file from `start` to `stop`, and its size, from as many answers as it takes.

    `ask` adds what comes from a place on to what is there, and returns the size of the file and what was wrong. What
    has come before a line drops stays. Raises CheckpointError if nothing comes any more.
    """
    got, failures = bytearray(), 0
    while True:
        before = len(got)
        try:
            size, why = ask(start + before, got)
            if len(got) == stop - start:
                return bytes(got), size
        except dropped as error:
            why = f"{type(error).__name__}: {error}"
        failures = 1 if len(got) > before else failures + 1
        if failures > ATTEMPTS:
            raise CheckpointError(
                f"{what}: {len(got)} of {stop - start} bytes came, then none in {ATTEMPTS} attempts ({why}); "
                "try again, tensors that came whole are kept"
            )
        time.sleep(PAUSE * 2 ** (failures - 1))


@dataclass(frozen=True)
class Http:
    """Files of one commit of a repository on the Hub; see `opdlib.checkpoints.remote.Fetch`."""

    name: str
    commit: str

    def __call__(self, file: str, start: int, stop: int) -> tuple[bytes, int]:
        def ask(begin: int, got: bytearray) -> tuple[int, str]:
            return self._ask(file, begin, stop, got)

        return patiently(f"{self.name}@{self.commit}: {file}", start, stop, ask, _dropped())

    def _ask(self, file: str, begin: int, stop: int, got: bytearray) -> tuple[int, str]:
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers

        asked = f"bytes {begin} to {stop - 1}"
        headers = build_hf_headers() | {"Range": f"bytes={begin}-{stop - 1}", "Accept-Encoding": "identity"}
        url = hf_hub_url(self.name, file, revision=self.commit)
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=STALL) as answer:
            if answer.status_code in BUSY:
                return 0, f"status {answer.status_code}"
            if answer.status_code != 206:
                raise CheckpointError(
                    f"{self.name}@{self.commit}: {file}: asked for {asked}, the server answers {answer.status_code}; "
                    "check the name, the access to it, and that the server gives parts of files"
                )
            said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
            if said is None or int(said[1]) != begin:
                return 0, f"asked for {asked}, was told {answer.headers.get('Content-Range')}"
            for piece in answer.iter_raw():
                got += piece[: stop - begin]
                begin += len(piece)
                if begin >= stop:  # whatever else was announced
                    break
            return int(said[3]), "the answer was short"


def _dropped() -> type[Exception]:
    """What a line that drops or stalls raises: the Hub's client speaks by httpx, later versions by httpx2."""
    from huggingface_hub import get_session

    raised: type[Exception] = import_module(type(get_session()).__module__.partition(".")[0]).TransportError
    return raised


@dataclass(frozen=True)
class Store:
    """Files below an address that fsspec knows; see `opdlib.checkpoints.remote.Fetch`."""

    address: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        with foreign(self.address, CheckpointError, "wanted an address that fsspec knows, such as s3://BUCKET/MODEL"):
            opened: tuple[Any, str] = fsspec.core.url_to_fs(self.address)
        return opened

    def __call__(self, file: str, start: int, stop: int) -> tuple[bytes, int]:
        system, _ = self._opened

        def ask(begin: int, got: bytearray) -> tuple[int, str]:
            got += system.cat_file(file, begin, stop)[: stop - begin]
            return int(system.size(file)), "the answer was short"

        return patiently(f"{self.address}: {file}", start, stop, ask, OSError)

    def files(self) -> dict[str, list[str] | None]:
        """The files of the checkpoint there, and what an index lists for each."""
        system, place = self._opened
        with foreign(self.address, CheckpointError, "check the address and the access to it"):
            there = [place] if system.isfile(place) else list(system.ls(place, detail=False))
        return chosen(self.address, there, self._index)

    def _index(self, file: str) -> Any:
        with foreign(f"{self.address}: {file}", CheckpointError, "upload the index again"):
            return json.loads(self._opened[0].cat_file(file))

    def version(self, file: str) -> str:
        """What changes when a file does."""
        system, _ = self._opened
        return str(system.ukey(file))


def open_url(spec: str) -> RemoteCheckpoint:
    """Open a file or a folder of safetensors in a store that fsspec knows: s3://bucket/model, gs://, memory://, ...

    Raises CheckpointError if it is not there, MissingDependencyError for the package that speaks with the store.
    """
    store = Store(spec)
    files = store.files()
    return RemoteCheckpoint(spec, files, store, "\n".join(store.version(file) for file in sorted(files)))
