import { join } from "node:path";
import { expect, test } from "vitest";

/** Runs a script of this folder, which must refuse its arguments before it begins; returns what it says. */
function refusal(script: string, ...args: string[]): string {
  // Names a compiler that is not there, so that none of this machine's is found.
  const env = { ...process.env, CUDACXX: "/nowhere/bin/nvcc" };
  const command = [process.execPath, join(import.meta.dirname, script), ...args];
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { env });
  expect([exitCode, stdout.toString()], stderr.toString()).toEqual([1, ""]);
  return stderr.toString();
}

test("fuzzing refuses counts below one and what is no number", () => {
  for (const count of ["0", "-5", "1.5", "many", ""]) {
    expect(refusal("fuzz.ts", "--only", "json", `--inputs=${count}`)).toContain(`--inputs is "${count}"`);
  }
  expect(refusal("fuzz.ts", "--jobs", "0")).toContain('--jobs is "0"');
  expect(refusal("fuzz.ts", "--minutes", "0")).toContain('--minutes is "0"');
});

test("fuzzing and torture refuse names that match nothing, and list those that there are", () => {
  expect(refusal("fuzz.ts", "--inputs", "1", "--only", "gguf,gguff")).toMatch(/--only names "gguff"; there are .*gguf/);
  expect(refusal("fuzz.ts", "--inputs", "1", "--only", "")).toContain('--only names ""');
  expect(refusal("torture.ts", "--only", "kill,kil")).toMatch(/--only names "kil"; there are kill, /);
});

test("packing and the sanitizers refuse what they do not know, and packing a toolkit that is not there", () => {
  expect(refusal("pack.ts", "--cudaa")).toContain("--cudaa");
  expect(refusal("sanitize.ts", "--thread")).toContain("--thread");
  expect(refusal("pack.ts", "--cuda")).toContain("/nowhere/bin/nvcc has no libcudart_static.a beside it");
});
