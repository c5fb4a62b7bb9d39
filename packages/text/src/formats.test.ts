import { failure, put } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { parseColumns } from "./columns.ts";
import { readAllRows } from "./datasets.ts";
import { type RowKind, translateRow } from "./formats.ts";
import { completionRow, preferenceRow, promptRow } from "./rows.ts";

const place = { file: "rows.jsonl", row: 3 };
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });
const system = (content: string) => ({ role: "system", content });
const human = (value: string) => ({ from: "human", value });
const gpt = (value: string) => ({ from: "gpt", value });

const translated = (value: Record<string, unknown>, kind: RowKind) => translateRow({ row: 3, value }, place.file, kind);
const fault = (value: Record<string, unknown>, kind: RowKind) => failure(() => translated(value, kind));

describe("preferences of other tools", () => {
  const [chosen, rejected] = [[assistant("c")], [assistant("r")]];
  const asked = { prompt: [system("s"), user("q")], chosen, rejected };
  test.each<[string, Record<string, unknown>, object]>([
    [
      "LLaMA-Factory's alpaca",
      { instruction: "do", input: "it", system: "s", history: [["a", "b"]], chosen: "c", rejected: "r" },
      { prompt: [system("s"), user("a"), assistant("b"), user("do\nit")], chosen, rejected },
    ],
    [
      "LLaMA-Factory's alpaca",
      { instruction: "do", input: "", chosen: "c", rejected: "r" },
      { prompt: [user("do")], chosen, rejected },
    ],
    [
      "LLaMA-Factory's sharegpt",
      { conversations: [human("a"), gpt("b"), human("q")], chosen: gpt("c"), rejected: gpt("r") },
      { prompt: [user("a"), assistant("b"), user("q")], chosen, rejected },
    ],
    [
      "LLaMA-Factory's sharegpt",
      { conversations: [human("q")], system: "s", chosen: gpt("c"), rejected: assistant("r") },
      asked,
    ],
    [
      "Axolotl's chat_template",
      { messages: [system("s"), user("q")], chosen: assistant("c"), rejected: assistant("r") },
      asked,
    ],
    [
      "Axolotl's chatml.argilla",
      { system: "s", instruction: "q", chosen_response: "c", rejected_response: "r" },
      asked,
    ],
    ["Axolotl's chatml.intel", { system: "s", question: "q", chosen: "c", rejected: "r" }, asked],
    ["Axolotl's chatml.icr", { system: "s", input: "q", chosen: "c", rejected: "r" }, asked],
  ])("%s: %j", (name, value, expected) => {
    for (const kind of ["preference", "any"] as const) {
      const { row, format } = translated({ ...value, id: 7 }, kind);
      expect(format).toContain(name);
      expect(row.value).toEqual({ id: 7, ...expected });
      expect(preferenceRow(row, place.file)).toEqual({ ...place, ...expected });
    }
  });

  test("TRL's own, and OpenRLHF's and Axolotl's that are the same, stay as they are", () => {
    for (const value of [
      { prompt: "p", chosen: "c", rejected: "r", question: "other", messages: [] },
      { chosen: [user("q"), ...chosen], rejected: [user("q"), ...rejected] },
      { chosen: "Q: a A: yes", rejected: "Q: a A: no" },
      { prompt_ids: [1], chosen_ids: [2], rejected_ids: [3] },
      {
        prompt_ids: [1],
        chosen_ids: [2],
        rejected_ids: [3],
        instruction: "i",
        question: "q",
        chosen: "c",
        rejected: "r",
      },
      // Conversations of their own beside the columns of others, as UltraFeedback has them.
      { instruction: "i", chosen: [user("q"), ...chosen], rejected: [user("q"), ...rejected] },
      { question: "q", chosen: [user("q"), ...chosen], rejected: [user("q"), ...rejected] },
      { messages: [user("q"), ...chosen], chosen: [user("q"), ...chosen], rejected: [user("q"), ...rejected] },
      { conversations: [human("q")], chosen: "Q: a A: yes", rejected: "Q: a A: no" },
      {
        prompt: "q",
        system: "s",
        chosen: [system("s"), user("q"), ...chosen],
        rejected: [system("s"), user("q"), ...rejected],
      },
    ]) {
      for (const kind of ["preference", "any"] as const) {
        expect(translated(value, kind)).toEqual({ row: { row: 3, value }, format: null });
      }
    }
    const ids = { prompt: "p", text: "t", chosen_ids: [1], rejected_ids: [2] };
    expect(translated(ids, "any")).toEqual({ row: { row: 3, value: ids }, format: null });
  });
});

