"""test/oracles/gguf/values.json and activations.json: what ggml makes of a Q8_0 file, and what llama.cpp computes with it.

Beside weights in blocks of 32 integers llama.cpp rounds what a matrix is multiplied with to 8 bits too (ggml: vec_dot_type,
quantize_row_q8_0 and _q8_1). Here the same is computed in NumPy: a model of a GGUF file in f32, whose matrices get their inputs
so rounded. For any file and rows with prompt_ids and completion_ids

    python scripts/oracles/eight_bit_activations.py FILE.gguf ROWS.jsonl [COUNT]

prints how far the rounding moves the log-probs, and how far a change of the embedding by 1e-6 does then. Needs gguf and numpy alone.
"""

import hashlib
import sys
from pathlib import Path

import gguf
import numpy
from gguf import GGMLQuantizationType as Type

from common import ORACLES, read_rows, rounded, write_json

FOLDER = ORACLES / "gguf"
# Weights whose products llama.cpp takes with inputs in blocks of 32 8-bit integers.
ROUNDED = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1)


def eight_bits(values: numpy.ndarray) -> numpy.ndarray:
    """[..., n], n whole blocks of 32: each the nearest multiples of its largest magnitude / 127, which is kept in half precision."""
    blocks = values.reshape(-1, 32)
    largest = numpy.abs(blocks).max(axis=1, keepdims=True)
    inverse = numpy.divide(numpy.float32(127), largest, out=numpy.zeros_like(largest), where=largest > 0)
    scale = (largest / numpy.float32(127)).astype(numpy.float16).astype(numpy.float32)
    return (numpy.rint(blocks * inverse) * scale).reshape(values.shape)


