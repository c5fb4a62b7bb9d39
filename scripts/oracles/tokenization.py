"""test/oracles/trl_tokenization.jsonl: rows of every oddity, as DPOTrainer tokenizes them."""

from types import SimpleNamespace

from datasets import Dataset
from trl import DPOTrainer

from common import ORACLES, write_rows
from models import END, train_tokenizer
from texts import turn

ODD = [
    "héllo wörld",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag",
    "اللغة العربية",
    "tabs\tand\r\nCRLF",
    "  leading",
    "trailing  ",
    "\u00a0nbsp\u2028sep",
    "e\u0301 combining",
    f"{END} inside",
    "日本語のテキスト、混ざった English",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕄𝕒𝕥𝕙",
    "1234567890 12,345.67",
    "don't we'll I'VE",
    "   \n\n  \n",
    "\ufeffbom",
    "naïve ½ №",
    "नमस्ते दुनिया",
    "\x00ctrl\x1f",
]


def odd(index: int) -> str:
    return ODD[index % len(ODD)]


def strings() -> list[dict]:
    """Prompts and completions that touch in every way: glued, by a space or a line, and ended already."""
    rows = []
    for i in range(len(ODD)):
        rows += [
            {"prompt": f"{odd(i)} {odd(i + 3)}", "chosen": odd(i + 1), "rejected": odd(i + 7) + odd(i + 2)},
            {"prompt": odd(i), "chosen": " " + odd(i + 5), "rejected": "\n" + odd(i + 11)},
            {"prompt": odd(i), "chosen": odd(i + 4) + END, "rejected": odd(i + 9)},
        ]
    return rows


def conversation(row: dict, index: int) -> dict:
    prompt = [turn("system", odd(index + 6)), turn("user", row["prompt"])]
    return {"prompt": prompt, **{side: [turn("assistant", row[side])] for side in ("chosen", "rejected")}}


def implied(row: dict) -> dict:
    """The same without a prompt: it is what both sides begin with."""
    join = " " if isinstance(row["prompt"], str) else []
    return {side: row["prompt"] + join + row[side] for side in ("chosen", "rejected")}


def tokenized(tokenizer, rows: list[dict]) -> list[dict]:
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    ids = DPOTrainer._prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, arguments, "odd")
    sides = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{"value": row, **{side: made[side] for side in sides}} for row, made in zip(rows, ids, strict=True)]


def make() -> None:
    tokenizer = train_tokenizer()
    plain = strings()
    conversations = [conversation(row, index) for index, row in enumerate(plain)]
    groups = [plain, conversations[::4], [implied(row) for row in conversations[1::5]], [implied(row) for row in plain[2::4]]]
    rows = [row for group in groups for row in tokenized(tokenizer, group)]
    write_rows(ORACLES / "trl_tokenization.jsonl", rows)
