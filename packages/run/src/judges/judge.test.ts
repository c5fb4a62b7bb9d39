import { expect, it } from "vitest";
import { functionJudge } from "./function.ts";
import { hashResponses, type Response } from "./judge.ts";

const response: Response = { promptId: "1", prompt: "Why?", promptText: "Why?", text: "So.", columns: { solution: 4 } };
const program = functionJudge({ name: "a", version: "1", weight: 1, range: [0, 1], score: () => [] });
const reader = { ...program, readsColumns: false };

it("judgements are others for another prompt, answer or variable, and for other columns where the judge reads them", () => {
  const changed: Partial<Response>[] = [{ promptText: "How?" }, { text: "Thus." }, { variables: { thinks: true } }];
  for (const judge of [program, reader]) {
    const hashes = [{}, ...changed].map((over) => hashResponses(judge, [{ ...response, ...over }]));
    expect(new Set(hashes).size).toBe(4);
  }
  const others: Partial<Response>[] = [{ columns: { solution: 5 } }, { prompt: [{ role: "user", content: "Why?" }] }];
  for (const over of others) {
    const [one, other] = [[response], [{ ...response, ...over }]];
    expect(hashResponses(program, one)).not.toBe(hashResponses(program, other));
    expect(hashResponses(reader, one)).toBe(hashResponses(reader, other));
  }
});

it("a function is another judge by its version, its name and its range", () => {
  const identity = (over: object) =>
    JSON.stringify(
      functionJudge({ name: "a", version: "1", weight: 1, range: [0, 1], score: () => [], ...over }).identity,
    );
  const all = [{}, { version: "2" }, { name: "b" }, { range: [0, 2] }].map(identity);
  expect(new Set(all).size).toBe(4);
});
