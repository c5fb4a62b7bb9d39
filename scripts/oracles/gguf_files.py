"""test/oracles/gguf: blocks of every type, small GGUF files, and the log-probs that transformers gives for their values."""

import json
from typing import NamedTuple

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from transformers import AutoModelForCausalLM

from common import ORACLES, base64_of, rounded, write_json, write_rows
from models import TEMPLATE, completion_ids, family_config, random_model, token_logprobs, train_tokenizer
from texts import PREFERENCES

FOLDER = ORACLES / "gguf"
# Where a block of a type keeps half-precision scales, in bytes: random bytes there would be infinities.
SCALES = {
    Type.Q8_0: [0],
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}
BLOCK_TYPES = [Type.F16, Type.BF16, *SCALES]
# The largest value of each type's integers, scales within the block included: by it a block's scale gives weights' sizes.
LARGEST = {Type.Q8_0: 127, Type.Q4_0: 8, Type.Q4_1: 15, Type.Q5_0: 16, Type.Q5_1: 31, Type.Q4_K: 945, Type.Q5_K: 1953, Type.Q6_K: 4096}


def random_blocks(kind: Type, rows: int, columns: int, size: float, random: numpy.random.Generator) -> numpy.ndarray:
    """[rows, bytes] of one type: every bit pattern of the integers, scales that give values of about `size`."""
    if kind in (Type.F16, Type.BF16, Type.F32):
        values = random.standard_normal((rows, columns)).astype(numpy.float32) * size
        return gguf.quants.quantize(values, kind).view(numpy.uint8).reshape(rows, -1)
    elements, length = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * columns // elements, length), dtype=numpy.uint8)
    for order, offset in enumerate(SCALES[kind]):
        scale = random.uniform(0.5, 2, len(blocks)) * size * 3 / LARGEST[kind]
        if order == 1:  # the minimum: half of the range, so that values lie around zero
            minimum = -1 if kind in (Type.Q4_1, Type.Q5_1) else 1
            scale *= minimum * (LARGEST[kind] / 2 if kind in (Type.Q4_1, Type.Q5_1) else LARGEST[kind] / 126)
        elif kind in (Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.Q6_K):
            scale *= random.choice([-1, 1], len(blocks))
        blocks[:, offset : offset + 2] = scale.astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def block_cases() -> list[dict]:
    random = numpy.random.default_rng(32)
    cases = []
    for kind in BLOCK_TYPES:
        elements, length = gguf.GGML_QUANT_SIZES[kind]
        columns = {1: 64, 32: 256}.get(elements, 1024)
        data = random_blocks(kind, 1, columns, 1.0, random)
        values = gguf.quants.dequantize(data, kind).astype(numpy.float32)
        assert numpy.isfinite(values).all()
        cases.append(
            {
                "type": kind.name,
                "id": kind.value,
                "block_elements": elements,
                "block_bytes": length,
                "bytes": base64_of(data),
                "values": base64_of(values),
                "count": columns,
            }
        )
    return cases


