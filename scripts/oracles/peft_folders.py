"""PEFT beside us on adapters' folders, for test/peft.test.ts: what it makes of ours, and folders of its own.

  python peft_folders.py < jobs.json

Jobs are a list of {base, adapter, dtype, rows: [{prompt_ids, completion_ids}], make?}; with `make` (fields of LoraConfig, and
`saved_as`, the type of the saved tensors) the adapter is made there first, at random. Prints a JSON list: for each the tensors
that PEFT missed or did not expect, and the log-probs of every row's completion with the adapter on and with none.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftModelForCausalLM, get_peft_model, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM

from models import token_logprobs

# What PEFT finds wrong about a folder is a warning.
warnings.filterwarnings("error", module="peft")


def base_model(job: dict):
    return AutoModelForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]), attn_implementation="eager").eval()


@torch.no_grad()
def make(job: dict, seed: int) -> None:
    options = dict(job["make"])
    saved_as = getattr(torch, options.pop("saved_as", "float32"))
    model = get_peft_model(base_model(job), LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_A" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        elif "lora_B" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(saved_as)
    model.save_pretrained(job["adapter"])


def mismatches(job: dict) -> dict:
    """What a user never sees: from_pretrained passes over tensors that no module asks for."""
    model = PeftModelForCausalLM(base_model(job), PeftConfig.from_pretrained(job["adapter"]))
    found = set_peft_model_state_dict(model, load_peft_weights(job["adapter"], device="cpu"))
    return {"missing": [name for name in found.missing_keys if "lora_" in name], "unexpected": list(found.unexpected_keys)}


@torch.no_grad()
def log_probs(model, rows: list[dict]) -> list[list[float]]:
    return [token_logprobs(model, row["prompt_ids"], row["completion_ids"]).double().tolist() for row in rows]


def opened(job: dict) -> dict:
    model = PeftModel.from_pretrained(base_model(job), job["adapter"]).eval()
    adapted = log_probs(model, job["rows"])
    with model.disable_adapter():
        return {**mismatches(job), "adapted": adapted, "base": log_probs(model, job["rows"])}


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for seed, job in enumerate(json.load(sys.stdin)):
        if "make" in job:
            Path(job["adapter"]).mkdir(parents=True, exist_ok=True)
            make(job, seed)
        results.append(opened(job))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
