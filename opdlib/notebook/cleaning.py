"""Executed notebooks without the traces of a run, so that the same numbers are the same bytes."""

import json
from pathlib import Path

from opdlib.files import write_file

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
"""All the metadata that a published notebook keeps; the version of Python and the times of a run go."""

KEPT = ("tags", "mystnb")
"""Keys of a cell's metadata that are ours."""

PICTURES = ("image/svg+xml", "image/png")
"""What `opdlib.notebook.figure` shows."""


def clean(file: Path) -> None:
    """Take times, versions and widgets out of an executed notebook, in place; put alt texts where the book reads them.

    A figure's alt text is written once, in the call of `opdlib.notebook.figure`; the book looks for it in the cell's
    metadata.
    """
    content = json.loads(file.read_text(encoding="utf8"))
    content["metadata"] = KERNEL
    for cell in content["cells"]:
        cell["metadata"] = {key: cell["metadata"][key] for key in KEPT if cell["metadata"].get(key)}
        for output in cell.get("outputs", []):
            for kind in PICTURES:
                if alt := output.get("metadata", {}).get(kind, {}).get("alt"):
                    cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": alt}
    write_file(file, json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
