"""Log-probs of given tokens from hidden states in torch, bf16: the peer of our log-prob head's forward pass.

Prints one JSON line: median seconds at T = 512, D = 1024, V = 32000.
"""
import json
import os
import time

import torch

ROWS, HIDDEN, VOCABULARY = 512, 1024, 32000
torch.set_num_threads(os.cpu_count())
torch.manual_seed(0)
hidden = torch.randn(ROWS, HIDDEN, dtype=torch.bfloat16)
weight = (torch.randn(VOCABULARY, HIDDEN) * 0.02).to(torch.bfloat16)
tokens = torch.randint(0, VOCABULARY, (ROWS,))

seconds = []
with torch.no_grad():
    for _ in range(12):
        start = time.perf_counter()
        # As trl.trainer.utils.selective_log_softmax for half precision: log_softmax, then gather.
        log_prob = torch.log_softmax(hidden @ weight.T, dim=-1).gather(1, tokens[:, None])
        seconds.append(time.perf_counter() - start)
seconds = sorted(seconds[2:])
print(json.dumps({"seconds": seconds[len(seconds) // 2]}))
