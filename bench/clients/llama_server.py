"""llama.cpp's own HTTP server, from the PyPI package xllamacpp: llama_server.py MODEL.gguf SLOTS TOKENS_A_SLOT THREADS

Prints the address once it listens, and serves until its standard input ends.
"""

import json
import sys

import xllamacpp

model, slots, tokens, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.n_parallel = slots
params.n_ctx = slots * tokens
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.n_threads_http = 2 * slots + 2
server = xllamacpp.Server(params)
print(json.dumps({"url": server.listening_address}), flush=True)
sys.stdin.read()
