"""Small random checkpoints, and what transformers computes with them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from texts import PREFERENCES, plain

# The head's last tile, and a row's last vector, are not full.
VOCABULARY = 331
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# What each family is there to try: its own keys of config.json.
FAMILIES = {
    "llama": (LlamaConfig, {"rms_norm_eps": 1e-5, "tie_word_embeddings": False}),
    "llama3": (LlamaConfig, {"num_key_value_heads": 1, "rope_parameters": LLAMA3_ROPE, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, {"sliding_window": 24, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}),
}


def family_config(family: str, **changes):
    kind, own = FAMILIES[family]
    return kind(**{**SHAPE, **own, **changes})


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of the preference rows' texts, with ChatML turns."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    turns = [part for row in PREFERENCES for part in plain(row).values()] + ["system\n", "user\n", "assistant\n"] * 8
    tokenizer.train_from_iterator(turns, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, chat_template=TEMPLATE)


def is_norm(name: str) -> bool:
    return "norm" in name


def spread(name: str, parameter: torch.Tensor, tied: bool) -> float:
    """The standard deviation of a parameter's random values: chosen so that logits spread by a few units."""
    if is_norm(name) or name.endswith("bias"):
        return 0.15
    if "embed_tokens" in name:
        return 0.25 if tied else 0.7
    return 1.3 / parameter.shape[-1] ** 0.5


@torch.no_grad()
def random_model(config, seed: int):
    """Every parameter random, norms around 1 and biases not zero, so that each of them counts."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator) * spread(name, parameter, config.tie_word_embeddings)
        parameter.copy_(1 + noise if is_norm(name) else noise)
    return model


@torch.no_grad()
def disturb(model, seed: int, amount: float) -> None:
    """Moves every parameter by a fraction of its spread: a policy some steps away from its reference."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        width = spread(name, parameter, model.config.tie_word_embeddings)
        parameter.add_(torch.randn(parameter.shape, generator=generator) * width * amount)


def load(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return model.eval()


def load_tokenizer(folder: Path):
    return AutoTokenizer.from_pretrained(folder)


def conversation_ids(tokenizer, messages: list[dict], prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=True)
    return list(encoded["input_ids"])


def completion_ids(tokenizer, prompt: list[dict], completion: list[dict]) -> tuple[list[int], list[int]]:
    """As TRL tokenizes: the prompt with its generation prompt, and what the whole conversation has beyond it."""
    prompt_ids = conversation_ids(tokenizer, prompt, True)
    whole = conversation_ids(tokenizer, prompt + completion, False)
    assert whole[: len(prompt_ids)] == prompt_ids
    return prompt_ids, whole[len(prompt_ids) :]


def token_logprobs(model, prompt_ids: list[int], completion_ids: list[int]) -> torch.Tensor:
    """[completion] log-probs of one sequence, with its gradient."""
    ids = torch.tensor([prompt_ids + completion_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt_ids) :, None]).squeeze(1)


@torch.no_grad()
def greedy(model, prompt_ids: list[int], tokens: int, cached: bool = False) -> dict:
    """Each token by a whole forward pass, so that no cache could be wrong; a large model takes the cache all the same."""
    ids, gap, cache = list(prompt_ids), float("inf"), None
    for _ in range(tokens):
        new = ids if cache is None else ids[-1:]
        output = model(input_ids=torch.tensor([new]), past_key_values=cache, use_cache=cached)
        cache = output.past_key_values if cached else None
        best = output.logits[0, -1].topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return {"prompt_ids": prompt_ids, "completion_ids": ids[len(prompt_ids) :], "smallest_top2_logit_gap": gap}
