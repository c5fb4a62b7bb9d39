import { homedir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { realModelFile } from "./real-model.ts";

test("the real model lies in the user's cache, or where a variable says", () => {
  const name = "tempora/SmolLM2-135M-Instruct.Q4_1.gguf";
  expect(realModelFile({})).toBe(join(homedir(), ".cache", name));
  expect(realModelFile({ XDG_CACHE_HOME: "/cache", TEMPORA_REAL_MODEL: "" })).toBe(join("/cache", name));
  expect(realModelFile({ XDG_CACHE_HOME: "/cache", TEMPORA_REAL_MODEL: "/models/x.gguf" })).toBe("/models/x.gguf");
});
