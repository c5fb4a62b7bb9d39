import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { editJson, oracle, scratch, vocabularySize } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { copyModel, editWeights, removeChatTemplate, removeTensor, truncateWeights } from "./support/checkpoints.ts";
import { tempora } from "./support/cli.ts";

const folder = await scratch();
const policy = oracle("llama", "policy");

/** Runs a command that must fail; checks the three lines and that nothing was left behind. Returns standard error. */
async function fault(args: readonly string[]): Promise<string> {
  const before = readdirSync(folder).sort();
  const { code, stderr, stdout } = await tempora(args);
  expect(code).toBe(1);
  expect(stdout).toBe("");
  expect(stderr).toMatch(/^error: .+\n(where: .+\n)?remedy: .+\n$/m);
  expect(stderr).not.toMatch(/\n\s+at /);
  expect(readdirSync(folder).sort()).toEqual(before);
  return stderr;
}

function rowsFile(name: string, rows: readonly unknown[]): string {
  const file = join(folder, name);
  writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return file;
}

const out = join(folder, "never-written.jsonl");
const pair = { prompt: "Say hello.", chosen: "Hello.", rejected: "No." };
const scoring = (model: string, data: string) => ["logprobs", "--model", model, "--data", data, "--out", out];

describe("checkpoints", () => {
  const data = () => rowsFile("pairs.jsonl", [pair]);
  const model = (name: string) => copyModel(join(folder, name));

  test("a missing tensor is named", async () => {
    const broken = model("missing-tensor");
    removeTensor(broken, "model.layers.1.mlp.up_proj.weight");
    const text = await fault(scoring(broken, data()));
    expect(text).toContain("model.layers.1.mlp.up_proj.weight");
    expect(text).toContain("missing-tensor");
  });

  test("a truncated file is found before any tensor is read", async () => {
    const broken = model("truncated");
    truncateWeights(broken, 1000);
    const text = await fault(scoring(broken, data()));
    expect(text).toMatch(/model\.safetensors/);
    expect(text).toMatch(/truncated|shorter|ends|bytes/i);
  });

  test("a wrong shape is told with both shapes", async () => {
    const broken = model("wrong-shape");
    editWeights(broken, (header) => {
      const tensor = header["model.layers.0.mlp.up_proj.weight"];
      if (tensor) tensor.shape = [...tensor.shape].reverse();
      return undefined;
    });
    const text = await fault(scoring(broken, data()));
    expect(text).toContain("[64, 72]");
    expect(text).toContain("[72, 64]");
    expect(text).toContain("model.layers.0.mlp.up_proj.weight");
  });

  test("a wrong element type is told with the way to convert it", async () => {
    const broken = model("wrong-dtype");
    editWeights(broken, (header) => {
      const tensor = header["model.norm.weight"];
      if (tensor) tensor.dtype = "I32";
      return undefined;
    });
    const text = await fault(scoring(broken, data()));
    expect(text).toContain("I32");
    expect(text).toContain("model.norm.weight");
  });

  test("an unknown architecture is refused by name", async () => {
    const broken = model("unknown-architecture");
    editJson(join(broken, "config.json"), (config) => {
      config.architectures = ["MambaForCausalLM"];
      config.model_type = "mamba";
    });
    const text = await fault(scoring(broken, data()));
    expect(text).toMatch(/mamba/i);
    expect(text).toContain("config.json");
  });

  test("an unknown rope type is refused by name", async () => {
    const broken = model("unknown-rope");
    editJson(join(broken, "config.json"), (config) => {
      config.rope_parameters = { rope_type: "yarn", rope_theta: 10000, factor: 4 };
    });
    const text = await fault(scoring(broken, data()));
    expect(text).toContain("yarn");
    expect(text).toContain("config.json");
  });

  test("NaN weights are refused by the tensor's name", async () => {
    const broken = model("nan-weights");
    editWeights(broken, (header, bytes) => {
      const start = header["model.layers.0.self_attn.q_proj.weight"]?.data_offsets[0] as number;
      bytes.writeFloatLE(Number.NaN, start + 40);
      return undefined;
    });
    const text = await fault(scoring(broken, data()));
    expect(text).toMatch(/NaN|finite/);
    expect(text).toContain("model.layers.0.self_attn.q_proj.weight");
  });

  test("a folder that is no checkpoint is told", async () => {
    mkdirSync(join(folder, "empty"), { recursive: true });
    expect(await fault(scoring(join(folder, "empty"), data()))).toContain("config.json");
    expect(await fault(scoring(join(folder, "not-there"), data()))).toContain("not-there");
  });

  test("a tokenizer without a chat template names the row and the remedy", async () => {
    const broken = model("no-template");
    removeChatTemplate(broken);
    const conversation = { prompt: [{ role: "user", content: "Hi" }] };
    const side = (content: string) => [{ role: "assistant", content }];
    const rows = rowsFile("talk.jsonl", [{ ...conversation, chosen: side("a"), rejected: side("b") }]);
    const text = await fault(scoring(broken, rows));
    expect(text).toMatch(/chat template/);
    expect(text).toContain("talk.jsonl, row 1");
  });
});

