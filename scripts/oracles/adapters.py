"""test/oracles/<family>/lora: PEFT adapters over reference/, their gradients, and a DPOTrainer that goes on from them."""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as functional
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from common import ORACLES, read_rows, rounded, write_json, write_rows
from families import BETA, STEP_PAIRS, global_norm, gradients
from models import FAMILIES, load, load_tokenizer, token_logprobs
from texts import PREFERENCES
from trajectories import sums, train

PAIRS = 12
CONFIG = {
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 1,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "beta": BETA,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 2,
}
SOME = ["q_proj", "v_proj", "down_proj"]
ADAPTERS = {
    "llama": {"r": 4, "lora_alpha": 8, "use_rslora": False, "target_modules": SOME},
    "llama3": {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear"},
    "qwen2": {"r": 3, "lora_alpha": 8, "use_rslora": True, "target_modules": SOME},
    "qwen3": {"r": 4, "lora_alpha": 6, "use_rslora": False, "target_modules": "all-linear"},
    "mistral": {"r": 4, "lora_alpha": 8, "use_rslora": False, "target_modules": "all-linear"},
}


def save_adapter(model, folder: Path) -> None:
    """As PEFT saves it, but for the order of the target modules, which is a set's."""
    model.save_pretrained(folder, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = "../../reference"
    config["target_modules"] = sorted(config["target_modules"])
    write_json(file, config, indent=2)


@torch.no_grad()
def write_adapter(base: Path, folder: Path, options: dict, seed: int) -> None:
    """A and B both random: a fresh adapter, whose B is zero, would hide half of the arithmetic."""
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_A" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        elif "lora_B" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    save_adapter(model, folder)


def adapted(base: Path, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(load(base), folder, is_trainable=True).eval()


def dpo_step(model, rows: list[dict], folder: Path) -> dict:
    """The first four pairs' sigmoid loss; the reference is the base without the adapter."""
    losses = []
    for row in rows[:STEP_PAIRS]:
        ratio = {}
        for side in ("chosen", "rejected"):
            with torch.no_grad(), model.disable_adapter():
                reference = token_logprobs(model, row["prompt_ids"], row[f"{side}_ids"]).sum()
            ratio[side] = token_logprobs(model, row["prompt_ids"], row[f"{side}_ids"]).sum() - reference
        losses.append(-functional.logsigmoid(BETA * (ratio["chosen"] - ratio["rejected"])))
    torch.stack(losses).mean().backward()
    own = {name.replace(".default.", "."): gradient for name, gradient in gradients(model).items()}
    save_file(own, folder / "dpo_grads.safetensors", metadata={"format": "pt"})
    return {"beta": BETA, "per_pair_loss": [loss.item() for loss in losses], "grad_norm": global_norm(own)}


@torch.no_grad()
def scored(model, rows: list[dict]) -> list[dict]:
    scored_rows = []
    for row in rows:
        result = {"prompt_ids": row["prompt_ids"]}
        for side in ("chosen", "rejected"):
            logprobs = token_logprobs(model, row["prompt_ids"], row[f"{side}_ids"])
            result[f"{side}_ids"] = row[f"{side}_ids"]
            result[f"{side}_logprobs"] = rounded(logprobs)
            result[f"{side}_sum"] = float(logprobs.double().sum())
        scored_rows.append(result)
    return scored_rows


def make_family(family: str, seed: int) -> None:
    base, folder = ORACLES / family / "reference", ORACLES / family / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    rows = read_rows(ORACLES / family / "logprobs.jsonl")[:PAIRS]
    write_adapter(base, folder / "adapter", ADAPTERS[family], seed)
    write_rows(folder / "logprobs.jsonl", scored(adapted(base, folder / "adapter"), rows))
    step = dpo_step(adapted(base, folder / "adapter"), rows, folder)
    write_json(folder / "dpo_step.json", step, indent=1)
    # Without a reference TRL keeps a frozen copy of the adapter that it is given.
    model = adapted(base, folder / "adapter")
    steps = train(model, None, load_tokenizer(base), PREFERENCES[:PAIRS], {**CONFIG, "loss_type": ["sigmoid"]})
    save_adapter(model, folder / "trained")
    write_json(folder / "trl_trajectory.json", {"config": {**CONFIG, "pairs_per_step": 4}, "steps": steps, "logps_after_training": sums(model, rows)})
    print(f"  {family}: losses {rounded(step['per_pair_loss'], 3)}; trained {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}")


def make() -> None:
    torch.set_num_threads(1)
    for index, family in enumerate(FAMILIES):
        make_family(family, 100 * (index + 1) + 50)
