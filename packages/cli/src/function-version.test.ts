import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { scratch } from "@tempora/testing";
import { describe, expect, it } from "vitest";
import { functionVersion } from "./function-version.ts";

/** A configuration in files of its own: modules are cached by path. */
async function version(files: Record<string, string>): Promise<string> {
  const folder = await scratch();
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  const config = join(folder, "tempora.config.ts");
  const module = (await import(config)) as { default: { score: unknown } };
  return functionVersion(module.default.score, config);
}

const helper = "export const points = (text: string): number => text.length;\n";
const judge = `import { points } from "./helper.ts";\nexport const score = ({ answers }) => answers.map(points);\n`;
const config = (beta: number) => `import { score } from "./judge.ts";\nexport default { beta: ${beta}, score };\n`;
const files = (over: Record<string, string> = {}) => ({
  "helper.ts": helper,
  "judge.ts": judge,
  "tempora.config.ts": config(1),
  ...over,
});

describe("functionVersion", () => {
  it("is another one when the function's module or what that imports changes", async () => {
    const first = await version(files());
    expect(await version(files())).toBe(first);
    expect(await version(files({ "helper.ts": helper.replace("length", "length + 1") }))).not.toBe(first);
    expect(await version(files({ "judge.ts": `${judge}// other\n` }))).not.toBe(first);
  });

  it("leaves the other settings out where the function has a module of its own", async () => {
    expect(await version(files({ "tempora.config.ts": config(2) }))).toBe(await version(files()));
  });

  it("takes the whole configuration for a function that is written in it", async () => {
    const inline = (beta: number) => ({
      "tempora.config.ts": `export default { beta: ${beta}, score: ({ answers }) => answers.map(() => 1) };\n`,
    });
    expect(await version(inline(1))).toBe(await version(inline(1)));
    expect(await version(inline(1))).not.toBe(await version(inline(2)));
  });

  it("tells functions of one module apart, and versions of a package that it imports", async () => {
    const two = (name: string) => ({
      "judge.ts": "export const one = () => [1];\nexport const two = () => [2];\n",
      "tempora.config.ts": `import { ${name} } from "./judge.ts";\nexport default { score: ${name} };\n`,
    });
    expect(await version(two("one"))).not.toBe(await version(two("two")));
    const importing = (number: string) => ({
      "node_modules/points/package.json": JSON.stringify({
        name: "points",
        version: number,
        type: "module",
        main: "index.js",
      }),
      "node_modules/points/index.js": "export const points = (text) => text.length;\n",
      "judge.ts": 'import { points } from "points";\nexport const score = ({ answers }) => answers.map(points);\n',
      "tempora.config.ts": config(1),
    });
    expect(await version(importing("1.0.0"))).toBe(await version(importing("1.0.0")));
    expect(await version(importing("1.0.0"))).not.toBe(await version(importing("1.0.1")));
  });
});
