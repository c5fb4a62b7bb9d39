import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { fileError, isThere, systemErrorCode, TemporaError } from "./index.ts";

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: failed`), { code, errno: -1 });
}

test.each([
  ["EACCES", "permission denied", "choose another place"],
  ["EROFS", "the file system is read-only", "Choose a place"],
  ["ENOSPC", "no space left", "Free some space"],
  ["EISDIR", "it is a folder", "Name a file"],
])("%s is worded with its reason and a remedy", (code, reason, remedy) => {
  const error = fileError(systemError(code), "Cannot write the run", "/runs/one");
  expect(error.message).toContain(`Cannot write the run: ${reason} (/runs/one). `);
  expect(error.remedy).toContain(remedy);
});

test("a real failure keeps its cause", async () => {
  const cause = await readFile("/nowhere/at/all").catch((error: unknown) => error);
  expect(systemErrorCode(cause)).toBe("ENOENT");
  expect(fileError(cause, "Cannot read it", "/nowhere/at/all").cause).toBe(cause);
});

test("what cannot be looked at is not taken for missing", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tempora-there-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const circle = join(folder, "circle");
  await symlink(circle, circle);
  expect(isThere(folder, "Cannot read it")).toBe(true);
  for (const missing of ["a", "a".repeat(300)]) expect(isThere(join(folder, missing), "Cannot read it")).toBe(false);
  // As a folder that may not be entered, which the user of these tests may.
  for (const hidden of [circle, join(circle, "a")]) {
    expect(() => isThere(hidden, "Cannot read it")).toThrow(/^Cannot read it: its links lead in a circle \(/);
  }
});

test("an unknown failure keeps its own words, a TemporaError passes through", () => {
  expect(fileError(systemError("EIO"), "Cannot read it", "a").what).toBe("Cannot read it: EIO: failed");
  const known = new TemporaError("Known", { remedy: "None." });
  expect(fileError(known, "Cannot read it", "a")).toBe(known);
});

test("an abort is no system error", () => {
  expect(systemErrorCode(new DOMException("stop", "AbortError"))).toBeUndefined();
  expect(systemErrorCode(Object.assign(new Error("stop"), { code: "ABORT_ERR" }))).toBeUndefined();
});
