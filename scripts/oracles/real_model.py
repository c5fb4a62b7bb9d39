"""test/oracles/smollm2: a real model from its GGUF file, dequantised to float32, in transformers and TRL.

The file is found where scripts/fetch-real-model.ts puts it, or by TEMPORA_REAL_MODEL.
"""

import copy
import os
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import ORACLES, rounded, write_json, write_rows
from models import completion_ids, conversation_ids, greedy, token_logprobs
from texts import PREFERENCES
from trajectories import train
from zoo_texts import HARD_TEXTS

FOLDER = ORACLES / "smollm2"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tempora"
FILE = Path(os.environ.get("TEMPORA_REAL_MODEL") or CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf")
PAIRS = 8
CONFIG = {
    "learning_rate": 2e-6,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "beta": 0.1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 1,
    "precompute_ref_log_probs": True,
}
KEPT = ("loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected")


def load():
    """transformers' own reader undoes the permutation of q and k and dequantises; what it gives is then an ordinary model."""
    if not FILE.exists():
        raise SystemExit(f"{FILE} is missing: run `bun scripts/fetch-real-model.ts`, or set TEMPORA_REAL_MODEL")
    read = AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return model.eval()


def tokens(tokenizer) -> list[dict]:
    return [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in HARD_TEXTS]


@torch.no_grad()
def scored(model, tokenizer) -> list[dict]:
    rows = []
    for row in PREFERENCES[:16]:
        prompt_ids, ids = completion_ids(tokenizer, row["prompt"], row["chosen"])
        logprobs = token_logprobs(model, prompt_ids, ids)
        conversation = {"prompt": row["prompt"], "completion": row["chosen"]}
        scores = {"completion_logprobs": rounded(logprobs), "completion_sum": float(logprobs.double().sum())}
        rows.append({**conversation, "prompt_ids": prompt_ids, "completion_ids": ids, **scores})
    return rows


def answers(model, tokenizer) -> list[dict]:
    rows = []
    for row in PREFERENCES[:8]:
        answer = greedy(model, conversation_ids(tokenizer, row["prompt"], True), 40, cached=True)
        ids = answer["completion_ids"]
        end = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else None
        answer["text"] = tokenizer.decode(ids[:end])
        rows.append({"prompt": row["prompt"], **answer})
    return rows


def trajectory(tokenizer) -> dict:
    steps = train(load(), None, tokenizer, PREFERENCES[:PAIRS], {**CONFIG, "loss_type": ["sigmoid"]})
    kept = [{key: round(step[key], 6) for key in KEPT} for step in steps]
    return {"config": {**CONFIG, "pairs_per_step": 2}, "steps": kept}


def make() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(FILE.parent, gguf_file=FILE.name)
    write_json(FOLDER / "tokens.json", tokens(tokenizer))
    model = load()
    write_rows(FOLDER / "logprobs.jsonl", scored(model, tokenizer))
    write_rows(FOLDER / "greedy.jsonl", answers(model, tokenizer))
    write_rows(FOLDER / "pairs.jsonl", PREFERENCES[:PAIRS])
    write_json(FOLDER / "trl_trajectory.json", trajectory(tokenizer))
