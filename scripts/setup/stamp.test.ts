import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { contentHash, filesUnder, readStamp, writeStamp } from "./stamp.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tempora-stamp-"));
  mkdirSync(join(folder, "src/inner"), { recursive: true });
  writeFileSync(join(folder, "src/a.cpp"), "a");
  writeFileSync(join(folder, "src/inner/b.cpp"), "b");
});
afterEach(() => rmSync(folder, { recursive: true }));

const hash = (...facts: string[]) => contentHash(folder, filesUnder(join(folder, "src"), join(folder, "none")), facts);

test("the hash changes with a file's content, name and presence, and with a fact", () => {
  const before = hash();
  expect(hash()).toBe(before);
  expect(hash("clang")).not.toBe(before);
  writeFileSync(join(folder, "src/a.cpp"), "A");
  const changed = hash();
  expect(changed).not.toBe(before);
  writeFileSync(join(folder, "src/a.cpp"), "a");
  expect(hash()).toBe(before);
  renameSync(join(folder, "src/a.cpp"), join(folder, "src/c.cpp"));
  expect(hash()).not.toBe(before);
});

test("content that moves from one file into the next is another content", () => {
  writeFileSync(join(folder, "src/a.cpp"), "ab");
  writeFileSync(join(folder, "src/inner/b.cpp"), "");
  const left = hash();
  writeFileSync(join(folder, "src/a.cpp"), "a");
  writeFileSync(join(folder, "src/inner/b.cpp"), "b");
  expect(hash()).not.toBe(left);
});

test("a stamp is read back, and is null before it was written", () => {
  const file = join(folder, "new/stamp");
  expect(readStamp(file)).toBeNull();
  writeStamp(file, "abc");
  expect(readStamp(file)).toBe("abc");
});
