"""Makes test/oracles again, wholly or in parts: see test/oracles/README.md.

    python scripts/oracles/make.py             everything
    python scripts/oracles/make.py tokenizers  one part, or several
"""

import importlib
import sys

# Each part and the module whose make() writes it.
PARTS = {
    "families": "families",
    "trajectories": "trajectories",
    "adapters": "adapters",
    "losses": "losses",
    "gguf": "gguf_files",
    "activations": "eight_bit_activations",
    "quantization": "quantization",
    "bitsandbytes": "bitsandbytes_folder",
    "tokenization": "tokenization",
    "tokenizers": "zoo",
    "smollm2": "real_model",
}


def disable_progress_bars() -> None:
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def main(wanted: list[str]) -> None:
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        sys.exit(f"No part is called {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    disable_progress_bars()
    for part in wanted or PARTS:
        print(f"oracles: {part}", flush=True)
        importlib.import_module(PARTS[part]).make()


if __name__ == "__main__":
    main(sys.argv[1:])
