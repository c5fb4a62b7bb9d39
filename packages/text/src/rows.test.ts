import { failure, oracle } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { readAllRows } from "./datasets.ts";
import { extractPrompt } from "./extract-prompt.ts";
import { completionRow, preferenceRow, promptRow } from "./rows.ts";

const file = "rows.jsonl";
const place = { file, row: 3 };
const source = (value: Record<string, unknown>) => ({ row: 3, value });
const preference = (value: Record<string, unknown>) => preferenceRow(source(value), file);
const completion = (value: Record<string, unknown>) => completionRow(source(value), file);
const prompt = (value: Record<string, unknown>) => promptRow(source(value), file);
const refusal = (work: () => unknown) => failure(work);

const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

describe("preference rows", () => {
  test("strings, conversations and ids", () => {
    const strings = { prompt: "p", chosen: "c", rejected: "r" };
    expect(preference(strings)).toEqual({ ...place, ...strings });
    const turns = { prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("r")] };
    expect(preference({ ...turns, score: 3 })).toEqual({ ...place, ...turns });
    expect(preference({ prompt_ids: [1], chosen_ids: [2], rejected_ids: [3, 0] })).toEqual({
      ...place,
      promptIds: [1],
      chosenIds: [2],
      rejectedIds: [3, 0],
    });
    // As the loop writes them: the text beside the ids is for people.
    expect(preference({ ...strings, prompt_ids: [1], chosen_ids: [2], rejected_ids: [3] })).toEqual({
      ...place,
      promptIds: [1],
      chosenIds: [2],
      rejectedIds: [3],
    });
  });

  test("the oracles' files are accepted", async () => {
    for (const name of ["preference.jsonl", "preference_plain.jsonl"]) {
      const rows = await readAllRows(oracle(name));
      expect(rows.map((row) => preferenceRow(row, name))).toHaveLength(24);
    }
  });

  test("further fields of messages, tools and template settings are kept", () => {
    const turn = { ...user("p"), name: "Ada" };
    const tools = [{ type: "function" }];
    const rest = { chosen: [assistant("c")], rejected: [assistant("r")] };
    const row = preference({
      prompt: [turn],
      ...rest,
      tools: JSON.stringify(tools),
      chat_template_kwargs: { think: false },
    });
    expect(row).toEqual({ ...place, prompt: [turn], ...rest, variables: { tools, think: false } });
  });

  test("a prompt that its conversations imply, or repeat, is split off", () => {
    const [shared, chosen, rejected] = [[user("p")], [assistant("c")], [assistant("r")]];
    const implied = { chosen: [...shared, ...chosen], rejected: [...shared, ...rejected] };
    expect(preference(implied)).toEqual({ ...place, prompt: shared, chosen, rejected });
    expect(preference({ ...implied, prompt: null })).toEqual({ ...place, prompt: shared, chosen, rejected });
    expect(preference({ ...implied, prompt: "p" })).toEqual({ ...place, prompt: shared, chosen, rejected });
    const strings = preference({ chosen: "Q: a A: yes", rejected: "Q: a A: no" });
    expect(strings).toEqual({ ...place, prompt: "Q: a A:", chosen: " yes", rejected: " no" });
  });

  test("a missing field is named, with those that are there", async () => {
    expect((await refusal(() => preference({ prompt: "p", chosen: "c", score: 1 }))).message).toBe(
      "The row has no field rejected; it has prompt, chosen, score (rows.jsonl, row 3, field rejected). " +
        "Add the field rejected to every row, or say which column has it by --columns rejected=COLUMN.",
    );
    expect((await refusal(() => preference({}))).what).toBe("The row has no field chosen; it has none");
    expect((await refusal(() => preference({ chosen: "a", rejected: "b" }))).message).toBe(
      "The row has no field prompt, and chosen and rejected share no beginning; it has chosen, rejected " +
        "(rows.jsonl, row 3, field prompt). Add the prompt as a field of its own.",
    );
  });

  test("an empty completion is named", async () => {
    expect((await refusal(() => preference({ prompt: "p", chosen: "", rejected: "r" }))).message).toBe(
      "chosen is empty (rows.jsonl, row 3, field chosen). Leave the row out, or give it the answer that is missing.",
    );
    const turns = { prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("")] };
    expect((await refusal(() => preference(turns))).what).toBe("rejected is empty");
    expect((await refusal(() => preference({ ...turns, rejected: [] }))).what).toBe("rejected: has no messages");
    const ids = { prompt_ids: [1], chosen_ids: [], rejected_ids: [1] };
    expect((await refusal(() => preference(ids))).what).toBe("chosen_ids is empty");
  });

  test("an answer that only calls tools is one; one whose list of calls is empty is none", async () => {
    const calling = (content: string | null, calls: unknown[]) => [{ role: "assistant", content, tool_calls: calls }];
    const call = { type: "function", function: { name: "f", arguments: {} } };
    for (const content of ["", null]) {
      const answer = calling(content, [call]);
      const rejected = [assistant("r")];
      const row = { prompt: [user("p")], chosen: answer, rejected };
      expect(preference(row)).toEqual({ ...place, ...row });
      expect(preference({ ...row, chosen: rejected, rejected: answer })).toMatchObject({ rejected: answer });
      expect(completion({ prompt: [user("p")], completion: answer })).toMatchObject({ completion: answer });
      const none = await refusal(() => completion({ prompt: [user("p")], completion: calling(content, []) }));
      expect(none.what).toBe("completion is empty");
    }
  });

  test("what is missing is said to be", async () => {
    const { what, where } = await refusal(() => preference({ prompt: [{ role: "user" }], chosen: "a", rejected: "b" }));
    expect([what, where.field]).toEqual(["prompt[0].content: is missing", "prompt[0].content"]);
  });

  test("mixed forms are named", async () => {
    const remedy = "Write all fields of a row as strings, or all as lists of {role, content}.";
    const one = await refusal(() => preference({ prompt: "p", chosen: "c", rejected: [assistant("r")] }));
    expect(one.message).toBe(
      `rejected is a conversation, but chosen is a string (rows.jsonl, row 3, field rejected). ${remedy}`,
    );
    const two = await refusal(() => preference({ prompt: [user("p")], chosen: "c", rejected: "r" }));
    expect(two.what).toBe("chosen is a string, but prompt is a conversation");
    const apart = { prompt: "p", chosen: [assistant("c")], rejected: [assistant("r")] };
    expect((await refusal(() => preference(apart))).what).toBe("chosen is a conversation, but prompt is a string");
  });

  test("content parts are joined, and calls of tools need no content", () => {
    const parts = [
      { type: "text", text: "a " },
      { type: "text", text: "b" },
    ];
    const call = { role: "assistant", content: null, tool_calls: [{ function: { name: "f" } }] };
    const { prompt } = promptRow(
      { row: 3, value: { prompt: [{ role: "user", content: parts, name: "x" }, call] } },
      "rows.jsonl",
    ) as { prompt: unknown };
    expect(prompt).toEqual([{ role: "user", content: "a b", name: "x" }, call]);
  });

  test("tools and chat_template_kwargs go with a prompt from the fields of a collection too", () => {
    const value = { question: "q?", tools: '[{"name": "f"}]', chat_template_kwargs: { enable_thinking: false } };
    expect(promptRow({ row: 3, value }, "rows.jsonl")).toEqual({
      ...place,
      prompt: "q?",
      variables: { tools: [{ name: "f" }], enable_thinking: false },
    });
  });

  test("what generate wrote is known by its completions, with the way to pairs", async () => {
    const { what, remedy } = await refusal(() => preference({ prompt: "p", completions: [{ text: "a" }] }));
    expect(what).toBe("The row has no field chosen; it has prompt, completions");
    expect(remedy).toMatch(/`tempora judge`.*`tempora pairs`/);
  });

  const broken: [Record<string, unknown>, string, RegExp][] = [
    [{ chosen: 3 }, "chosen", /^chosen: must be a string or a list of \{role, content\}$/],
    [{ chosen: ["text"] }, "chosen[0]", /^chosen\[0\]: .*expected object/],
    [{ chosen: [{ content: "c" }] }, "chosen[0].role", /^chosen\[0\].role: .*expected string/],
    [{ chosen: [{ role: "", content: "c" }] }, "chosen[0].role", /must not be empty/],
    [
      { chosen: [user("a"), { role: "assistant", content: [{ type: "text" }] }] },
      "chosen[1].content[0].text",
      /must be a string/,
    ],
    [
      { chosen: [{ role: "user", content: [{ type: "image_url" }] }] },
      "chosen[0].content[0].type",
      /only parts of type "text" are read, not "image_url"/,
    ],
    [
      { chosen: [{ role: "user", content: null }] },
      "chosen[0].content",
      /must be a string or a list of \{type, text\}/,
    ],
    [{ chosen: "half \ud83d" }, "chosen", /^chosen: holds half of a surrogate pair/],
    [{ chosen: [assistant("half \udc00")] }, "chosen[0].content", /holds half of a surrogate pair/],
    [
      { chosen: [{ role: "assistant", content: [{ type: "text", text: "half \ud83d" }] }] },
      "chosen[0].content[0].text",
      /holds half of a surrogate pair/,
    ],
  ];
  test.each(broken)("a malformed field is named: %j", async (change, field, message) => {
    const error = await refusal(() => preference({ prompt: "p", rejected: "r", ...change }));
    expect(error.where).toEqual({ ...place, field });
    expect(error.what).toMatch(message);
  });

  test.each([
    [[1.5], "chosen_ids[0]"],
    [[1, -2], "chosen_ids[1]"],
    [["1"], "chosen_ids[0]"],
    ["1 2", "chosen_ids"],
  ])("ids that are none are named: %j", async (ids, field) => {
    const error = await refusal(() => preference({ prompt_ids: [1], chosen_ids: ids, rejected_ids: [1] }));
    expect(error.where).toEqual({ ...place, field });
  });

  test("tools and template settings that make no sense are named", async () => {
    const row = { prompt: [user("p")], chosen: [assistant("c")], rejected: [assistant("r")] };
    expect((await refusal(() => preference({ ...row, tools: "{" }))).where.field).toBe("tools");
    const error = await refusal(() => preference({ ...row, chat_template_kwargs: 1 }));
    expect(error.where.field).toBe("chat_template_kwargs");
  });
});

