"""The Hub, without a network: what is asked of its client, and what is made of its answers."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from tests.conftest import pico_weights, write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("spec", "revision"), [("org/model", None), ("org/model@v1.0", "v1.0"), ("org/model@refs/pr/3", "refs/pr/3")]
)
def test_the_commit_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, revision: str | None
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(write_checkpoint(tmp_path / "snapshots" / COMMIT, pico_weights(), shards=2))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    checkpoint = open_checkpoint(spec)
    assert (asked["name"], asked["revision"]) == ("org/model", revision)
    assert not any(pattern.endswith((".bin", ".pt")) for pattern in asked["allow_patterns"]), "pickles are not fetched"
    assert checkpoint.origin() == {
        "spec": spec,
        "format": "safetensors",
        "digest": checkpoint.digest(),
        "revision": COMMIT,
    }


def test_a_snapshot_made_of_links_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's cache holds links to files elsewhere, which an index may name all the same."""
    blobs = write_checkpoint(tmp_path / "blobs", pico_weights(), shards=2)
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(snapshot))
    assert set(open_checkpoint("org/model").tensors) == set(pico_weights())


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"org/model.*no connection\).*network") as caught:
        open_checkpoint("org/model")
    assert "\n" not in str(caught.value)


def test_a_local_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "org" / "model", pico_weights())
    assert open_checkpoint("org/model").revision is None
