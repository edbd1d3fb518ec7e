"""No file runs code: a canary in every place from which transformers, torch and jinja may read it."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from opdlib.checkpoints import open_checkpoint
from opdlib.errors import CheckpointError
from opdlib.train.models import load_model, load_reader, save_state
from tests.hostile import made
from tests.hostile.conftest import Run

CODE = "import os; os.environ['OPD_CANARY'] = __file__\n"
"""What every Python file of a hostile checkpoint does first."""
AUTO = {
    "AutoConfig": "evil.Evil",
    "AutoModel": "evil.Evil",
    "AutoModelForCausalLM": "evil.Evil",
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    "AutoProcessor": "evil.Evil",
    "AutoImageProcessor": "evil.Evil",
}


class Singing:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return os.putenv, ("OPD_CANARY", "pickle")


def json_with(file: str, **keys: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        known = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        (folder / file).write_text(json.dumps(known | keys))

    return change


def custom_generate(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"{CODE}def generate(*_, **__): ...\n")


def jinja(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ cycler.__init__.__globals__.os.putenv('OPD_CANARY', 'jinja') }}")


def pickles(folder: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.model"):
        (folder / name).write_bytes(pickle.dumps(Singing()))


PLACES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "config.json of an unknown type": (json_with("config.json", model_type="evil", auto_map=AUTO), True),
    "config.json of a known type": (json_with("config.json", auto_map=AUTO), False),
    "config.json with code elsewhere": (
        json_with("config.json", model_type="evil", auto_map={"AutoConfig": "evil/model--evil.Evil"}),
        True,
    ),
    "kernels": (json_with("config.json", attn_implementation="evil/kernel"), True),
    "kernels of experts": (json_with("config.json", experts_implementation="evil/kernel"), True),
    "tokenizer_config.json": (json_with("tokenizer_config.json", auto_map=AUTO, tokenizer_class="Evil"), False),
    "processor_config.json": (json_with("processor_config.json", auto_map=AUTO, processor_class="Evil"), True),
    "preprocessor_config.json": (json_with("preprocessor_config.json", auto_map=AUTO, processor_class="Evil"), True),
    "generation_config.json": (json_with("generation_config.json", custom_generate="evil/search"), False),
    "a search that moved to the Hub": (json_with("generation_config.json", penalty_alpha=0.6, top_k=4), True),
    "custom_generate": (custom_generate, False),
    "chat_template.jinja": (jinja, False),
    "pickles": (pickles, False),
}
"""Where the code lies, and whether such a checkpoint is refused; others are read as if it were not there."""


def use(folder: Path, saved: Path, images: bool) -> None:
    """Everything for which transformers is asked of a checkpoint."""
    checkpoint = open_checkpoint(folder)
    reader = load_reader(checkpoint, images)
    if reader.chat_template:
        with pytest.raises(Exception, match=r"unsafe|undefined"):
            reader.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    model = load_model(checkpoint)
    saved.mkdir()
    save_state(model.state_dict(), checkpoint, saved, torch.bfloat16)


@pytest.mark.parametrize("where", PLACES)
def test_a_canary_stays_silent(place: Path, run: Run, tmp_path: Path, where: str) -> None:
    write, refused = PLACES[where]
    folder = made.changed(tmp_path / "model", place / "R", evil__py=CODE)
    write(folder)
    with pytest.raises(CheckpointError) if refused else nullcontext():
        use(folder, tmp_path / "saved", images="processor" in where)
    assert "evil" not in sys.modules
    # A child sees what `putenv` has done, `os.environ` does not.
    assert subprocess.run("echo $OPD_CANARY", shell=True, capture_output=True, text=True).stdout == "\n"


def test_a_question_is_not_asked(place: Path, run: Run, tmp_path: Path) -> None:
    folder = made.changed(tmp_path / "model", place / "R", evil__py=CODE)
    json_with("config.json", model_type="evil", auto_map=AUTO)(folder)
    code, out, error = run("evaluate", folder)
    assert (code, out) == (2, "")
    assert "transformers cannot use its config.json" in error
    assert error.count("\n") == 1
    assert "OPD_CANARY" not in os.environ


def test_the_canary_can_sing() -> None:
    scope: dict[str, Any] = {"__file__": "here"}
    exec(CODE, scope)
    assert os.environ.pop("OPD_CANARY") == "here"
