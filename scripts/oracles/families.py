"""test/oracles/<family>: log-probs, greedy answers, a DPO step, three AdamW steps and a supervised step."""

import shutil

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file

from common import ORACLES, rounded, write_json, write_rows
from models import (
    FAMILIES,
    completion_ids,
    disturb,
    family_config,
    greedy,
    load,
    random_model,
    token_logprobs,
    train_tokenizer,
)
from texts import PREFERENCES, plain

BETA = 0.1
STEP_PAIRS = 4
ADAMW = {"lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}


def write_checkpoints(family: str, seed: int) -> None:
    """reference/ is random, policy/ a little away from it; both are complete Hugging Face folders."""
    folder = ORACLES / family
    shutil.rmtree(folder, ignore_errors=True)
    model = random_model(family_config(family), seed)
    tokenizer = train_tokenizer()
    for which in ("reference", "policy"):
        if which == "policy":
            disturb(model, seed + 1, 0.02)
        model.save_pretrained(folder / which)
        tokenizer.save_pretrained(folder / which)


@torch.no_grad()
def scored_pairs(policy, reference, tokenizer) -> list[dict]:
    rows = []
    for row in PREFERENCES:
        scored = {}
        for side in ("chosen", "rejected"):
            scored["prompt_ids"], ids = completion_ids(tokenizer, row["prompt"], row[side])
            logprobs = token_logprobs(policy, scored["prompt_ids"], ids)
            scored[f"{side}_ids"] = ids
            scored[f"{side}_logprobs"] = rounded(logprobs)
            scored[f"{side}_sum"] = float(logprobs.double().sum())
            reference_logprobs = token_logprobs(reference, scored["prompt_ids"], ids)
            scored[f"{side}_reference_sum"] = float(reference_logprobs.double().sum())
        rows.append(scored)
    return rows


def pair_losses(policy, rows: list[dict]) -> torch.Tensor:
    """[pairs] sigmoid losses against the rows' reference sums."""
    losses = []
    for row in rows:
        ratio = {
            side: token_logprobs(policy, row["prompt_ids"], row[f"{side}_ids"]).sum() - row[f"{side}_reference_sum"]
            for side in ("chosen", "rejected")
        }
        losses.append(-functional.logsigmoid(BETA * (ratio["chosen"] - ratio["rejected"])))
    return torch.stack(losses)


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def global_norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors.values()]).sum().sqrt())


def dpo_step(policy, rows: list[dict], folder) -> dict:
    losses = pair_losses(policy, rows)
    losses.mean().backward()
    own = gradients(policy)
    save_file(own, folder / "dpo_grads.safetensors", metadata={"format": "pt"})
    return {"beta": BETA, "per_pair_loss": [loss.item() for loss in losses], "grad_norm": global_norm(own)}


def adamw_steps(policy, rows: list[dict], folder) -> dict:
    """Three steps on the same four pairs, with decay on every parameter and no clipping."""
    optimizer = torch.optim.AdamW(policy.parameters(), **{**ADAMW, "betas": tuple(ADAMW["betas"])})
    before = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = pair_losses(policy, rows).mean()
        loss.backward()
        before.append(loss.item())
        optimizer.step()
    after = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    save_file(after, folder / "adamw_after_3_steps.safetensors", metadata={"format": "pt"})
    return {**ADAMW, "loss_before_each_step": before}


def sft_step(policy, rows: list[dict]) -> dict:
    logprobs = torch.cat([token_logprobs(policy, row["prompt_ids"], row["chosen_ids"]) for row in rows])
    loss = -logprobs.mean()
    loss.backward()
    return {"loss": loss.item(), "tokens": len(logprobs), "grad_norm": global_norm(gradients(policy))}


def make_family(family: str, seed: int) -> None:
    write_checkpoints(family, seed)
    folder = ORACLES / family
    policy, reference, tokenizer = load(folder / "policy"), load(folder / "reference"), train_tokenizer()
    rows = scored_pairs(policy, reference, tokenizer)
    write_rows(folder / "logprobs.jsonl", rows)
    write_rows(folder / "greedy.jsonl", [greedy(policy, row["prompt_ids"], 32) for row in rows[:12]])
    step = dpo_step(policy, rows[:STEP_PAIRS], folder)
    step["adamw"] = adamw_steps(load(folder / "policy"), rows[:STEP_PAIRS], folder)
    write_json(folder / "dpo_step.json", step, indent=1)
    write_json(folder / "sft_step.json", sft_step(load(folder / "policy"), rows[:STEP_PAIRS]))
    print(f"  {family}: losses {rounded(step['per_pair_loss'], 3)}, then {rounded(step['adamw']['loss_before_each_step'])}")


def make() -> None:
    torch.set_num_threads(1)
    write_rows(ORACLES / "preference.jsonl", PREFERENCES)
    write_rows(ORACLES / "preference_plain.jsonl", map(plain, PREFERENCES))
    for index, family in enumerate(FAMILIES):
        make_family(family, 100 * (index + 1))
