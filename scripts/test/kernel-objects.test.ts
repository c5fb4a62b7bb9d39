import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "../setup/command.ts";

const objects = join(root, "native/build/CMakeFiles");

const hint = "start the tests by `bun run test`, which builds the engine first";

function kernelVariants(): string[] {
  expect(existsSync(objects), hint).toBe(true);
  return readdirSync(objects).flatMap((name) => /^kernels_(\w+)\.dir$/.exec(name)?.[1] ?? []);
}

function definedSymbols(variant: string): string[] {
  const folder = join(objects, `kernels_${variant}.dir`);
  const files = [...new Bun.Glob("**/*.o").scanSync(folder)].map((file) => join(folder, file));
  expect(files.length, hint).toBeGreaterThan(0);
  const nm = Bun.spawnSync(["nm", "-C", "-g", "--defined-only", ...files]);
  expect(nm.exitCode, nm.stderr.toString()).toBe(0);
  // "0000000000000000 T name": the file headings between them have no address.
  return nm.stdout
    .toString()
    .split("\n")
    .flatMap((line) => /^[0-9a-f]{8,} \w (.*)$/.exec(line)?.[1] ?? []);
}

// An inline function outside that namespace would be defined by several variants; the linker keeps one of them for
// all callers, and if it is the AVX-512 one, a CPU without AVX-512 stops at an illegal instruction.
test("kernels define nothing outside the namespace of their instruction set", () => {
  const variants = kernelVariants();
  expect(variants).toContain("baseline");
  for (const variant of variants) {
    const symbols = definedSymbols(variant);
    expect(symbols.length).toBeGreaterThan(0);
    expect(symbols.filter((name) => !name.includes(`tempora::${variant}::`))).toEqual([]);
  }
});
