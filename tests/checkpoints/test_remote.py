"""Checkpoints that stay where they are, read from a server on this machine that drops, stalls and lies."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.utils import close_session

import opdlib.checkpoints.ranges
from opdlib.checkpoints import open_checkpoint
from opdlib.checkpoints.remote import RemoteCheckpoint
from opdlib.errors import CheckpointError, ParameterError
from opdlib.results.measure import measure_into
from tests.conftest import moved, pico_weights, write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Misbehave = Callable[["Hub", bytes], bytes]


class Hub(ThreadingHTTPServer):
    """The Hub's API for `org/NAME` below a folder, with whatever is wrong with the line."""

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.ranges = root, 0
        self.drops: list[int] = []
        """Bytes of parts of files after which the line drops, counted over all answers."""
        self.served = 0
        self.stall, self.longer, self.elsewhere, self.busy, self.whole = 0.0, 0, 0, 0, False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        if path.startswith("api/models/"):
            return self.about(path.removeprefix("api/models/").split("/"))
        org, name, _, _, *rest = path.split("/")
        file = self.server.root / org / name / "/".join(rest)
        if not file.is_file():
            return self.answer(404, b"")
        content = file.read_bytes()
        if (asked := self.headers.get("Range")) and not self.server.whole:
            start, stop = asked.removeprefix("bytes=").split("-")
            return self.part(content, int(start), int(stop) + 1)
        return self.answer(200, content)

    def about(self, parts: list[str]) -> None:
        folder = self.server.root / parts[0] / parts[1]
        if not folder.is_dir():
            return self.answer(404, b"{}")
        files = [f.relative_to(folder).as_posix() for f in sorted(folder.rglob("*")) if f.is_file()]
        if "tree" in parts:
            rows = [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            return self.answer(200, json.dumps(rows).encode())
        facts = {"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
        return self.answer(200, json.dumps(facts).encode())

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        own = {"Content-Length": str(len(content)), "ETag": f'"{len(content)}"', "X-Repo-Commit": COMMIT}
        for name, value in (own | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def part(self, content: bytes, start: int, stop: int) -> None:
        hub = self.server
        hub.ranges += 1
        if hub.busy:
            hub.busy -= 1
            self.answer(503, b"later")
            return
        piece, said = content[start:stop], start + hub.elsewhere
        hub.elsewhere = 0
        self.send_response(206)
        self.send_header("Content-Length", str(len(piece) + hub.longer))
        self.send_header("Content-Range", f"bytes {said}-{stop - 1}/{len(content)}")
        self.end_headers()
        if hub.stall:
            self.wfile.write(piece[:1])
            self.wfile.flush()
            time.sleep(hub.stall)
            hub.stall = 0.0
        if hub.drops and hub.served + len(piece) > hub.drops[0]:
            piece = piece[: max(hub.drops.pop(0) - hub.served, 0)]
            self.close_connection = True
        hub.served += len(piece)
        self.wfile.write(piece)
        if hub.longer:
            hub.longer, self.close_connection = 0, True


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    resolve = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(opdlib.checkpoints.ranges, "PAUSE", 0.001)
    close_session()
    yield server
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def left_over(tmp_path: Path) -> list[Path]:
    """Files that are neither a kept tensor nor of the Hub's client."""
    return [f for f in (tmp_path / "cache").rglob("*") if f.is_file() and f.name != "content"]


@pytest.mark.slow
def test_a_line_that_drops_changes_no_byte(hub: Hub, tmp_path: Path) -> None:
    source = pico_weights()
    pairs = {"source": source, "trained": moved(source)}
    for name, weights in pairs.items():
        folder = write_checkpoint(hub.root / "org" / name, weights, shards=3)
        (folder / "original").mkdir()
        write_checkpoint(folder / "original", {"other": torch.zeros(3)})
        (folder / "consolidated.safetensors").write_bytes(b"never read")
    size = 2 * sum(2 * w.numel() for w in source.values())
    hub.drops = sorted(random.sample(range(size), 20))
    opened = [open_checkpoint(f"org/{name}") for name in pairs]
    assert {type(c) for c in opened} == {RemoteCheckpoint}
    assert opened[0].origin()["revision"] == COMMIT
    measure_into(tmp_path / "there", *opened, name="pico")
    assert hub.drops == []
    here = [open_checkpoint(str(hub.root / "org" / name / "model.safetensors.index.json")) for name in pairs]
    assert [c.digest() for c in opened] == [c.digest() for c in here]
    measure_into(tmp_path / "here", *here, name="pico")
    for file in (tmp_path / "here").iterdir():
        if file.name != "provenance.json":  # has the specs
            assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes(), file.name
    assert left_over(tmp_path) == []
    assert not list((tmp_path / "hf").rglob("*.safetensors")), "no weights are downloaded whole"

    before = hub.ranges
    again = open_checkpoint("org/source")
    assert all(torch.equal(again.read(name), w) for name, w in source.items())
    assert hub.ranges == before + 3, "of each shard the size; what is kept is not fetched again"


@pytest.fixture
def tensor(hub: Hub) -> tuple[RemoteCheckpoint, torch.Tensor]:
    """A checkpoint of one tensor, opened before the line goes bad."""
    weights = {"w": torch.randn(64, 64)}
    write_checkpoint(hub.root / "org" / "one", weights)
    opened = open_checkpoint("org/one")
    assert isinstance(opened, RemoteCheckpoint)
    assert opened.to_download() == 4 * 64 * 64
    return opened, weights["w"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [{"stall": 0.6}, {"longer": 100}, {"longer": -100}, {"elsewhere": 5}, {"busy": 3}, {"drops": [1, 1, 1]}],
    ids=str,
)
def test_a_bad_line_is_asked_again(
    hub: Hub, tensor: tuple[RemoteCheckpoint, torch.Tensor], monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    monkeypatch.setattr(opdlib.checkpoints.ranges, "STALL", 0.2)
    for name, value in wrong.items():
        setattr(hub, name, [hub.served + drop for drop in value] if name == "drops" else value)
    before = hub.ranges
    assert torch.equal(tensor[0].read("w"), tensor[1])
    asked = hub.ranges - before
    assert asked == 1 if wrong == {"longer": 100} else asked > 1, (
        "what is announced beyond the tensor is not waited for"
    )
    assert tensor[0].to_download() == 0


@pytest.mark.slow
def test_a_line_that_stays_bad_is_given_up(
    hub: Hub, tensor: tuple[RemoteCheckpoint, torch.Tensor], tmp_path: Path
) -> None:
    hub.busy = 100
    with pytest.raises(CheckpointError, match=r"0 of 16384 bytes came, then none in 8 attempts \(status 503\)"):
        tensor[0].read("w")
    hub.busy, hub.whole = 0, True
    with pytest.raises(CheckpointError, match=r"answers 200; check .* that the server gives parts of files"):
        tensor[0].read("w")
    hub.whole = False
    (hub.root / "org" / "one" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="answers 404"):
        tensor[0].read("w")
    assert left_over(tmp_path) == []


def test_what_is_kept_is_bounded(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {f"w{n}": torch.full((100,), float(n)) for n in range(10)}
    write_checkpoint(hub.root / "org" / "ten", weights)
    monkeypatch.setenv("OPDLIB_CACHE_BYTES", "1500")
    opened = open_checkpoint("org/ten")
    for name in [*weights, "w8", "w9"]:
        assert torch.equal(opened.read(name), weights[name])
        kept = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("content"))
        assert kept <= 1500
    assert isinstance(opened, RemoteCheckpoint)
    assert opened.to_download() == 7 * 400
    monkeypatch.setenv("OPDLIB_CACHE_BYTES", "much")
    with pytest.raises(ParameterError, match="OPDLIB_CACHE_BYTES 'much'; wanted a number of bytes"):
        opened.read("w0")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"\xff" * 8, "a header of"),
        (b"\x02" + bytes(7) + b"[]", "no JSON object"),
        (b"\x02" + bytes(7) + b"{]", "its header is no JSON"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "its shape and dtype want other"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "w would end at"),
        ({"w": {"dtype": "F32", "shape": [2]}}, "wanted dtype, shape and data_offsets"),
        ({}, "hold no tensor"),
    ],
)
def test_a_header_that_lies(hub: Hub, header: bytes | dict[str, Any], complaint: str) -> None:
    if isinstance(header, dict):
        text = json.dumps(header).encode()
        header = len(text).to_bytes(8, "little") + text
    folder = hub.root / "org" / "bad"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(header)
    with pytest.raises(CheckpointError, match=complaint):
        open_checkpoint("org/bad")


def test_what_the_hub_has_not(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match=r"org/nothing: .* not to be had from the Hub"):
        open_checkpoint("org/nothing")
    folder = hub.root / "org" / "two"
    for name in ("a", "b"):
        write_checkpoint(folder, pico_weights(layers=1))
        (folder / "model.safetensors").rename(folder / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="2 safetensors files and 0 indices; wanted one model"):
        open_checkpoint("org/two")


def test_a_store_that_fsspec_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPDLIB_CACHE", str(tmp_path / "cache"))
    weights = pico_weights()
    folder = write_checkpoint(tmp_path / "model", weights, shards=2)
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/model", recursive=True)
    opened = open_checkpoint("memory://bucket/model")
    assert opened.digest() == open_checkpoint(folder).digest()
    with pytest.raises(CheckpointError, match=r"memory://bucket/none: .*check the address"):
        open_checkpoint("memory://bucket/none")
    with pytest.raises(CheckpointError, match="wanted an address that fsspec knows"):
        open_checkpoint("nosuch://bucket/model")
    store.rm("/bucket", recursive=True)
