"""What the makers of oracles share: folders, writing, random numbers."""

import base64
import json
from pathlib import Path

import numpy

REPOSITORY = Path(__file__).resolve().parents[2]
ORACLES = REPOSITORY / "test" / "oracles"


def write_json(path: Path, value, indent: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def write_rows(path: Path, rows) -> None:
    """JSONL: one value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rounded(values, digits: int = 6) -> list[float]:
    """Numbers as a file keeps them: three digits finer than any tolerance of the tests."""
    return [round(float(value), digits) for value in values]


def base64_of(array) -> str:
    """An array's bytes, little-endian, in its own type."""
    return base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode("ascii")
