"""test/oracles/quantization: NF4 and 8-bit moments as bitsandbytes has them on a CPU."""

import bitsandbytes
import bitsandbytes.functional as bnb
import numpy
import torch

from common import ORACLES, base64_of, write_json


def tensor(value: torch.Tensor) -> dict:
    array = value.detach().cpu().numpy()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": base64_of(array)}


def nf4_case(name: str, weight: torch.Tensor) -> dict:
    """The weight, whose values float16 holds, quantised without and with double quantisation."""
    case = {"name": name, "weight": tensor(weight.half())}
    for way, double in (("single", False), ("double", True)):
        packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=double)
        case[way] = {
            "blocksize": state.blocksize,
            "packed": tensor(packed.flatten()),
            "absmax": tensor(state.absmax),
            "dequantised": tensor(bnb.dequantize_4bit(packed, state)),
        }
        if double:
            nested = state.state2
            case[way]["nested"] = {
                "blocksize": nested.blocksize,
                "offset": state.offset.item(),
                "absmax": tensor(nested.absmax),
                "quant_map": tensor(nested.code),
            }
    case["quant_map"] = tensor(state.code)
    return case


def nf4() -> dict:
    generator = torch.Generator().manual_seed(4)

    def normal(rows: int, columns: int, size: float) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * size).half().float()

    outliers = normal(16, 96, 0.02)
    outliers[3, 5], outliers[15, 95] = 4.0, -2.5
    zeros = normal(8, 64, 1)
    zeros[2] = 0  # a block whose absmax is zero
    weights = {
        "normal": normal(32, 64, 0.02),
        "outliers": outliers,
        "a block of zeros": zeros,
        "a last block that is not full": normal(5, 30, 1),
        "several nested blocks": normal(75, 256, 0.1),  # 300 blocks: one nested block of 256, and one not full
    }
    return {"cases": [nf4_case(name, weight) for name, weight in weights.items()]}


def moments() -> dict:
    generator = torch.Generator().manual_seed(8)
    first = torch.randn(1500, generator=generator) * 1e-3
    second = (torch.randn(1500, generator=generator) * 1e-3) ** 2
    first[256:512] = 0
    maps = {"signed": bnb.create_dynamic_map(signed=True), "unsigned": bnb.create_dynamic_map(signed=False)}
    cases = []
    for which, values in (("signed", first), ("unsigned", second)):
        codes, state = bnb.quantize_blockwise(values, code=maps[which].clone(), blocksize=256)
        cases.append(
            {
                "map": which,
                "blocksize": 256,
                "values": tensor(values),
                "codes": tensor(codes),
                "absmax": tensor(state.absmax),
                "dequantised": tensor(bnb.dequantize_blockwise(codes, state)),
            }
        )
    return {"maps": {which: [float(value) for value in numpy.float32(code)] for which, code in maps.items()}, "cases": cases}


def adamw8bit() -> dict:
    """Steps of AdamW8bit. Tensors below 4096 elements keep their moments in float32, so there is one of each kind.

    The gradient of step t (from 0) at i is gradient[(i + 17 t) mod n] · scales[t].
    """
    generator = torch.Generator().manual_seed(64)
    options = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.1}
    scales = [1.0, -0.5, 2.0, 0.25]
    tensors = []
    for size in (4224, 300):  # 4224: the last block of 256 is not full
        start = torch.randn(size, generator=generator) * 0.05
        gradient = torch.randn(size, generator=generator) * 1e-3
        parameter = torch.nn.Parameter(start.clone())
        optimizer = bitsandbytes.optim.AdamW8bit([parameter], **{**options, "betas": tuple(options["betas"])})
        after = []
        for step, scale in enumerate(scales):
            parameter.grad = torch.roll(gradient, -17 * step) * scale
            optimizer.step()
            if step in (0, len(scales) - 1):
                state = optimizer.state[parameter]
                kept = {key: tensor(state[key]) for key in ("state1", "state2", "absmax1", "absmax2") if key in state}
                after.append({"step": step + 1, "parameter": tensor(parameter), **kept})
        tensors.append({"start": tensor(start), "gradient": tensor(gradient), "after": after})
    return {"options": options, "scales": scales, "tensors": tensors}


def make() -> None:
    write_json(ORACLES / "quantization" / "nf4.json", nf4())
    write_json(ORACLES / "quantization" / "blockwise8.json", moments())
    write_json(ORACLES / "quantization" / "adamw8bit.json", adamw8bit())
