"""A low-rank update beside frozen weights: LoRA by PEFT, and the weights that it comes to."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from opdlib.registry.recipes import Lora

ADAPTER = "default"
"""What PEFT calls an adapter that nobody named."""


def lora_config(lora: Lora) -> LoraConfig:
    """PEFT's form of a recipe's `lora`."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        use_rslora=lora.rslora,
        target_modules=[*lora.targets] or "all-linear",
    )


@torch.no_grad()
def whole_state(model: Any) -> dict[str, torch.Tensor]:
    """Weights by their names in the model without its adapter, each with its update added; of a model without one its
    state. The model stays as it is: what is added and subtracted again is not what was there."""
    if not isinstance(model, PeftModel):
        return dict(model.state_dict())
    base = model.get_base_model()
    state = {
        name.replace(".base_layer.", "."): weight for name, weight in base.state_dict().items() if ".lora_" not in name
    }
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            state[f"{name}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER)
    return state


def save_adapter(model: PeftModel, base: str, folder: Path) -> None:
    """Write the factors and their config, which names the checkpoint `base`, into the existing `folder`, as PEFT does
    and reads them."""
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    factors = {name: tensor.cpu().contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
