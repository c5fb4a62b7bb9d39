import { describe, expect, it } from "vitest";
import { grade, judgement, total } from "./grade.ts";
import { Random } from "./random.ts";
import { isSentence, makeTask, type Task } from "./tasks.ts";
import { kinds } from "./vocabulary.ts";

const sort: Task = {
  kind: "sort",
  input: ["d", "a", "f", "c"],
  answer: ["a", "c", "d", "f"],
  allowed: new Set("abcdefghijklmnopqrstuvwxyz"),
  open: null,
};

describe("the rubric of a listed answer", () => {
  it.each([
    ["a c d f", 5],
    ["a d c f", 4],
    ["a c d e", 3],
    ["a c d", 2],
    ["a c d f f", 2],
    ["a a a a", 2],
    ["x y z q", 2],
    ["a x y", 1],
    ["a c d 7", 2],
    ["sun dog", 0],
    ["", 0],
  ])("gives %j %d points", (answer, score) => {
    const tokens = answer.split(" ").filter((token) => token !== "");
    expect(total(grade(sort, tokens))).toBe(score);
  });

  it("counts a repeated token only as often as it is asked for", () => {
    expect(grade(sort, ["a", "a", "a", "a"]).half).toBe(false);
  });

  it("is written out as a comparison, the points, and then their sum", () => {
    expect(judgement(sort, ["a", "c", "d", "e"])).toBe(
      "a a yes c c yes d d yes f e no kind=1 half=1 length=1 items=0 order=0 Score: 3",
    );
  });
});

describe("the rubric of a sentence", () => {
  const task: Task = {
    kind: "sentence",
    input: ["red", "dog", "sun"],
    answer: [],
    allowed: new Set(["the", "red", "dog", "sun", "cat", "sees", "likes", "big", "."]),
    open: ["red", "dog", "sun"],
  };

  it.each([
    ["the red dog sees the sun .", 5],
    ["the sun likes the red dog .", 5],
    ["the dog likes the red sun .", 5],
    ["the dog red likes the sun .", 4],
    ["the red dog sees the cat .", 3],
    ["the red dog sees the sun", 3],
    ["the red dog sees sun .", 3],
    ["the cat sees the cat .", 1],
    ["the red dog sees a 7 .", 2],
    ["c a t", 0],
  ])("gives %j %d points", (answer, score) => {
    expect(total(grade(task, answer.split(" ")))).toBe(score);
  });
});

describe("every kind of task", () => {
  it.each(kinds)("%s: its own answer scores 5, with two answer tokens at least and twelve at most", (kind) => {
    const random = new Random(7, kind);
    for (let i = 0; i < 200; i++) {
      const task = makeTask(kind, random);
      expect(total(grade(task, task.answer))).toBe(5);
      expect(task.answer.length).toBeGreaterThanOrEqual(2);
      expect(task.answer.length).toBeLessThanOrEqual(12);
      expect(task.input.length).toBeLessThanOrEqual(12);
    }
  });

  it("says what its instruction says", () => {
    const random = new Random(9);
    for (let i = 0; i < 200; i++) {
      const count = makeTask("count", random);
      for (let j = 0; j < count.answer.length; j += 2) {
        const times = count.input.filter((word) => word === count.answer[j]).length;
        expect(count.answer[j + 1]).toBe(String(times));
      }
      expect(makeTask("spell", random)).toSatisfy((task: Task) => task.answer.join("") === task.input.join(""));
      const last = makeTask("last", random);
      expect(last.answer).toEqual(last.input.slice(-Number(last.input[0])));
      expect(isSentence(makeTask("sentence", random).answer)).toBe(true);
    }
  });
});