describe("completion rows", () => {
  test("strings, conversations and ids", () => {
    expect(completion({ prompt: "p", completion: "c" })).toEqual({ ...place, prompt: "p", completion: "c" });
    const turns = { prompt: [user("p")], completion: [assistant("c")] };
    expect(completion(turns)).toEqual({ ...place, ...turns });
    expect(completion({ prompt_ids: [1], completion_ids: [2] })).toEqual({
      ...place,
      promptIds: [1],
      completionIds: [2],
    });
  });

  test("say whose text the pieces of the prompt's last turn are", async () => {
    const parts = [
      { text: "Grade: ", untrusted: false },
      { text: "a", untrusted: true },
    ];
    const turns = { prompt: [user("Grade: a")], completion: [assistant("c")] };
    const promptParts = ["Grade: ", { untrusted: "a" }];
    expect(completion({ ...turns, prompt_parts: parts })).toEqual({ ...place, ...turns, promptParts });
    const other = await refusal(() => completion({ ...turns, prompt: [user("Grade: b")], prompt_parts: parts }));
    expect(other.where.field).toBe("prompt_parts");
    expect((await refusal(() => completion({ ...turns, prompt_parts: ["Grade: a"] }))).where.field).toBe(
      "prompt_parts[0]",
    );
    // The parts are those of a user's turn: what another says is nobody's quotation.
    const spoken = { ...turns, prompt: [user("q"), assistant("Grade: a")], prompt_parts: parts };
    expect((await refusal(() => completion(spoken))).what).toMatch(/not those of the prompt's last turn, the user's/);
  });

  test("faults are named", async () => {
    const missing = await refusal(() => completion({ prompt: "p", chosen: "c" }));
    expect(missing.what).toBe("The row has no field completion; it has prompt, chosen");
    expect((await refusal(() => completion({ prompt: "p", completion: "" }))).what).toBe("completion is empty");
    const mixed = await refusal(() => completion({ prompt: "p", completion: [assistant("c")] }));
    expect(mixed.what).toBe("completion is a conversation, but prompt is a string");
  });
});