describe("rows", () => {
  test("an empty dataset", async () => {
    const text = await fault(scoring(policy, rowsFile("empty.jsonl", [])));
    expect(text).toMatch(/empty/);
    expect(text).toContain("empty.jsonl");
  });

  test("a row without a field", async () => {
    const file = rowsFile("lacking.jsonl", [pair, { prompt: "x", chosen: "y" }]);
    const text = await fault(scoring(policy, file));
    expect(text).toContain("lacking.jsonl, row 2, field rejected");
  });

  test("a row that is not JSON", async () => {
    const file = join(folder, "torn.jsonl");
    writeFileSync(file, `${JSON.stringify(pair)}\n{"prompt": "x", "cho\n`);
    expect(await fault(scoring(policy, file))).toContain("torn.jsonl, row 2");
  });

  test("an empty completion", async () => {
    const text = await fault(scoring(policy, rowsFile("void.jsonl", [pair, { ...pair, rejected: "" }])));
    expect(text).toContain("void.jsonl, row 2, field rejected");
    const ids = rowsFile("void-ids.jsonl", [{ prompt_ids: [1, 2], completion_ids: [] }]);
    expect(await fault(scoring(policy, ids))).toContain("void-ids.jsonl, row 1");
  });

  test("a prompt longer than the context", async () => {
    const long = { prompt: "word ".repeat(3000) };
    const file = rowsFile("long.jsonl", [{ prompt: "short" }, long]);
    const text = await fault(["generate", "--model", policy, "--data", file, "--out", out]);
    expect(text).toContain("long.jsonl, row 2");
    expect(text).toContain("1024");
    expect(await fault(scoring(policy, rowsFile("long-pair.jsonl", [{ ...pair, ...long }])))).toContain("row 1");
  });

  test("ids outside the vocabulary", async () => {
    const file = rowsFile("outside.jsonl", [{ prompt_ids: [1, 2], chosen_ids: [3], rejected_ids: [vocabularySize] }]);
    const text = await fault(scoring(policy, file));
    expect(text).toContain(String(vocabularySize));
    expect(text).toContain("outside.jsonl, row 1, field rejected");
  });

  test("a row that no micro-batch can hold names the option", async () => {
    const file = rowsFile("fits-not.jsonl", [pair]);
    const text = await fault([...scoring(policy, file), "--max-tokens", "4"]);
    expect(text).toContain("--max-tokens");
  });
});

describe("a configuration file", () => {
  const train = (text: string) => {
    const file = join(folder, "tempora.config.ts");
    writeFileSync(file, text);
    return fault(["train", file, "--runs", join(folder, "runs")]);
  };

  test("that is no module is told to be one", async () => {
    expect(await train("export default {")).toMatch(/does not load: .*\nwhere: .*tempora\.config\.ts\nremedy: Correct/);
    expect(await train("export default 3;")).toContain("no object as its default export");
  });

  test("beside which Tempora is not installed can do without it", async () => {
    const text = await train('import { defineConfig } from "@tempora/run";\nexport default defineConfig({});\n');
    expect(text).toMatch(/does not load: .*@tempora\/run.*\n.*\nremedy: Leave the import out/);
  });
});