describe("completions of other tools", () => {
  const completion = [assistant("c")];
  test.each<[string, Record<string, unknown>, object]>([
    ["alpaca", { instruction: "do", input: "it", output: "c", text: "all" }, { prompt: [user("do\nit")], completion }],
    ["alpaca", { instruction: "do", system: "s", output: "c" }, { prompt: [system("s"), user("do")], completion }],
    [
      "messages",
      { messages: [user("a"), assistant("b"), user("q"), assistant("c")], prompt: "a", prompt_id: 1 },
      { prompt: [user("a"), assistant("b"), user("q")], completion },
    ],
    [
      "sharegpt",
      { conversations: [human("q"), gpt("c")], system: "s" },
      { prompt: [system("s"), user("q")], completion },
    ],
    [
      "sharegpt",
      { conversations: [{ from: "system", value: "s" }, human("q"), gpt("c")], system: "t" },
      { prompt: [system("s"), user("q")], completion },
    ],
    ["OpenRLHF's input and output", { input: "q", output: "c" }, { prompt: [user("q")], completion }],
    ["OpenRLHF's input and output", { input: [user("q")], output: completion }, { prompt: [user("q")], completion }],
    [
      "OpenRLHF's input and output",
      { input: "q", output: [assistant("a"), { role: "tool", content: "t" }, assistant("c")] },
      { prompt: [user("q")], completion: [assistant("a"), { role: "tool", content: "t" }, assistant("c")] },
    ],
    // A column that all rows have is null where one has nothing to put there.
    [
      "OpenRLHF's input and output",
      { input: "q", output: "c", instruction: null, messages: null },
      { prompt: [user("q")], completion },
    ],
    [
      "messages",
      { messages: [user("q"), { ...assistant("c"), reasoning_content: "r" }] },
      { prompt: [user("q")], completion: [{ ...assistant("c"), reasoning_content: "r" }] },
    ],
    ["OpenRLHF's input as messages", { input: [user("q"), assistant("c")] }, { prompt: [user("q")], completion }],
    ["question and answer", { question: "q", answer: "c" }, { prompt: [user("q")], completion }],
    [
      "input_output",
      {
        segments: [
          { label: false, text: "<s>q" },
          { label: false, text: " " },
          { label: true, text: "c" },
        ],
      },
      { prompt: "<s>q ", completion: "c" },
    ],
  ])("%s: %j", (name, value, expected) => {
    const { row, format } = translated(value, "completion");
    expect(format).toContain(name);
    expect(row.value).toMatchObject(expected);
    expect(completionRow(row, place.file)).toEqual({ ...place, ...expected });
    expect(translated(value, "any").row.value).toMatchObject(expected);
  });

  test("whole texts, where there is no other form", () => {
    expect(translated({ text: "a b" }, "completion").row.value).toEqual({ prompt: "", completion: "a b" });
  });

  test("tools and calls of them, as LLaMA-Factory writes them", () => {
    const value = {
      conversations: [
        human("Weather?"),
        { from: "function_call", value: '{"name": "weather", "arguments": {"city": "Oslo"}}' },
        { from: "observation", value: "rain" },
        gpt("It rains."),
      ],
      tools: "[]",
    };
    const call = { type: "function", function: { name: "weather", arguments: { city: "Oslo" } } };
    expect(translated(value, "completion").row.value).toEqual({
      prompt: [
        user("Weather?"),
        { role: "assistant", content: "", tool_calls: [call] },
        { role: "tool", content: "rain" },
      ],
      completion: [assistant("It rains.")],
      tools: "[]",
    });
    const several = [
      { name: "weather", arguments: { city: "Oslo" } },
      { name: "time", arguments: {} },
    ];
    const turns = [
      human("Weather?"),
      { from: "function_call", value: JSON.stringify(several) },
      { from: "tool", value: "rain" },
      { from: "assistant", value: "It rains." },
    ];
    const { prompt, completion: last } = translated({ conversations: turns }, "completion").row.value;
    expect((prompt as { tool_calls?: unknown[] }[])[1]?.tool_calls).toEqual(
      several.map((given) => ({ type: "function", function: given })),
    );
    expect([(prompt as unknown[])[2], last]).toEqual([{ role: "tool", content: "rain" }, [assistant("It rains.")]]);
  });
});

