"""torch, transformers and PEFT on a CUDA device, beside native/bench/cuda_bench and cuda_engine_bench: the same shapes, the
same kind of lines. Needs no network and no TRL: its DPO step is written out here as TRL 1.13 computes it.

  python3 torch_gpu.py [--device cuda] [--sizes 1B] [--seconds 110] [--only NAME]

What fails is told in a line of its own and costs no other measurement; what would begin after --seconds is left out.
"""
import argparse
import contextlib
import gc
import math
import os
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.filterwarnings("ignore")

import torch
import torch._functorch.config
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--sizes", default="1B", choices=["1B", "tiny"])
parser.add_argument("--seconds", type=float, default=110)
parser.add_argument("--only", default="")
options = parser.parse_args()
device = torch.device(options.device)
on_gpu = device.type == "cuda"
tiny = options.sizes == "tiny"
bf16 = torch.bfloat16
begun = time.perf_counter()

MODEL = (dict(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, head_dim=16) if tiny else
         dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
              num_key_value_heads=8, head_dim=64))
PAIRS, PROMPT, ANSWER = (2, 16, 8) if tiny else (8, 512, 256)
PROMPTS, SAMPLES, NEW_TOKENS = (2, 2, 8) if tiny else (64, 8, 32)
ceilings = {"flops": math.inf, "bytes": math.inf}


def wait():
    if on_gpu:
        torch.cuda.synchronize()


def best_seconds(work, least=2, most=20, enough=1.0):
    """The least of some runs, after one that warms up."""
    work()
    wait()
    best, total, runs = math.inf, 0.0, 0
    while runs < least or (runs < most and total < enough):
        start = time.perf_counter()
        work()
        wait()
        seconds = time.perf_counter() - start
        best, total, runs = min(best, seconds), total + seconds, runs + 1
    return best


def report(name, seconds, flops=0.0, moved=0.0, more=""):
    floor = max(flops / ceilings["flops"], moved / ceilings["bytes"])
    print(f"torch: {name:<58} {seconds * 1e3:9.3f} ms  floor {floor * 1e3:8.3f} ms  {100 * floor / seconds:5.1f} % of it"
          f"  {flops / seconds * 1e-12:7.1f} TFLOP/s {moved / seconds * 1e-9:7.1f} GB/s{more}", flush=True)


def measured(name, work, flops=0.0, moved=0.0, **limits):
    if options.only in name:
        with tried(name):
            report(name, best_seconds(work, **limits), flops, moved)


@contextlib.contextmanager
def tried(name):
    try:
        yield
    except Exception as error:  # nobody can look at the machine afterwards: tell, and go on
        print(f"torch: {name} FAILED: {type(error).__name__}: {str(error)[:600]}", flush=True)


def section(work):
    """A group of measurements whose memory is given back."""
    if time.perf_counter() - begun > options.seconds:
        print(f"torch: {work.__name__} is left out: --seconds are over", flush=True)
        return
    with tried(work.__name__):
        work()
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def normal(*shape, dtype=bf16, grad=False):
    return torch.randn(*shape, device=device, dtype=dtype).requires_grad_(grad)


def measure_ceilings():
    n = 128 if tiny else 8192
    a, b = normal(n, n), normal(n, n)
    ceilings["flops"] = 2.0 * n**3 / best_seconds(lambda: a @ b.T)
    size = 1 << (20 if tiny else 31)
    source, target = torch.zeros(size, dtype=torch.uint8, device=device), torch.empty(size, dtype=torch.uint8, device=device)
    ceilings["bytes"] = 2.0 * size / best_seconds(lambda: target.copy_(source))
    print(f"torch: ceilings: bf16 product of {n} {ceilings['flops'] * 1e-12:.1f} TFLOP/s, copy of 2 GiB "
          f"{ceilings['bytes'] * 1e-9:.1f} GB/s read and written", flush=True)


def products():
    """Of a training step at 8192 tokens, and of a decoding step of 512 rows; outputs x inputs of 1B and 8B."""
    shapes = [(64, 64)] if tiny else [(2048, 2048), (512, 2048), (8192, 2048), (2048, 8192), (4096, 4096), (14336, 4096),
                                      (4096, 14336)]
    for rows in [32] if tiny else [8192, 512, 8]:
        for n, k in shapes if rows > 8 else shapes[-2:]:
            x, weight, d_out = normal(rows, k), normal(n, k), normal(rows, n)
            flops, moved = 2.0 * rows * n * k, 2.0 * (rows * k + n * k + rows * n)
            measured(f"product {rows} x {n} x {k}", lambda: x @ weight.T, flops, moved, enough=0.1)
            if rows == 8192:
                measured(f"product {rows} x {n} x {k}, gradient of x", lambda: d_out @ weight, flops, moved, enough=0.1)
                measured(f"product {rows} x {n} x {k}, gradient of the weight", lambda: d_out.T @ x, flops, moved,
                         enough=0.1)


