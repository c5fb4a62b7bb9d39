/**
 * Installs the packed tarballs (bun run pack) into empty folders, for Node and for Bun, where no compiler is to be found, and does there what
 * a user would: trains, runs the README's engine example, serves the trained model, and has a configuration checked by its types. Prints
 * "N passed, N failed".
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parquetWriteBuffer } from "hyparquet-writer";
import { root } from "./setup/command.ts";

/** The oldest that the packages name. */
const nodeVersion = "22.18.0";

const packed = join(root, "packed");
const tarballs = (await readdir(packed, { recursive: true }))
  .filter((name) => name.endsWith(".tgz"))
  .map((name) => join(packed, name));
/** Made by `bun run pack --cuda`. */
const withCuda = tarballs.some((file) => file.includes("-cuda-"));
const scratch = await mkdtemp(join(tmpdir(), "tempora-install-"));
const results: { name: string; error: unknown }[] = [];

interface Runtime {
  name: string;
  /** Where its programs lie; nothing else is on the path. */
  path: string;
  install: readonly string[];
  tempora: readonly string[];
  run: readonly string[];
}

async function attempt(name: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    results.push({ name, error: null });
    console.log(`ok      ${name}`);
  } catch (error) {
    results.push({ name, error });
    console.log(`failed  ${name}\n${error instanceof Error ? error.message : String(error)}`);
  }
}

/** A folder with these programs alone: no compiler, no cmake, no Python. */
async function programs(name: string, files: Record<string, string>): Promise<string> {
  const folder = join(scratch, name);
  await mkdir(folder, { recursive: true });
  const plain = Object.fromEntries(["sh", "env", "uname"].map((program) => [program, join("/usr/bin", program)]));
  for (const [program, file] of Object.entries({ ...plain, ...files })) await symlink(file, join(folder, program));
  return folder;
}

async function runtimes(): Promise<Runtime[]> {
  const home = join(scratch, "node");
  await mkdir(home);
  await writeFile(join(home, "package.json"), "{}");
  // The program alone: the package "node" would fetch it by a script.
  const binary = `node-${process.platform}-${process.arch}`;
  const wanted = [`${binary}@${nodeVersion}`, "npm@10"];
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"];
  execFileSync("npm", ["install", ...flags, ...wanted], {
    cwd: home,
    env: outside(),
    stdio: ["ignore", "ignore", "inherit"],
  });
  const modules = join(home, "node_modules");
  const npm = (name: string) => join(modules, "npm", "bin", `${name}-cli.js`);
  const node = join(modules, binary, "bin", "node");
  return [
    {
      name: `Node ${nodeVersion}`,
      path: await programs("node-path", { node, npm: npm("npm"), npx: npm("npx") }),
      install: ["npm", "install", "--no-audit", "--no-fund", "--silent"],
      tempora: ["npx", "tempora"],
      run: ["node", "--disable-warning=ExperimentalWarning"],
    },
    {
      name: `Bun ${process.versions.bun}`,
      path: await programs("bun-path", { bun: process.execPath, bunx: process.execPath }),
      install: ["bun", "install"],
      tempora: ["bunx", "--bun", "tempora"],
      run: ["bun"],
    },
  ];
}

/** Without what `bun run` and `npx` tell of the checkout that they run in. */
function outside(): Record<string, string | undefined> {
  const own =
    /^(?:npm_(?:lifecycle|package|execpath|node_execpath|command|config_(?:local_prefix|prefix|global_prefix|user_agent|noproxy))|INIT_CWD)/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.test(name)));
}

/** As it is here, the registry and the certificates of this machine among it, but for what can be run. */
function environment({ path }: Runtime): Record<string, string | undefined> {
  return { ...outside(), PATH: path };
}

