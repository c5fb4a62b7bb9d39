import { join } from "node:path";
import { strategies } from "@tempora/preferences";
import { oracle, scratch } from "@tempora/testing";
import { readAllRows, Tokenizer, tokenizePrompt } from "@tempora/text";
import { beforeAll, describe, expect, it } from "vitest";
import type { PoolRole } from "../results/results.ts";
import { formPairs } from "./pairs.ts";
import type { Candidate, Pool } from "./pools.ts";

const folder = await scratch();
const prompt = [{ role: "user", content: "Count to three." }];
let tokenizer: Tokenizer;
let promptIds: number[];
let end: number;

beforeAll(async () => {
  tokenizer = await Tokenizer.load(oracle("llama", "policy"));
  ({ promptIds } = tokenizePrompt({ file: "", row: 0, prompt }, tokenizer));
  end = tokenizer.eosId as number;
});

/** An answer that was sampled as these ids, whatever its text would give. */
function candidate(score: number, text: string, ids: number[], cut = false): Candidate {
  const row = {
    id: `M0-0-${score}`,
    prompt_id: "one",
    prompt,
    role: "current" as const,
    model: "M0",
    sample: score,
    text,
    ids,
    tokens: ids.length,
    log_prob: -1,
    finish_reason: cut ? ("length" as const) : ("stop" as const),
    score,
    true_score: null,
  };
  return { promptIds, variables: {}, row, text, score, length: ids.length, truncated: cut };
}

/** Forms the pair of the best and the worst of one prompt's answers. */
async function formed(list: Candidate[], truncated: "drop" | "keep" = "drop") {
  const pool = {
    role: "current",
    model: "M0",
    byTask: async function* () {
      yield list;
    },
  } as Partial<Pool> as Pool;
  const file = join(folder, "pairs.jsonl");
  const pairs = await formPairs({
    strategy: "self-rewarding",
    iteration: 1,
    rule: strategies["self-rewarding"].phases[0] as (typeof strategies)["temporal"]["phases"][number],
    phase: 1,
    pools: new Map<PoolRole, Pool>([["current", pool]]),
    tokenizer,
    now: new Date(),
    selection: { minimumGap: 0, lengthControl: null, truncated },
    file,
    note: () => {},
  });
  const [row] = await readAllRows(file);
  return { pairs, trained: pairs.pairs.list[0], row: row?.value };
}

describe("the pairs of a phase", () => {
  it("are trained on the ids that were sampled, in the file and in the training, whatever their text gives", async () => {
    // One token of each letter, which the tokenizer would join.
    const apart = [..."three"].map((letter) => tokenizer.encode(letter)[0] as number);
    expect(tokenizer.encode("three")).not.toEqual(apart);
    const whole = tokenizer.encode("four");
    const { pairs, trained, row } = await formed([
      candidate(5, "three", [...apart, end]),
      candidate(1, "four", [...whole, end]),
    ]);
    expect(trained).toMatchObject({ promptIds, chosenIds: [...apart, end], rejectedIds: [...whole, end] });
    expect(row).toMatchObject({ prompt_ids: promptIds, chosen_ids: [...apart, end], rejected_ids: [...whole, end] });
    expect(row?.text_differs).toBe(true);
    expect(pairs.textDiffers).toBe(1);
  });

  it("are not flagged where their text gives the ids again", async () => {
    const ids = (text: string) => [...tokenizer.encode(text), end];
    const { pairs, row } = await formed([candidate(5, "three", ids("three")), candidate(1, "four", ids("four"))]);
    expect(row).not.toHaveProperty("text_differs");
    expect(pairs.textDiffers).toBe(0);
  });

  it("are flagged where one answer was cut off and kept: by its text it gets an end token that it never had", async () => {
    const ids = tokenizer.encode("three");
    const list = [candidate(5, "three", ids, true), candidate(1, "four", [...tokenizer.encode("four"), end])];
    const { trained, row } = await formed(list, "keep");
    expect(trained?.chosenIds).toEqual(ids);
    expect(row?.text_differs).toBe(true);
  });
});