def head():
    rows, v, d = (32, 512, 64) if tiny else (8192, 128256, 2048)
    hidden, weight = normal(rows, d, grad=True), normal(v, d, grad=True)
    labels = torch.randint(v, (rows,), device=device)
    name = f"T={rows} V={v} D={d}, cross entropy of bf16 logits"

    def step():
        hidden.grad = weight.grad = None
        F.cross_entropy(hidden @ weight.T, labels).backward()

    measured(f"head forward + backward {name}", step, 6.0 * rows * v * d)


def visible_pairs(tokens, siblings):
    """(query, key) pairs of a prompt of half the tokens with that many continuations, or of one sequence."""
    prompt = tokens if siblings == 0 else tokens // 2
    pairs, at = prompt * (prompt + 1) // 2, prompt
    for s in range(1, siblings + 1):
        end = prompt + (tokens - prompt) * s // siblings
        length, at = end - at, end
        pairs += length * prompt + length * (length + 1) // 2
    return pairs


def forward_and_backward(name, attention, qkv, flops, **limits):
    q, k, v = qkv
    moved = 2.0 * sum(x.numel() for x in (q, q, k, v))
    # As training has it: a forward pass of its own without gradients would be compiled a second time.
    measured(f"{name} forward", lambda: attention(*qkv), flops, moved, **limits)
    if options.only in f"{name} backward":
        with tried(f"{name} backward"):
            out = attention(q, k, v)
            d_out = torch.randn_like(out)
            report(f"{name} backward",
                   best_seconds(lambda: torch.autograd.grad(out, qkv, d_out, retain_graph=True), **limits), 2.5 * flops,
                   2 * moved)


def attention_inputs(tokens, c):
    h, g = (4, 2) if tiny else (32, 8)
    return normal(1, h, tokens, c, grad=True), normal(1, g, tokens, c, grad=True), normal(1, g, tokens, c, grad=True)


def sdpa_attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION] if on_gpu else [SDPBackend.MATH]
    for tokens, c in [(64, 16)] if tiny else [(2048, 128), (2048, 64), (8192, 128), (8192, 64)]:
        for backend in backends:
            def attention(q, k, v):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

            qkv = attention_inputs(tokens, c)
            forward_and_backward(f"SDPA {backend.name} T={tokens} C={c}, causal", attention, qkv,
                                 4.0 * visible_pairs(tokens, 0) * qkv[0].shape[1] * c, enough=0.2)


def flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention as flex

    torch._functorch.config.donated_buffer = False  # or one forward pass could not be differentiated again and again
    compiled = torch.compile(flex, dynamic=False) if on_gpu else flex
    for tokens, c, siblings in [(256, 16, 2)] if tiny else [(2048, 128, 8), (8192, 128, 8)]:
        prompt = tokens // 2
        # The continuation that a token is of; 0: the prompt.
        branch = torch.zeros(tokens, dtype=torch.int32, device=device)
        for s in range(siblings):
            branch[prompt + (tokens - prompt) * s // siblings:] = s + 1

        def tree(b, h, query, key):
            return (key <= query) & ((branch[key] == 0) | (branch[key] == branch[query]))

        # Making the mask is no part of what is timed, as our plan is not.
        mask = create_block_mask(tree, None, None, tokens, tokens, device=device)
        qkv = attention_inputs(tokens, c)
        forward_and_backward(f"FlexAttention T={tokens} C={c}, {siblings} continuations",
                             lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=True), qkv,
                             4.0 * visible_pairs(tokens, siblings) * qkv[0].shape[1] * c, enough=0.2)


def fused_adamw():
    size = 1 << (16 if tiny else 28)
    for dtype in (bf16, torch.float32):
        weight = normal(size, dtype=dtype, grad=True)
        weight.grad = normal(size, dtype=dtype)
        optimizer = torch.optim.AdamW([weight], lr=1e-6, fused=True)
        # torch has moments and gradients in the weight's type: all four are read, three written.
        measured(f"fused AdamW of {size >> 20} Mi, all in {dtype}", optimizer.step, 0.0, 7.0 * size * weight.element_size())


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**MODEL, max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None,
                         eos_token_id=None, pad_token_id=0, rms_norm_eps=1e-5)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(bf16)
    try:
        with device:
            return LlamaForCausalLM(config).to(device)
    finally:
        torch.set_default_dtype(torch.float32)


def selective_log_softmax(logits, labels):
    """As trl.trainer.utils has it for bf16 logits: a sequence at a time."""
    rows = [F.log_softmax(row, dim=-1).gather(-1, label.unsqueeze(-1)) for row, label in zip(logits, labels)]
    return torch.stack(rows).squeeze(-1)


def completion_sums(model, ids, keep):
    """Summed log-probs of the completions. keep: logits of their tokens alone, or of all as TRL 1.13 makes them."""
    mask = torch.ones_like(ids)
    more = {"logits_to_keep": ANSWER + 1} if keep else {}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits
    return selective_log_softmax(logits[:, -ANSWER - 1:-1], ids[:, -ANSWER:]).sum(-1) if keep else \
        selective_log_softmax(logits[:, :-1], ids[:, 1:])[:, -ANSWER:].sum(-1)


