"""TRL's DPOTrainer on the CPU, the shape of bench/step.ts with random weights: the peer of our DPO step.

  python trl_dpo.py [--steps 7] [--cached-reference] [--lora-rank N]

Prints one JSON line: median seconds a step, pairs a second, peak resident bytes. The reference is a live second model
unless --cached-reference; with --lora-rank, where PEFT's adapters on all linear modules are trained, it is the model
without them. Rows are random words of one token each, so that lengths are exact.
"""
import argparse
import json
import os
import random
import resource
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

PAIRS, PROMPT, RESPONSE, VOCABULARY = 4, 128, 128, 49152

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=7)
parser.add_argument("--cached-reference", action="store_true")
parser.add_argument("--lora-rank", type=int, default=0)
options = parser.parse_args()

torch.set_num_threads(os.cpu_count())
torch.manual_seed(0)
config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                     num_key_value_heads=3, vocab_size=VOCABULARY, max_position_embeddings=2048,
                     tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0)


def model():
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")


words = {"<pad>": 0, "<unk>": 1, "<eos>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
backend.pre_tokenizer = WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")

rng = random.Random(0)


def text(count):
    return "".join(f" w{rng.randrange(3, VOCABULARY)}" for _ in range(count))


rows = [{"prompt": text(PROMPT), "chosen": text(RESPONSE - 1), "rejected": text(RESPONSE - 1)}
        for _ in range(PAIRS * options.steps)]


class Clock(TrainerCallback):
    def __init__(self):
        self.ends = []

    def on_step_end(self, *args, **kwargs):
        self.ends.append(time.perf_counter())


clock = Clock()
arguments = DPOConfig(output_dir="trl-out", per_device_train_batch_size=PAIRS, max_steps=options.steps,
                      learning_rate=1e-6, report_to=[], save_strategy="no", use_cpu=True, bf16=False,
                      gradient_checkpointing=False, disable_tqdm=True, max_length=None,
                      precompute_ref_log_probs=options.cached_reference, loss_type=["sigmoid"])
adapters = None
if options.lora_rank > 0:
    adapters = LoraConfig(r=options.lora_rank, lora_alpha=2 * options.lora_rank, target_modules="all-linear",
                          task_type="CAUSAL_LM")
second_model = adapters is None and not options.cached_reference
trainer = DPOTrainer(model=model(), ref_model=model() if second_model else None, args=arguments,
                     train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[clock],
                     peft_config=adapters)
trainer.train()
# Without the first two steps, as Tempora's.
steps = sorted(after - before for before, after in zip(clock.ends[1:], clock.ends[2:]))
median = steps[len(steps) // 2]
print(json.dumps({"stepSeconds": median, "pairsPerSecond": PAIRS / median,
                  "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