describe("prompt rows", () => {
  test("strings, conversations and ids; an empty string is left to the tokenizer", () => {
    expect(prompt({ prompt: "" })).toEqual({ ...place, prompt: "" });
    expect(prompt({ prompt: [user("p")], id: 7 })).toEqual({ ...place, prompt: [user("p")] });
    expect(prompt({ prompt_ids: [1, 2] })).toEqual({ ...place, promptIds: [1, 2] });
  });

  test("the fields of well-known collections", () => {
    expect(prompt({ question: "q", answer: "a" })).toEqual({ ...place, prompt: "q" });
    expect(prompt({ turns: ["first", "second"] })).toEqual({ ...place, prompt: "first" });
    expect(prompt({ instruction: "do", input: "it" })).toEqual({ ...place, prompt: "do\nit" });
    expect(prompt({ instruction: "do", instances: [{ input: "", output: "x" }] })).toEqual({ ...place, prompt: "do" });
  });

  test.each([
    [
      "AlpacaEval",
      { dataset: "d", instruction: "Name a river.", output: "The Elbe.", generator: "g" },
      "Name a river.",
    ],
    ["GSM8K", { question: "1 + 1?", answer: "1 + 1 = <<1+1=2>>2\n#### 2" }, "1 + 1?"],
    ["HumanEval", { task_id: "H/0", prompt: "def f():\n", entry_point: "f", test: "assert f()" }, "def f():\n"],
    ["MT-Bench", { question_id: 81, category: "writing", turns: ["Write.", "Rewrite."] }, "Write."],
    [
      "self-instruct",
      { id: "t0", motivation_app: "A", instruction: "Shorten this.", instances: [{ input: "Long.", output: "L." }] },
      "Shorten this.\nLong.",
    ],
  ])("a row as %s has it", (_, row, expected) => {
    expect(prompt(row)).toEqual({ ...place, prompt: expected });
  });

  test("a row without any is named", async () => {
    expect((await refusal(() => prompt({ text: "t" }))).message).toBe(
      "The row has no field prompt; it has text (rows.jsonl, row 3, field prompt). " +
        "Give rows with the field prompt, or say which column has it by --columns prompt=COLUMN.",
    );
    expect((await refusal(() => prompt({ turns: [] }))).what).toBe("turns: is empty");
    expect((await refusal(() => prompt({ instruction: "" }))).where.field).toBe("instruction");
  });
});

describe("extractPrompt counts as TRL does", () => {
  test("by code points, giving the space to the completions", () => {
    expect(extractPrompt("é👩 a", "é👩 b")).toEqual({ prompt: "é👩", chosen: " a", rejected: " b" });
    expect(extractPrompt("👩a", "👨a")).toEqual({ prompt: "", chosen: "👩a", rejected: "👨a" });
  });

  test("one that begins the other keeps its last turn or character", () => {
    expect(extractPrompt("ab", "abc")).toEqual({ prompt: "a", chosen: "b", rejected: "bc" });
    // Nothing differs before the end of the shorter one: no space is given back.
    expect(extractPrompt("a b", "a bc")).toEqual({ prompt: "a ", chosen: "b", rejected: "bc" });
    const turns = [user("p"), assistant("c")];
    expect(extractPrompt(turns, turns)).toEqual({ prompt: [turns[0]], chosen: [turns[1]], rejected: [turns[1]] });
  });

  test("the order of a message's fields does not matter", () => {
    const other = { content: "p", role: "user" };
    expect(extractPrompt([user("p"), assistant("c")], [other, assistant("r")]).prompt).toEqual([user("p")]);
  });
});
