"""test/oracles/bitsandbytes: a Llama of one block as bitsandbytes stores it in NF4, with and without double quantisation.

The plain weights lie beside it (model.safetensors of plain/): what was quantised.
"""

import bitsandbytes
import torch
from safetensors.torch import save_file

from common import ORACLES, write_json

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 32,
    "torch_dtype": "float32",
}


def quantization_config(double: bool) -> dict:
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head"],
    }


def plain() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(44)
    # Of few digits, so that the file compresses and float16 holds them.
    normal = lambda rows, columns: (torch.randn(rows, columns, generator=generator) * 0.1).half().float()
    layer = "model.layers.0"
    return {
        "model.embed_tokens.weight": normal(32, 24),
        f"{layer}.input_layernorm.weight": torch.ones(24),
        f"{layer}.self_attn.q_proj.weight": normal(24, 24),
        f"{layer}.self_attn.k_proj.weight": normal(12, 24),
        f"{layer}.self_attn.v_proj.weight": normal(12, 24),
        f"{layer}.self_attn.o_proj.weight": normal(24, 24),
        f"{layer}.post_attention_layernorm.weight": torch.ones(24),
        f"{layer}.mlp.gate_proj.weight": normal(40, 24),
        f"{layer}.mlp.up_proj.weight": normal(40, 24),
        f"{layer}.mlp.down_proj.weight": normal(24, 40),
        "model.norm.weight": torch.ones(24),
    }


def stored(name: str, weight: torch.Tensor, double: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What a Linear4bit of this weight has as its state, and the numbers that bitsandbytes reads in it."""
    linear = bitsandbytes.nn.Linear4bit(
        weight.shape[1], weight.shape[0], bias=False, compress_statistics=double, quant_type="nf4"
    )
    linear.weight = bitsandbytes.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=double
    )
    linear = linear.to("cpu")
    state = {name.removesuffix("weight") + key: value for key, value in linear.state_dict().items()}
    read = bitsandbytes.functional.dequantize_4bit(linear.weight.data, linear.weight.quant_state)
    return state, read


def make() -> None:
    tensors = plain()
    root = ORACLES / "bitsandbytes"
    write_json(root / "plain" / "config.json", CONFIG, indent=1)
    save_file(tensors, root / "plain" / "model.safetensors", {"format": "pt"})
    for way, double in (("single", False), ("double", True)):
        state, read = {}, {}
        for name, tensor in tensors.items():
            if "_proj" not in name:
                state[name] = tensor
                continue
            quantised, read[name] = stored(name, tensor, double)
            state.update(quantised)
        folder = root / way
        write_json(folder / "config.json", {**CONFIG, "quantization_config": quantization_config(double)}, indent=1)
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        save_file(read, folder / "dequantised.safetensors", {"format": "pt"})
