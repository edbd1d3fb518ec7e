"""Files of entries: what is refused before an entry is looked at."""

from pathlib import Path

import pytest

from opdlib.errors import RegistryError
from opdlib.registry.entries import read_entries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {}\nb: {}\na: {}\n", r"pairs\.yaml: not readable as YAML: key 'a' occurs twice"),
        ("a: [\n", r"pairs\.yaml: not readable as YAML"),
        ("- a\n", r"pairs\.yaml: wanted a mapping"),
    ],
)
def test_files_that_hold_no_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    (tmp_path / "pairs.yaml").write_text(text)
    monkeypatch.setattr("opdlib.registry.entries.data_root", lambda: tmp_path)
    with pytest.raises(RegistryError, match=message) as caught:
        read_entries("pairs.yaml")
    assert "\n" not in str(caught.value)
