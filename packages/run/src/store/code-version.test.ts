import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { codeVersion } from "./code-version.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "tempora-code-"));
  await write("native/src/engine.cpp", "int x;");
  await write("bun.lock", lock("4.6.7", "1.0.0"));
  await write(
    "packages/run/package.json",
    JSON.stringify({ name: "@tempora/run", dependencies: { "@tempora/low": "workspace:*", zod: "4.6.7" } }),
  );
  await write("packages/run/src/loop.ts", "1");
  await write("packages/low/package.json", JSON.stringify({ name: "@tempora/low" }));
  await write("packages/low/src/low.ts", "1");
  await write("packages/page/package.json", JSON.stringify({ name: "@tempora/page" }));
  await write("packages/page/src/page.ts", "1");
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** As Bun writes it: with commas behind last elements. */
const lock = (zod: string, other: string) => `{
  "lockfileVersion": 1,
  "packages": {
    "zod": ["zod@${zod}", "", { "dependencies": { "inner": "^2" } }, "sha512-x"],
    "inner": ["inner@2.0.0", "", {}, "sha512-y"],
    "other": ["other@${other}", "", {}, "sha512-z"],
  },
}
`;

async function write(file: string, text: string): Promise<void> {
  await mkdir(join(root, file, ".."), { recursive: true });
  await writeFile(join(root, file), text);
}

describe("codeVersion", () => {
  it("changes with the sources of the addon, of the run, and of each package below it, and with no others", async () => {
    const before = await codeVersion(root);
    await write("packages/page/src/page.ts", "2");
    await write("packages/low/src/low.test.ts", "2");
    expect(await codeVersion(root)).toBe(before);
    for (const file of ["native/src/engine.cpp", "packages/run/src/loop.ts", "packages/low/src/low.ts"]) {
      const last = await codeVersion(root);
      await write(file, "2");
      expect(await codeVersion(root)).not.toBe(last);
    }
  });

  it("changes with what the lockfile gives these packages, and with nothing else in it", async () => {
    const before = await codeVersion(root);
    await write("bun.lock", lock("4.6.7", "1.0.1"));
    expect(await codeVersion(root)).toBe(before);
    await write("bun.lock", lock("4.6.7", "1.0.1").replace("inner@2.0.0", "inner@2.0.1"));
    expect(await codeVersion(root)).not.toBe(before);
    await write("bun.lock", lock("4.6.8", "1.0.0"));
    expect(await codeVersion(root)).not.toBe(before);
    await write("bun.lock", lock("4.6.7", "1.0.0").replace('"zod":', '"zed":'));
    await expect(codeVersion(root)).rejects.toThrow(/The lockfile lacks zod/);
  });

  it("refuses a checkout without the sources of one of them", async () => {
    await rm(join(root, "packages/low/src"), { recursive: true });
    await expect(codeVersion(root)).rejects.toThrow(/packages\/low\/src/);
    await rm(join(root, "packages/run"), { recursive: true });
    await expect(codeVersion(root)).rejects.toThrow(/no package @tempora\/run/);
  });

  it("refuses a package whose folder holds no sources", async () => {
    await rm(join(root, "packages/low/src/low.ts"));
    await expect(codeVersion(root)).rejects.toThrow(/The folder has no sources/);
  });

  it("takes no notice of what an older version left, and refuses a checkout that lacks a package it needs", async () => {
    const before = await codeVersion(root);
    await write("packages/older/node_modules/left.js", "1");
    expect(await codeVersion(root)).toBe(before);
    await rm(join(root, "packages/low"), { recursive: true });
    await expect(codeVersion(root)).rejects.toThrow(/no package @tempora\/low/);
  });

  it("hashes this checkout", async () => {
    expect(await codeVersion()).toMatch(/^[0-9a-f]{64}$/);
  });
});
