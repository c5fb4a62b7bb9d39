import { describe, expect, it } from "vitest";
import { compare } from "./comparison.ts";
import { grade, total } from "./grade.ts";
import { spoil } from "./mistakes.ts";
import { Random } from "./random.ts";
import { makeTask, type Task } from "./tasks.ts";
import { kinds } from "./vocabulary.ts";

const words = (text: string) => text.split(" ").filter((word) => word !== "");

/** The first, second or third of each three tokens. */
const column = (compared: readonly string[], at: number) => compared.filter((_, k) => k % 3 === at);

describe("a comparison", () => {
  const task: Task = { ...makeTask("repeat", new Random(1, "test")), answer: words("dog sun tree") };

  it("sets the right token, the given one and whether they agree beside each other", () => {
    expect(compare(task, words("dog cat tree")).join(" ")).toBe("dog dog yes sun cat no tree tree yes");
    expect(compare(task, words("dog")).join(" ")).toBe("dog dog yes sun - no tree - no");
    expect(compare(task, words("dog sun tree cat")).join(" ")).toBe("dog dog yes sun sun yes tree tree yes - cat no");
  });

  it("agrees everywhere exactly where all points are met", () => {
    const random = new Random(2, "test");
    for (let round = 0; round < 400; round++) {
      const made = makeTask(random.pick(kinds), random);
      const answer = random.chance(0.3) ? made.answer : spoil(made.answer, made, random, 0.3);
      const agrees = column(compare(made, answer), 2).every((mark) => mark === "yes");
      expect(agrees).toBe(total(grade(made, answer)) === 5);
    }
  });

  it("corrects a sentence to a right one that keeps what can stay", () => {
    const sentence: Task = { ...makeTask("sentence", new Random(3, "test")), open: ["red", "dog", "sun"] };
    const corrected = (text: string) => column(compare(sentence, words(text)), 0).join(" ");
    expect(corrected("the sun hears the red dog .")).toBe("the sun hears the red dog .");
    expect(corrected("the red sun wants the dog .")).toBe("the red sun wants the dog .");
    expect(corrected("the sun hears the dog")).toBe("the sun hears the red dog .");
    expect(corrected("")).toBe("the dog finds the red sun .");
  });
});
