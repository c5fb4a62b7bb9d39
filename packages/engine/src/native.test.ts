import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { callRoundTrip, deviceInfo, installedFile, loadFailure, nativeFailure, openAddon } from "./native.ts";

test("says how to build an addon that is missing", () => {
  const file = join(tmpdir(), "nowhere", "tempora.node");
  expect(() => openAddon(file)).toThrow(
    `The native engine has not been built (${file}). Run \`bun run build\` in a checkout.`,
  );
});

test("takes the installed addon with CUDA before the one without", () => {
  const plain = `@tempora/${process.platform}-${process.arch}-gnu`;
  const installed = (...names: string[]) =>
    installedFile((name) => {
      if (!names.includes(name)) throw new Error(`Cannot find module ${name}`);
      return `/modules/${name}/tempora.node`;
    });
  expect(installed(plain, `${plain}-cuda`)).toBe(`/modules/${plain}-cuda/tempora.node`);
  expect(installed(`${plain}-cuda`)).toBe(`/modules/${plain}-cuda/tempora.node`);
  expect(installed(plain)).toBe(`/modules/${plain}/tempora.node`);
  expect(installed()).toBeNull();
});

test("says why an addon does not load", () => {
  const file = join(mkdtempSync(join(tmpdir(), "tempora-")), "tempora.node");
  writeFileSync(file, "not a shared library");
  expect(() => openAddon(file)).toThrow("The native engine does not load");
});

test("names memory as the cause where the system has none for the addon's libraries or for a call", () => {
  const loader = new Error("libdnnl.so.2: cannot map zero-fill pages");
  expect(loadFailure("/x/tempora.node", loader).message).toMatch(/^The system has no memory to load the native engine/);
  const call = Object.assign(new Error("optimizerStep: std::bad_alloc"), { code: "out-of-memory" });
  expect(nativeFailure(call)).toMatchObject({ what: "optimizerStep: the system has no memory for it" });
});

test("describes the machine", () => {
  const info = deviceInfo();
  expect(["baseline", "avx2", "avx512", "avx512bf16", "amx"]).toContain(info.cpuKernels);
  expect(info.threads).toBeGreaterThan(0);
  if (info.cuda.devices.length === 0) expect(info.cuda.problem).toBeTruthy();
});

test("goes to another thread and back", async () => {
  await expect(Promise.all([callRoundTrip(), callRoundTrip()])).resolves.toEqual([undefined, undefined]);
});
