"""What the backward pass keeps of one completion of the paper's student (DeepSeek-R1-Distill-Qwen-1.5B), by shape.

    python benchmarks/activations.py [--tokens N]

One and two layers of its shape are run on the CPU under autocast to bf16, and what autograd saves is counted. It grows
with the layers and the tokens, so the whole model follows without its weights. The logits are not in it.
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

LAYERS, WIDTH, INNER, HEADS, KEYS = 28, 1536, 8960, 12, 2
"""Of its config.json."""


def kept(layers: int, tokens: int) -> int:
    """Bytes that autograd saves beside the parameters, each storage once."""
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEYS,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in found.items() if place not in own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    tokens = parser.parse_args().tokens
    short, long = (kept(2, n) - kept(1, n) for n in (256, 512))
    per_token = (long - short) / 256
    copies = short - 256 * per_token
    print(f"a layer keeps {per_token:,.0f} bytes a token and {copies / 1e6:.1f} MB of bf16 copies of its weights")
    print(f"{LAYERS} layers, {tokens} tokens: {LAYERS * tokens * per_token / 1e9:.1f} GB")
    inputs = LAYERS * tokens * WIDTH * 4
    print(f"with activation checkpointing: {(inputs + tokens * per_token) / 1e9:.1f} GB, their inputs and one layer")
    print(f"bf16 copies of all layers: {LAYERS * copies / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