def block_numbers():
    hidden, wide = MODEL["hidden_size"], MODEL["num_attention_heads"] * MODEL["head_dim"]
    narrow = MODEL["num_key_value_heads"] * MODEL["head_dim"]
    return MODEL["num_hidden_layers"] * hidden * (2 * wide + 2 * narrow + 3 * MODEL["intermediate_size"])


def measure_step(name, model, flops_a_number, autocast):
    """Chosen and rejected as 2 x PAIRS sequences, a cached reference, clipping and fused AdamW. No token is padding, which
    is the best case of a padded batch."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=on_gpu)
    ids = torch.randint(MODEL["vocab_size"], (2 * PAIRS, PROMPT + ANSWER), device=device)
    # What its own tokens want, prompts twice; of the head the completions alone.
    flops = flops_a_number * (ids.numel() * block_numbers() +
                              2 * PAIRS * ANSWER * MODEL["vocab_size"] * MODEL["hidden_size"])
    model.train()

    def mixed():
        return torch.autocast(device.type, bf16) if autocast else contextlib.nullcontext()

    for keep in (True, False):
        what = f"{name}, {PAIRS} pairs of {PROMPT} + 2 x {ANSWER}, logits of " + ("completions" if keep else "all, as TRL")
        parts = {"gradient": math.inf, "optimizer": math.inf}

        def step():
            start = time.perf_counter()
            with mixed():
                sums = completion_sums(model, ids, keep)
            chosen, rejected = sums.float().chunk(2)
            reference = chosen.detach() * 0.99, rejected.detach() * 0.99
            (-F.logsigmoid(0.1 * ((chosen - reference[0]) - (rejected - reference[1])))).mean().backward()
            wait()
            middle = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            wait()
            parts["gradient"] = min(parts["gradient"], middle - start)
            parts["optimizer"] = min(parts["optimizer"], time.perf_counter() - middle)

        with tried(what):
            seconds = best_seconds(step, most=4, enough=4)
            peak = torch.cuda.max_memory_allocated() * 1e-9 if on_gpu else 0.0
            report(f"{what}: the step", seconds, flops, 0.0,
                   f"  {PAIRS / seconds:.2f} pairs/s, of it norm and AdamW {parts['optimizer'] * 1e3:.2f} ms, peak {peak:.1f} GB")
    with tried(f"{name}: reference"), torch.no_grad(), mixed():
        report(f"{name}: reference alone, which a live one adds", best_seconds(
            lambda: completion_sums(model, ids, True), most=3))


def dpo_step():
    measure_step(options.sizes, llama(), 6, autocast=False)


def dpo_step_lora():
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    # A and B are f32 there, and the products bf16 by autocast, as the Trainer's bf16 has it.
    measure_step(f"{options.sizes} LoRA", get_peft_model(llama(), adapters), 4, autocast=True)


def generate(model, ids, count, **settings):
    with torch.no_grad():
        return model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count,
                              do_sample=True, top_p=0.95, top_k=0, pad_token_id=0, **settings)


def measure_generation(name, **settings):
    """Every row has its own copy of the prompt's keys: transformers shares none. A step is the difference of two lengths."""
    model = llama().eval()
    rows = PROMPTS * SAMPLES
    ids = torch.randint(1, MODEL["vocab_size"], (PROMPTS, PROMPT), device=device).repeat_interleave(SAMPLES, 0)
    length = PROMPT + NEW_TOKENS + 2
    if "cache_implementation" in settings:
        settings["max_cache_len"] = length
    few = best_seconds(lambda: generate(model, ids, 2, **settings), least=1, enough=0)
    many = best_seconds(lambda: generate(model, ids, 2 + NEW_TOKENS, **settings), least=1, enough=0)
    seconds = (many - few) / NEW_TOKENS
    report(f"{options.sizes}, {PROMPTS} x {SAMPLES}: prompts and two tokens, {name}", few)
    peak = torch.cuda.max_memory_allocated() * 1e-9 if on_gpu else 0.0
    report(f"{options.sizes}, {PROMPTS} x {SAMPLES}: a decoding step, top p 0.95, {name}", seconds, 0.0, 0.0,
           f"  {rows / seconds:.0f} tokens/s, peak {peak:.1f} GB")


def generation():
    measure_generation("growing cache")


def generation_static():
    """transformers compiles the forward pass for a static cache."""
    measure_generation("static cache, compiled", cache_implementation="static")


if on_gpu:
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}", flush=True)
section(measure_ceilings)
for work in (dpo_step, dpo_step_lora, generation, sdpa_attention, products, head, fused_adamw, flex_attention,
             generation_static):
    section(work)
print(f"torch: {time.perf_counter() - begun:.0f} s in all", flush=True)
