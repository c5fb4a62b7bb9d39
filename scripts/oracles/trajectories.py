"""test/oracles/<family>/trl_trajectory.json: DPOTrainer from reference/, every step's metrics."""

import tempfile

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from common import ORACLES, read_rows, write_json
from models import FAMILIES, load, load_tokenizer, token_logprobs
from texts import PREFERENCES

BATCH, ACCUMULATION = 2, 2
CONFIG = {
    "learning_rate": 2e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 3,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "beta": 0.1,
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": ACCUMULATION,
    "num_train_epochs": 2,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
}
METRICS = ("loss", "grad_norm", "learning_rate", "entropy", "num_tokens", "mean_token_accuracy", "epoch", "step")
PREFIXES = ("logits/", "rewards/", "logps/")


class InOrder(DPOTrainer):
    """Takes the rows in their order, every epoch."""

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(dataset if dataset is not None else self.train_dataset)


def train(model, reference, tokenizer, rows: list[dict], config: dict) -> list[dict]:
    """Trains the model in place. Returns what the trainer logs of each step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            disable_tqdm=True,
            **config,
        )
        trainer = InOrder(
            model=model,
            ref_model=reference,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    return [
        {key: value for key, value in entry.items() if key in METRICS or key.startswith(PREFIXES)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


@torch.no_grad()
def sums(model, rows: list[dict]) -> list[list[float]]:
    """Chosen's and rejected's log-prob sums of each tokenized row."""
    return [
        [float(token_logprobs(model, row["prompt_ids"], row[f"{side}_ids"]).double().sum()) for side in ("chosen", "rejected")]
        for row in rows
    ]


def make_family(family: str, rows: list[dict]) -> None:
    folder = ORACLES / family
    trajectory = {"config": CONFIG}
    for loss in ("sigmoid", "ipo"):
        model = load(folder / "reference")
        config = {**CONFIG, "loss_type": [loss]}
        steps = train(model, load(folder / "reference"), load_tokenizer(folder / "reference"), PREFERENCES, config)
        trajectory[loss] = {"steps": steps, "logps_after_training": sums(model, rows)}
        print(f"  {family}, {loss}: loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f} in {len(steps)} steps")
    write_json(folder / "trl_trajectory.json", trajectory)


def make() -> None:
    torch.set_num_threads(1)
    for family in FAMILIES:
        make_family(family, read_rows(ORACLES / family / "logprobs.jsonl"))