describe("outputs", () => {
  test("a place that cannot be written is found before the work", async () => {
    const file = join(folder, "a-file");
    writeFileSync(file, "");
    const data = rowsFile("pairs.jsonl", [pair]);
    const target = join(file, "below", "out.jsonl");
    const text = await fault(["logprobs", "--model", join(folder, "not-there"), "--data", data, "--out", target]);
    // The model does not exist either: the output was looked at first.
    expect(text).toContain("--out");
    expect(text).toContain("not a folder");
    const dpo = ["dpo", "--model", policy, "--data", data, "--out", join(folder, "unwritten")];
    expect(await fault([...dpo, "--metrics", target])).toContain("--metrics");
    expect(await fault(["sft", "--model", policy, "--data", data, "--out", join(file, "model")])).toContain("--out");
  });

  test("an output that is the input is refused", async () => {
    const data = rowsFile("both.jsonl", [pair]);
    const text = await fault(["logprobs", "--model", policy, "--data", data, "--out", data]);
    expect(text).toContain("--out is the same as an input");
    expect(await fault(["dpo", "--model", policy, "--data", data, "--out", policy])).toContain("same as an input");
  });

  test("a checkpoint does not replace a folder that holds something else", async () => {
    const precious = join(folder, "precious");
    mkdirSync(precious, { recursive: true });
    writeFileSync(join(precious, "thesis.txt"), "");
    const data = rowsFile("one.jsonl", [{ prompt: "a", completion: "b" }]);
    const text = await fault(["sft", "--model", policy, "--data", data, "--out", precious]);
    expect(text).toContain("precious");
    expect(existsSync(join(precious, "thesis.txt"))).toBe(true);
  });

  test("a whole model and an adapter do not replace each other, which is said before anything is trained", async () => {
    const whole = copyModel(join(folder, "whole"));
    const adapter = join(folder, "adapter");
    mkdirSync(adapter);
    writeFileSync(join(adapter, "adapter_config.json"), "{}");
    const data = rowsFile("one.jsonl", [{ prompt: "a", completion: "b" }]);
    const pairs = rowsFile("pairs.jsonl", [pair]);
    for (const [command, rows] of [
      ["sft", data],
      ["dpo", pairs],
    ] as const) {
      const given = [command, "--model", policy, "--data", rows];
      const over = await fault([...given, "--out", adapter]);
      expect(over).toMatch(/^error: The folder holds something else than a checkpoint/);
      const beside = await fault([...given, "--out", whole, "--lora-rank", "2"]);
      expect(beside).toMatch(/^error: The folder holds something else than an adapter/);
    }
  });
});

describe("usage", () => {
  test("an unknown option is met with the one that was meant", async () => {
    expect(await fault(["logprobs", "--modle", "x"])).toContain("Did you mean --model?");
    expect(await fault(["trian"])).toContain("Did you mean train?");
  });

  test("a missing option and a value out of range are named", async () => {
    expect(await fault(["logprobs", "--data", "x"])).toContain("--model");
    expect(await fault(["generate", "--model", policy, "--data", "x", "--out", out, "--top-p", "2"])).toContain(
      "--top-p",
    );
    expect(await fault(["dpo", "--model", policy, "--data", "x", "--out", out, "--loss", "sigmiod"])).toContain(
      "sigmiod",
    );
    expect(await fault(["train", "--iterations", "two"])).toContain("--iterations");
  });

  test("help names every option with its default and gives an example", async () => {
    const commands = ["train", "sft", "dpo", "logprobs", "generate", "compare", "judge", "pairs", "report", "doctor"];
    const main = await tempora(["--help"]);
    expect(main.code).toBe(0);
    for (const name of commands) {
      expect(main.stdout).toMatch(new RegExp(`^  ${name}\\b`, "m"));
      const help = await tempora([name, "--help"]);
      expect(help.code).toBe(0);
      expect(help.stdout).toMatch(/\nExamples?:\n {2}\$ tempora /);
      expect(help.stdout).toContain("--json");
    }
    expect((await tempora(["dpo", "--help"])).stdout).toMatch(/--beta <number>.+\(default: 0\.1\)/);
  });

  test("--debug shows the stack, --json the fault as JSON", async () => {
    const args = scoring(join(folder, "not-there"), "x");
    const debug = await tempora([...args, "--debug"]);
    expect(debug.stderr).toMatch(/\n\s+at /);
    const json = await tempora([...args, "--json"]);
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { where: expect.stringContaining("not-there") as string } });
  });

  test("a faulty config file is named with its field", async () => {
    const config = join(folder, "faulty.config.ts");
    writeFileSync(config, "export default { itertions: 3 };\n");
    const text = await fault(["train", config]);
    expect(text).toContain("itertions");
    expect(text).toContain("faulty.config.ts");
    writeFileSync(config, "export default { iterations: -1 };\n");
    expect(await fault(["train", config])).toMatch(/iterations.*-1/);
    writeFileSync(config, "export const nothing = 1;\n");
    expect(await fault(["train", config])).toMatch(/default/);
    writeFileSync(config, "export default {{;\n");
    expect(await fault(["train", config])).toContain("faulty.config.ts");
    expect(await fault(["train", join(folder, "no.config.ts")])).toContain("no.config.ts");
  });
});

test("what cannot be looked at is not told to be missing", async () => {
  // A circle of links, as a folder that may not be entered: tests may run as a user who may enter all.
  const circle = join(folder, "circle");
  symlinkSync(circle, circle);
  const commands = [
    ["store", "--runs", circle],
    ["clean", "--runs", circle],
    ["watch", circle],
    ["report", circle],
    ["doctor", "--model", circle],
    ["train", join(circle, "tempora.config.ts")],
    ["logprobs", "--model", policy, "--data", join(circle, "pairs.jsonl"), "--out", out],
  ];
  for (const command of commands) {
    expect(await fault(command), command.join(" ")).toMatch(
      /^error: Cannot read .*: its links lead in a circle\nwhere: .*circle/m,
    );
  }
});