describe("prompts of other tools", () => {
  const turns = [user("a"), assistant("b"), user("q")];
  test.each<[string, Record<string, unknown>, object]>([
    ["alpaca", { instruction: "q", system: "s", output: "c" }, { prompt: [system("s"), user("q")] }],
    ["alpaca", { instruction: "q", history: [["a", "b"]] }, { prompt: turns }],
    ["messages", { messages: [...turns, assistant("c")] }, { prompt: turns }],
    ["messages", { messages: turns }, { prompt: turns }],
    ["sharegpt", { conversations: [human("q"), gpt("c")] }, { prompt: [user("q")] }],
    ["OpenRLHF's context_messages", { context_messages: [user("q")] }, { prompt: [user("q")] }],
    ["OpenRLHF's input", { input: "q" }, { prompt: [user("q")] }],
  ])("%s: %j", (name, value, expected) => {
    const { row, format } = translated(value, "prompt");
    expect(format).toContain(name);
    expect(promptRow(row, place.file)).toEqual({ ...place, ...expected });
  });

  test.each([
    ["AlpacaEval", { dataset: "d", instruction: "Name a river.", output: "The Elbe.", generator: "g" }],
    ["GSM8K", { question: "1 + 1?", answer: "#### 2" }],
    ["MT-Bench", { question_id: 81, category: "writing", turns: ["Write.", "Rewrite."] }],
    ["self-instruct", { id: "t0", instruction: "Shorten this.", instances: [{ input: "Long.", output: "L." }] }],
  ])("a row as %s has it stays as it is: plain text", async (_, value) => {
    const rows = await put("rows.jsonl", `${JSON.stringify(value)}\n`);
    expect(await readAllRows(rows, { as: "prompt" })).toEqual(await readAllRows(rows));
  });
});

describe("what cannot be told", () => {
  test.each<[RowKind, Record<string, unknown>, RegExp]>([
    [
      "completion",
      { instruction: "i", output: "o", messages: [user("q"), assistant("c")] },
      /in 2 ways: as alpaca .*, or as messages/,
    ],
    ["completion", { messages: [user("q"), assistant("c")], conversations: [human("q"), gpt("c")] }, /or as sharegpt/],
    [
      "preference",
      { instruction: "i", question: "q", chosen: "c", rejected: "r" },
      /alpaca preferences .*, or as Axolotl's chatml.intel/,
    ],
    ["prompt", { instruction: "i", question: "q" }, /as instruction, or as question$/],
    ["prompt", { messages: [user("q")], turns: ["q"] }, /as messages .*, or as turns$/],
  ])("%s row %j is refused with both readings", async (kind, value, what) => {
    const error = await fault(value, kind);
    expect(error.what).toMatch(what);
    expect(error.where).toEqual(place);
    expect(error.remedy).toContain("--columns");
  });

  test.each<[RowKind, Record<string, unknown>]>([
    ["preference", { prompt: "p", chosen: "c", rejected: "r" }],
    ["completion", { prompt: "p", completion: "c" }],
    ["prompt", { prompt: "p" }],
  ])("a system beside the prompt of a %s row is not dropped in silence", async (kind, value) => {
    const error = await fault({ ...value, system: "s" }, kind);
    expect(error.where).toEqual({ ...place, field: "system" });
    // Both remedies work.
    const [, leave = "", both = ""] = /--columns (system=), .* --columns (\S+)\.$/.exec(error.remedy) ?? [];
    const file = await put("rows.jsonl", JSON.stringify({ ...value, system: "s" }));
    const [left] = await readAllRows(file, { as: kind, columns: parseColumns(leave) });
    expect(left?.value).toEqual(value);
    const [read] = await readAllRows(file, { as: kind, columns: parseColumns(both) });
    expect(read?.value.prompt).toEqual([system("s"), user("p")]);
    expect(translated({ ...value, system: "" }, kind).format).toBeNull();
  });
});

test("a system beside conversations that lack it is not dropped either", async () => {
  const chosen = [user("q"), assistant("c")];
  const error = await fault({ system: "s", prompt: "q", chosen, rejected: chosen }, "preference");
  expect(error.where).toEqual({ ...place, field: "system" });
  expect(error.remedy).toBe("Leave it out by --columns system=, or make it the first turn of chosen and rejected.");
});

