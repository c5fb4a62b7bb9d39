"""test/oracles/preference_losses.json: TRL's own loss code on given log-prob sums, in float64.

DPOTrainer computes the losses from a model's logits. Here the "model" has two tokens and gives each completion token the
log-prob sum / length, so that TRL sees the sums that were asked for, and its gradient reaches them.
"""

from collections import defaultdict
from types import SimpleNamespace

import torch
import torch.nn.functional as functional
from trl import DPOTrainer

from common import ORACLES, write_json

PAIRS = 8
TAU = 0.05
TYPES = [
    *("sigmoid", "hinge", "ipo", "robust", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sigmoid_norm", "sft"),
]
SMOOTHED = ["sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"]
# TRL's sigmoid leaves label smoothing out; with it this is the conservative DPO of Mitchell's note on the loss.
SMOOTHED_HERE = "sigmoid"
OVER_THE_BATCH = ("aot", "aot_unpaired")


class TwoTokens:
    def __init__(self, sums: torch.Tensor, lengths: torch.Tensor):
        self.sums, self.lengths = sums, lengths

    def __call__(self, input_ids, **_):
        likely = (self.sums / self.lengths)[:, None].expand(input_ids.shape)
        return SimpleNamespace(logits=torch.stack([likely, torch.log1p(-torch.exp(likely))], -1))


def conservative_loss(case: dict, sums: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    chosen, rejected = case["beta"] * (sums - references)
    epsilon, margin = case["label_smoothing"], chosen - rejected
    return -((1 - epsilon) * functional.logsigmoid(margin) + epsilon * functional.logsigmoid(-margin)).mean()


def loss_of(case: dict, sums: torch.Tensor, references: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """sums, references, lengths: [2, pairs], chosen then rejected. By the method of TRL's trainer."""
    if case["loss_type"] == SMOOTHED_HERE and case["label_smoothing"] > 0:
        return conservative_loss(case, sums, references)
    longest = int(lengths.max())
    flat = lengths.flatten()
    mask = (torch.arange(longest + 1)[None] <= flat[:, None]).long()
    mask[:, 0] = 0  # the one token of the prompt
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": references[0],
        "ref_rejected_logps": references[1],
    }
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=lambda value: value, gather_for_metrics=lambda value: value),
        args=SimpleNamespace(discopop_tau=TAU),
        loss_types=[case["loss_type"]],
        loss_weights=[1.0],
        beta=case["beta"],
        label_smoothing=case["label_smoothing"],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        precompute_ref_logps=True,
        use_weighting=False,
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    return DPOTrainer._compute_loss(trainer, TwoTokens(sums.flatten(), flat), inputs, False)


def evaluate(case: dict, sums: torch.Tensor, references: torch.Tensor, lengths: torch.Tensor) -> dict:
    sums = sums.clone().requires_grad_()
    loss = loss_of(case, sums, references, lengths)
    loss.backward()
    result = {
        **case,
        "policy_chosen": sums[0].tolist(),
        "policy_rejected": sums[1].tolist(),
        "mean_loss": loss.item(),
        "d_mean_d_policy_chosen": sums.grad[0].tolist(),
        "d_mean_d_policy_rejected": sums.grad[1].tolist(),
    }
    if case["loss_type"] == "discopop":
        result["discopop_tau"] = TAU
    if case["loss_type"] not in OVER_THE_BATCH:
        one = [slice(pair, pair + 1) for pair in range(PAIRS)]
        result["per_pair_loss"] = [
            loss_of(case, sums.detach()[:, pair], references[:, pair], lengths[:, pair]).item() for pair in one
        ]
    return result


def make() -> None:
    torch.set_default_dtype(torch.float64)  # TRL makes a tensor of the label smoothing
    generator = torch.Generator().manual_seed(16)
    lengths = torch.randint(8, 60, (2, PAIRS), generator=generator)
    references = -lengths * (1.5 + torch.rand(2, PAIRS, generator=generator))
    cases = []
    for beta in (0.05, 0.1, 0.5):
        # Ratios of both signs, and one pair whose policy is its reference.
        sums = references + torch.randn(2, PAIRS, generator=generator) * 4
        sums[:, 5] = references[:, 5]
        kinds = [(name, 0.0) for name in TYPES] + [(name, smoothing) for smoothing in (0.1, 0.3) for name in SMOOTHED]
        for name, smoothing in kinds:
            case = {"loss_type": name, "beta": beta, "label_smoothing": smoothing}
            cases.append(evaluate(case, sums, references, lengths))
    torch.set_default_dtype(torch.float32)
    oracle = {
        "chosen_lengths": lengths[0].tolist(),
        "rejected_lengths": lengths[1].tolist(),
        "reference_chosen": references[0].tolist(),
        "reference_rejected": references[1].tolist(),
        "cases": cases,
    }
    write_json(ORACLES / "preference_losses.json", oracle)