class Model:
    """A llama or qwen3 of a GGUF file, its weights dequantised to f32."""

    def __init__(self, file: Path) -> None:
        reader = gguf.GGUFReader(file)
        self.types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
        self.tensors = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
            for tensor in reader.tensors
        }
        self.architecture = reader.fields["general.architecture"].contents()
        if self.architecture not in ("llama", "qwen3") or "rope_freqs.weight" in self.tensors:
            sys.exit(f"{file}: only llama and qwen3 without scaled rope are computed here")
        self.layers = self._number(reader, "block_count")
        self.heads = self._number(reader, "attention.head_count")
        self.groups = self._number(reader, "attention.head_count_kv")
        self.epsilon = numpy.float32(self._number(reader, "attention.layer_norm_rms_epsilon"))
        self.theta = self._number(reader, "rope.freq_base")
        self.width = self.tensors["blk.0.attn_q.weight"].shape[0] // self.heads
        self.head = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"

    def _number(self, reader: gguf.GGUFReader, key: str):
        return reader.fields[f"{self.architecture}.{key}"].contents()

    def logprobs(self, row: dict, rounds: bool) -> numpy.ndarray:
        """[completion]: of each token of the row's completion. `rounds`: matrices get inputs of 8 bits."""
        prompt, completion = row["prompt_ids"], row["completion_ids"]
        hidden = self._hidden(prompt + completion[:-1], rounds)[len(prompt) - 1 :]
        logits = self._product(hidden, self.head, rounds).astype(numpy.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        return logits[numpy.arange(len(completion)), completion] - numpy.log(numpy.exp(logits).sum(axis=-1))

    def _product(self, values: numpy.ndarray, name: str, rounds: bool) -> numpy.ndarray:
        inputs = eight_bits(values) if rounds and self.types[name] in ROUNDED else values
        return inputs @ self.tensors[name].T

    def _norm(self, values: numpy.ndarray, name: str) -> numpy.ndarray:
        return values / numpy.sqrt((values * values).mean(axis=-1, keepdims=True) + self.epsilon) * self.tensors[name]

    def _rotated(self, values: numpy.ndarray) -> numpy.ndarray:
        """[T, heads, width]: llama's pairs are neighbours in a GGUF file, qwen3's lie half a head apart."""
        angles = numpy.outer(numpy.arange(len(values)), self.theta ** (-numpy.arange(0, self.width, 2) / self.width))
        cosine, sine = (part.astype(numpy.float32)[:, None] for part in (numpy.cos(angles), numpy.sin(angles)))
        half = self.width // 2
        first, second = (
            (slice(0, None, 2), slice(1, None, 2)) if self.architecture == "llama" else (slice(0, half), slice(half, None))
        )
        a, b = values[..., first], values[..., second]
        out = numpy.empty_like(values)
        out[..., first], out[..., second] = a * cosine - b * sine, a * sine + b * cosine
        return out

    def _attention(self, values: numpy.ndarray, block: str, rounds: bool) -> numpy.ndarray:
        length = len(values)
        query, key, value = (
            self._product(values, f"{block}attn_{name}.weight", rounds).reshape(length, -1, self.width) for name in "qkv"
        )
        if f"{block}attn_q_norm.weight" in self.tensors:
            query, key = self._norm(query, f"{block}attn_q_norm.weight"), self._norm(key, f"{block}attn_k_norm.weight")
        query, key = self._rotated(query), self._rotated(key)
        key, value = (numpy.repeat(part, self.heads // self.groups, axis=1) for part in (key, value))
        scores = numpy.einsum("thd,shd->hts", query, key) / numpy.float32(numpy.sqrt(self.width))
        scores += numpy.triu(numpy.full((length, length), -numpy.inf, dtype=numpy.float32), 1)
        weights = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = numpy.einsum("hts,shd->thd", weights, value).reshape(length, -1)
        return self._product(mixed, f"{block}attn_output.weight", rounds)

    def _hidden(self, ids: list[int], rounds: bool) -> numpy.ndarray:
        """[T, hidden] behind the last norm."""
        hidden = self.tensors["token_embd.weight"][ids]
        for layer in range(self.layers):
            block = f"blk.{layer}."
            hidden = hidden + self._attention(self._norm(hidden, f"{block}attn_norm.weight"), block, rounds)
            inner = self._norm(hidden, f"{block}ffn_norm.weight")
            gate, up = (self._product(inner, f"{block}ffn_{name}.weight", rounds) for name in ("gate", "up"))
            hidden = hidden + self._product(gate / (1 + numpy.exp(-gate)) * up, f"{block}ffn_down.weight", rounds)
        return self._norm(hidden, "output_norm.weight")


def values_of(file: Path) -> dict[str, str]:
    """SHA-256 of each tensor's float32 values as gguf reads them in the file, by the names in it."""
    reader = gguf.GGUFReader(file)
    return {
        tensor.name: hashlib.sha256(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4").tobytes()).hexdigest()
        for tensor in reader.tensors
    }


def make() -> None:
    write_json(FOLDER / "values.json", values_of(FOLDER / "qwen3-q8_0.gguf"), indent=1)
    rounds = {}
    for name in ("qwen3-q8_0", "llama-q4_0"):
        model = Model(FOLDER / f"{name}.gguf")
        rows = read_rows(FOLDER / f"{name}.jsonl")
        for row in rows:
            # Without rounding it is the model that transformers computes.
            difference = numpy.abs(model.logprobs(row, rounds=False) - row["completion_logprobs"]).max()
            assert difference < 1e-4, f"{name}: this is another model: {difference}"
        rounds[name] = [rounded(model.logprobs(row, rounds=True)) for row in rows]
    write_json(FOLDER / "activations.json", rounds)


def main(file: str, data: str, count: str = "8") -> None:
    model = Model(Path(file))
    rows = read_rows(Path(data))[: int(count)]

    def all_of(rounds: bool) -> numpy.ndarray:
        return numpy.concatenate([model.logprobs(row, rounds) for row in rows])

    exact, rounds = all_of(False), all_of(True)
    embedding = model.tensors["token_embd.weight"]
    noise = numpy.random.default_rng(1).standard_normal(embedding.shape).astype(numpy.float32)
    model.tensors["token_embd.weight"] = embedding * (1 + numpy.float32(1e-6) * noise)
    print(f"{len(exact)} tokens, mean of |difference| a token:")
    print(f"  inputs of 8 bits beside f32          {numpy.abs(rounds - exact).mean():.2g}")
    print(f"  embedding changed by 1e-6, f32       {numpy.abs(all_of(False) - exact).mean():.2g}")
    print(f"  embedding changed by 1e-6, 8 bits    {numpy.abs(all_of(True) - rounds).mean():.2g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