describe("malformed rows are named by the field of their own format", () => {
  test.each<[RowKind, Record<string, unknown>, string, RegExp]>([
    ["completion", { instruction: "", output: "c" }, "instruction", /is empty/],
    ["completion", { instruction: "i", output: ["c"] }, "output", /must be a string/],
    ["completion", { instruction: "i", output: "c", history: [["a"]] }, "history[0]", /pair of strings/],
    [
      "completion",
      { conversations: [human("q"), { from: "bot", value: "c" }] },
      "conversations[1].from",
      /is "bot"; known are human/,
    ],
    ["completion", { conversations: [human("q")] }, "conversations", /must end with a turn of the assistant/],
    ["completion", { messages: [assistant("c")] }, "messages", /that answers another/],
    ["completion", { segments: [{ label: true, text: "a" }] }, "segments", /untrained segments, then/],
    [
      "completion",
      { segments: [false, true, false].map((label) => ({ label, text: "a" })) },
      "segments",
      /untrained segments, then/,
    ],
    ["completion", { messages: [{ content: "q" }, assistant("c")] }, "messages[0].role", /must be a string/],
    ["completion", { messages: "q" }, "messages", /must be a list of/],
    [
      "completion",
      { conversations: [human("q"), { from: "function_call", value: "{" }] },
      "conversations[1].value",
      /JSON text/,
    ],
    [
      "completion",
      {
        segments: [
          { label: true, text: "a" },
          { label: false, text: "b" },
        ],
      },
      "segments",
      /untrained segments, then/,
    ],
    [
      "preference",
      { conversations: [human("q")], chosen: gpt("c"), rejected: { from: "gpt" } },
      "rejected.value",
      /must be a string/,
    ],
    ["preference", { question: "q", chosen: "c", rejected: "" }, "rejected", /is empty/],
    ["prompt", { messages: [assistant("c")] }, "messages", /no turn but the assistant's/],
  ])("%s row %j: %s", async (kind, value, field, what) => {
    const error = await fault(value, kind);
    expect(error.where).toEqual({ ...place, field });
    expect(error.what).toMatch(what);
  });
});

describe("columns", () => {
  test("are read under the names of the fields", async () => {
    const file = await put("rows.csv", "q,a,system,note\nWhat?,That.,orca,n\n");
    const notes: string[] = [];
    const columns = parseColumns("prompt=q, completion=a,system=");
    const rows = await readAllRows(file, { as: "completion", columns, note: (text) => notes.push(text) });
    expect(rows[0]?.value).toEqual({ prompt: "What?", completion: "That.", note: "n" });
    expect(notes).toEqual([]);
  });

  test("can change places", async () => {
    const file = await put("rows.jsonl", '{"chosen": "r", "rejected": "c"}');
    const rows = await readAllRows(file, { columns: parseColumns("chosen=rejected,rejected=chosen") });
    expect(rows[0]?.value).toEqual({ chosen: "c", rejected: "r" });
  });

  test("that a row lacks are named", async () => {
    const file = await put("rows.jsonl", '{"q": "a"}\n{"p": "b"}\n');
    const error = await failure(() => readAllRows(file, { columns: { prompt: "q" } }));
    expect(error.what).toBe("The row has no column q; it has p");
    expect(error.where).toEqual({ file, row: 2, field: "q" });
  });

  test.each(["prompt", "=q", "prompt=q,prompt=r", ""])("%j is refused", async (text) => {
    expect((await failure(() => parseColumns(text))).where).toEqual({ field: "--columns" });
  });
});

test("a format is told once for a dataset", async () => {
  const row = JSON.stringify({ instruction: "i", output: "o" });
  const file = await put(
    "rows.jsonl",
    `${row}\n${row}\n${JSON.stringify({ messages: [user("q"), assistant("c")] })}\n`,
  );
  const notes: string[] = [];
  await readAllRows(file, { as: "completion", note: (text) => notes.push(text) });
  expect(notes).toEqual([
    expect.stringMatching(/rows\.jsonl is read as alpaca \(/),
    expect.stringMatching(/rows\.jsonl is read as messages of OpenAI's form \(the last turn is trained/),
  ]);
});
