import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { fileError, systemErrorCode, TemporaError } from "./index.ts";

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

test("an unknown failure keeps its own words, a TemporaError passes through", () => {
  expect(fileError(systemError("EIO"), "Cannot read it", "a").what).toBe("Cannot read it: EIO: failed");
  const known = new TemporaError("Known", { remedy: "None." });
  expect(fileError(known, "Cannot read it", "a")).toBe(known);
});

test("an abort is no system error", () => {
  expect(systemErrorCode(new DOMException("stop", "AbortError"))).toBeUndefined();
  expect(systemErrorCode(Object.assign(new Error("stop"), { code: "ABORT_ERR" }))).toBeUndefined();
});
