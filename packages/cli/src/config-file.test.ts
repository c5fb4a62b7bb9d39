import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "@tempora/testing";
import { expect, it } from "vitest";
import { loadConfigFile } from "./config-file.ts";

/** Versions of the judge's functions of a configuration, in files of its own: modules are cached by path. */
async function versions(functions: string, helper = "export const points = 1;\n"): Promise<unknown[]> {
  const folder = await scratch();
  writeFileSync(join(folder, "helper.ts"), helper);
  const file = join(folder, "tempora.config.ts");
  writeFileSync(
    file,
    `import { points } from "./helper.ts";\nexport default { judge: { functions: [${functions}] } };\n`,
  );
  const loaded = await loadConfigFile(file);
  return (loaded?.config.judge?.functions ?? []).map(({ version }) => version);
}

const scored = "{ name: 'a', score: ({ answers }) => answers.map(() => points) }";

it("gives the judge's functions versions by what they are, where they name none", async () => {
  const first = await versions(scored);
  expect(first).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)]);
  expect(await versions(scored)).toEqual(first);
  expect(await versions(scored, "export const points = 2;\n")).not.toEqual(first);
  const named = `${scored.slice(0, -1)}, version: "7" }`;
  expect(await versions(`${named}, ${scored}`)).toEqual(["7", expect.stringMatching(/^[0-9a-f]{64}$/)]);
});