def permuted(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """q and k as llama.cpp wants them for its rotary layout: within each head the two halves interleaved."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def rope_factors(config) -> numpy.ndarray:
    """[head_dim / 2]: what each frequency is divided by under llama3 scaling (Llama 3.1, `rope_type` llama3)."""
    rope = config.rope_parameters
    half = config.head_dim // 2
    wavelength = 2 * numpy.pi * rope["rope_theta"] ** (numpy.arange(half) / half)
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (context / wavelength - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return numpy.where(wavelength < context / high, 1, numpy.where(wavelength > context / low, factor, between)).astype(numpy.float32)


def add_metadata(writer: gguf.GGUFWriter, config, tokenizer, file_type: int) -> None:
    writer.add_name("Tempora's oracle")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(config.vocab_size)
    if writer.arch == "llama":
        writer.add_rope_dimension_count(head)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    special = set(tokenizer.all_special_ids) | {1}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL for _, index in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


class File(NamedTuple):
    """A GGUF file to write."""

    family: str
    seed: int
    types: list[Type]  # taken in turn by the matrices
    changes: dict  # to the family's config


ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
NARROW = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_hidden_layers": 1}
FILES = {
    "llama-f32": File("llama", 71, [Type.F32], NARROW),
    "llama-rope-freqs-f16": File("llama3", 72, [Type.F16], NARROW),
    "qwen2-bf16": File("qwen2", 73, [Type.BF16], {key: NARROW[key] for key in ("hidden_size", "intermediate_size")}),
    "qwen3-q8_0": File("qwen3", 74, [Type.Q8_0], NARROW),
    "llama-q4_0": File("llama", 75, [Type.Q4_0, Type.Q8_0, Type.Q5_0], NARROW),
    # A Mistral is a llama in GGUF; this one has every type that needs rows of 256.
    "llama-mixed": File("llama", 76, [Type.Q4_K, Type.Q6_K, Type.Q5_K, Type.Q4_1, Type.Q5_1], WIDE),
}
FILE_TYPES = {Type.F32: 0, Type.F16: 1, Type.Q4_0: 2, Type.Q8_0: 7, Type.Q4_K: 15, Type.BF16: 32}


def stored(tensor: torch.Tensor, kind: Type, random: numpy.random.Generator) -> numpy.ndarray:
    """The matrix in a type. The gguf package cannot quantise to K types: those get random blocks of its size instead."""
    values = tensor.numpy()
    if kind in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return random_blocks(kind, *values.shape, float(values.std()), random)
    return gguf.quants.quantize(values, kind)


def write_file(name: str, file: File, tokenizer):
    """Writes the file; returns the model in transformers with the values that the gguf package reads in it."""
    architecture = "llama" if file.family in ("llama", "llama3") else file.family
    config = family_config(file.family, **file.changes)
    model = random_model(config, file.seed)
    random = numpy.random.default_rng(file.seed)
    mapped = gguf.get_tensor_name_map(ARCHITECTURES[architecture], config.num_hidden_layers)
    FOLDER.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", architecture)
    add_metadata(writer, config, tokenizer, FILE_TYPES[file.types[0]])
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    matrices = 0
    if file.family == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    for key, parameter in model.named_parameters():
        target = mapped.get_name(key, try_suffixes=(".weight", ".bias"))
        projection = key.split(".")[-2]
        rotary = architecture == "llama" and projection in heads
        with torch.no_grad():
            if parameter.ndim == 1:
                writer.add_tensor(target, parameter.numpy())
                continue
            kind = file.types[matrices % len(file.types)]
            matrices += 1
            # Rows are permuted as wholes, so a quantised row is the same row elsewhere.
            data = stored(parameter, kind, random)
            values = gguf.quants.dequantize(data, kind).astype(numpy.float32)
            parameter.copy_(torch.from_numpy(values.reshape(parameter.shape)))
        data = permuted(data, heads[projection]) if rotary else data
        writer.add_tensor(target, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@torch.no_grad()
def logprobs(model, tokenizer) -> list[dict]:
    rows = []
    for row in PREFERENCES[7:11]:
        prompt_ids, ids = completion_ids(tokenizer, row["prompt"], row["chosen"])
        scores = rounded(token_logprobs(model, prompt_ids, ids))
        text = {"prompt": row["prompt"], "completion": row["chosen"]}
        rows.append({**text, "prompt_ids": prompt_ids, "completion_ids": ids, "completion_logprobs": scores})
    return rows


def check_by_transformers(name: str, model, tokenizer) -> None:
    """transformers' own reader of GGUF files must find the same weights (the config is given: it does not read all of it)."""
    options = {"gguf_file": f"{name}.gguf", "config": model.config, "dtype": torch.float32}
    other = AutoModelForCausalLM.from_pretrained(FOLDER, attn_implementation="eager", **options).eval()
    for row, theirs in zip(logprobs(model, tokenizer), logprobs(other, tokenizer), strict=True):
        difference = numpy.abs(numpy.subtract(row["completion_logprobs"], theirs["completion_logprobs"])).max()
        assert difference < 1e-4, f"{name}: transformers reads another model: {difference}"


def make() -> None:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    write_json(FOLDER / "blocks.json", block_cases())
    for name, file in FILES.items():
        model = write_file(name, file, tokenizer)
        check_by_transformers(name, model, tokenizer)
        write_rows(FOLDER / f"{name}.jsonl", logprobs(model, tokenizer))