function call(runtime: Runtime, cwd: string, command: readonly string[]): string {
  const [program = "", ...args] = command;
  const options = { cwd, env: environment(runtime), encoding: "utf8" as const, maxBuffer: 2 ** 26, timeout: 240_000 };
  try {
    return execFileSync(join(runtime.path, program), args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${command.join(" ")}:\n${stdout}${stderr}`, { cause: error });
  }
}

const config = `import { defineConfig } from "@tempora/run";

export default defineConfig({
  iterations: 1,
  promptsPerIteration: 32,
  candidates: 4,
  judge: {
    kind: "function",
    functions: [{ name: "short", range: [0, 1], score: ({ answers }) => answers.map((text) => 1 / (1 + text.length)) }],
  },
  start: { demonstrations: 1600, gradedExamples: 0 },
  replay: { weight: 0 },
  evaluation: { prompts: 24 },
  baselines: [],
});
`;

/** Where a registry would have them: Bun looks for what tarballs need there, unless it is told where that is. */
function tarballDependencies() {
  const files = Object.fromEntries(
    tarballs.map((file) => [basename(file).replace(/^tempora-(.*)-[\d.]+\.tgz$/, "@tempora/$1"), `file:${file}`]),
  );
  return { dependencies: files, overrides: files };
}

async function inFolder(runtime: Runtime, index: number): Promise<void> {
  const app = join(scratch, `app-${index}`);
  await mkdir(app);
  await writeFile(
    join(app, "package.json"),
    JSON.stringify({ private: true, type: "module", ...tarballDependencies() }),
  );
  await attempt(`${runtime.name}: installs without a compiler`, async () => {
    if (["gcc", "cc", "c++", "cmake", "python3"].some((name) => existsSync(join(runtime.path, name))))
      throw new Error("a compiler");
    call(runtime, app, runtime.install);
  });
  await attempt(`${runtime.name}: doctor finds the engine with this machine's kernels`, async () =>
    examine(runtime, app),
  );
  await writeFile(join(app, "tempora.config.ts"), config);
  await attempt(`${runtime.name}: a configuration finds its types`, async () => {
    const options = { module: "nodenext", strict: true, noEmit: true, skipLibCheck: true, types: [] };
    await writeFile(
      join(app, "tsconfig.json"),
      JSON.stringify({ compilerOptions: options, files: ["tempora.config.ts"] }),
    );
    execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", app], {
      stdio: "pipe",
    });
    await writeFile(join(app, "wrong.config.ts"), config.replace("candidates: 4", 'candidates: "four"'));
    await writeFile(join(app, "wrong.json"), JSON.stringify({ compilerOptions: options, files: ["wrong.config.ts"] }));
    let refused = false;
    try {
      execFileSync(
        process.execPath,
        [join(root, "node_modules/typescript/bin/tsc"), "--project", join(app, "wrong.json")],
        { stdio: "pipe" },
      );
    } catch {
      refused = true;
    }
    if (!refused) throw new Error("a wrong type is taken");
  });
  await attempt(`${runtime.name}: trains by its configuration`, async () => {
    const out = call(runtime, app, [...runtime.tempora, "train", "--no-page", "--json"]);
    const { report, run } = JSON.parse(out) as { report: string; run: { status: string } };
    if (run.status !== "finished" || !(await readFile(join(app, report), "utf8")).includes("</html>"))
      throw new Error(out);
  });
  await attempt(`${runtime.name}: the README's engine example runs`, async () => {
    const example = await readFile(join(root, "examples/dpo-step.ts"), "utf8");
    // Node 22 has no "using" yet.
    await writeFile(join(app, "example.ts"), example.replace("using engine", "const engine"));
    const out = call(runtime, app, [...runtime.run, "example.ts", "runs/world-temporal/models/M1"]);
    if (!/step 3 {2}loss 0\.\d+/.test(out)) throw new Error(out);
  });
  await attempt(`${runtime.name}: reads Parquet`, async () => {
    const data = join(app, "prompts.parquet");
    await writeFile(
      data,
      new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "prompt", data: ["count", "sort"] }] })),
    );
    const model = ["--model", "runs/world-temporal/models/M1", "--max-new-tokens", "4"];
    call(runtime, app, [...runtime.tempora, "generate", ...model, "--data", data, "--out", "answers.jsonl"]);
    const rows = (await readFile(join(app, "answers.jsonl"), "utf8")).trim().split("\n");
    if (rows.length !== 2) throw new Error(`${rows.length} rows, not 2`);
  });
  await attempt(`${runtime.name}: serves the trained model`, () => serve(runtime, app));
}

/** The addon in this folder is the one that was packed, and knows this machine. */
function examine(runtime: Runtime, app: string): void {
  const { addon } = JSON.parse(call(runtime, app, [...runtime.tempora, "doctor", "--json"])) as {
    addon: { cpuKernels: string; cuda: { built: boolean; devices: string[]; problem: string | null } };
  };
  const here = JSON.parse(
    execFileSync(process.execPath, [join(root, "packages/cli/src/main.ts"), "doctor", "--json"], {
      encoding: "utf8",
    }),
  ) as { addon: { cpuKernels: string } };
  if (addon.cpuKernels !== here.addon.cpuKernels) throw new Error(`${addon.cpuKernels}, not ${here.addon.cpuKernels}`);
  const { built, devices, problem } = addon.cuda;
  if (built !== withCuda) throw new Error(`CUDA is ${built ? "" : "not "}in the addon that was loaded`);
  if (devices.length === 0 && !problem) throw new Error("no CUDA device, and no word on why");
}

async function serve(runtime: Runtime, app: string): Promise<void> {
  const [program = "", ...args] = [
    ...runtime.tempora,
    "serve",
    "runs/world-temporal/models/M1",
    "--name",
    "M1",
    "--port",
    "0",
  ];
  const child = spawn(join(runtime.path, program), args, {
    cwd: app,
    env: environment(runtime),
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  try {
    let told = "";
    const url = await new Promise<string>((found, fail) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on("data", (chunk: Buffer) => {
          told += chunk.toString();
          const address = /http:\/\/\S+?:\d+/.exec(told)?.[0];
          if (address !== undefined) found(address);
        });
      }
      child.on("exit", () => fail(new Error(told)));
    });
    const body = JSON.stringify({ model: "M1", prompt: "count", max_tokens: 4 });
    const answer = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    const { choices } = (await answer.json()) as { choices: { text: string }[] };
    if (answer.status !== 200 || typeof choices[0]?.text !== "string") throw new Error(`${answer.status}`);
  } finally {
    // With what it started: npx and bunx are not the server.
    process.kill(-(child.pid as number), "SIGTERM");
  }
}

try {
  for (const [index, runtime] of (await runtimes()).entries()) await inFolder(runtime, index);
} finally {
  await rm(scratch, { recursive: true, force: true });
}
const failed = results.filter(({ error }) => error !== null).length;
console.log(`${results.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
