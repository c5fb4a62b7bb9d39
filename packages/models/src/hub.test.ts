import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { failure, type HubRepository, scratch, startHub } from "@tempora/testing";
import { describe, expect, test } from "vitest";
import { type LocateOptions, locateModel } from "./hub.ts";

const [first, second] = ["a".repeat(40), "b".repeat(40)];
const patience = { silence: 2_000, tries: 3, pause: 5 };

/** Bytes that compress badly and differ by seed. */
function noise(length: number, seed: string): Uint8Array {
  const parts: Buffer[] = [];
  for (let i = 0; parts.length * 32 < length; i++) parts.push(createHash("sha256").update(`${seed}${i}`).digest());
  return Buffer.concat(parts).subarray(0, length);
}

const text = (value: string) => Buffer.from(value);
const weights = noise(3_000_000, "weights");

const small = {
  "config.json": text('{"model_type": "llama"}'),
  "tokenizer.json": noise(5_000, "tokenizer"),
  "tokenizer_config.json": text("{}"),
  "generation_config.json": text('{"eos_token_id": 2}'),
};
const others = {
  "README.md": text("# A model"),
  "pytorch_model.bin": noise(2_000, "pickled"),
  "onnx/model.onnx": noise(2_000, "onnx"),
};
const single: HubRepository = {
  commits: { [first]: { ...small, ...others, "model.safetensors": weights } },
  refs: { main: first },
};

/** Compared at once: a matcher takes seconds for megabytes. */
async function expectBytes(file: string, bytes: Uint8Array): Promise<void> {
  expect((await readFile(file)).equals(bytes)).toBe(true);
}

/** A hub, an empty cache and what names them. */
async function site(repositories: Record<string, HubRepository> = { "org/model": single }) {
  const hub = await startHub(structuredClone(repositories));
  const cache = join(await scratch(), "hub");
  const environment: Record<string, string> = { HF_ENDPOINT: `${hub.url}/`, HF_HUB_CACHE: cache, HF_HOME: cache };
  const notes: string[] = [];
  const progress: [number, number][] = [];
  const locate = (name: string, options: LocateOptions & { env?: Record<string, string> } = {}) =>
    locateModel(name, {
      environment: { ...environment, ...options.env },
      patience,
      note: (note) => notes.push(note),
      onProgress: (done, total) => progress.push([done, total]),
      ...options,
    });
  const repository = join(cache, "models--org--model");
  return { hub, cache, environment, notes, progress, locate, repository };
}

describe("a model named by its hub id", () => {
  test("is downloaded as Python's cache keeps it: what is needed, linked from the snapshot to its blob", async () => {
    const { locate, repository, progress } = await site();
    const folder = await locate("org/model");
    expect(folder).toBe(join(repository, "snapshots", first));
    expect((await readdir(folder)).sort()).toEqual([...Object.keys(small), "model.safetensors"].sort());
    const sha256 = createHash("sha256").update(weights).digest("hex");
    expect(await readlink(join(folder, "model.safetensors"))).toBe(`../../blobs/${sha256}`);
    await expectBytes(join(folder, "model.safetensors"), weights);
    // git hash-object config.json
    expect(await readlink(join(folder, "config.json"))).toBe("../../blobs/230d5f4da0da586aad26ead694ea67cd15bd6df1");
    expect(await readFile(join(repository, "refs", "main"), "utf8")).toBe(first);
    expect((await readdir(join(repository, "blobs"))).filter((name) => name.includes("."))).toEqual([]);
    const total = [...Object.values(small), weights].reduce((sum, { length }) => sum + length, 0);
    expect(progress.at(-1)).toEqual([total, total]);
    expect(progress.every(([done], i) => i === 0 || done >= progress[i - 1]![0])).toBe(true);
  });

  test("is asked for once: the second time no file is requested", async () => {
    const { hub, locate, progress } = await site();
    const folder = await locate("org/model");
    expect(hub.downloads()).toHaveLength(5);
    hub.requests.length = 0;
    progress.length = 0;
    expect(await locate("org/model")).toBe(folder);
    expect(hub.downloads()).toEqual([]);
    expect(progress).toEqual([]);
  });

  test("has its shards by the index, and only what a new commit changed is downloaded", async () => {
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
    const index = text(JSON.stringify({ weight_map: { a: shards[0], b: shards[1], c: shards[1] } }));
    const files = { ...small, "model.safetensors.index.json": index, [shards[0]]: noise(9_000, "1"), stray: weights };
    const { hub, locate } = await site({
      "org/model": {
        commits: {
          [first]: { ...files, [shards[1]]: noise(9_000, "2") },
          [second]: { ...files, [shards[1]]: noise(9_000, "3") },
        },
        refs: { main: first },
      },
    });
    const folder = await locate("org/model");
    expect((await readdir(folder)).sort()).toEqual(
      [...Object.keys(small), "model.safetensors.index.json", ...shards].sort(),
    );
    hub.requests.length = 0;
    hub.repositories["org/model"]!.refs.main = second;
    const next = await locate("org/model");
    expect(next).not.toBe(folder);
    expect(hub.downloads()).toEqual([shards[1]]);
    await expectBytes(join(next, shards[1]), noise(9_000, "3"));
    await expectBytes(join(folder, shards[1]), noise(9_000, "2"));
  });

  test("may have a revision: a branch with a slash, a tag, a commit", async () => {
    const other = { ...small, "model.safetensors": noise(2_000, "other") };
    const { locate, repository } = await site({
      "org/model": {
        commits: { ...single.commits, [second]: other },
        refs: { main: first, "refs/pr/1": second, v2: second },
      },
    });
    for (const revision of ["refs/pr/1", "v2", second]) {
      expect(await locate(`org/model@${revision}`)).toBe(join(repository, "snapshots", second));
    }
    expect((await readdir(join(repository, "refs"), { recursive: true })).sort()).toEqual([
      "refs",
      "refs/pr",
      "refs/pr/1",
      "v2",
    ]);
    const error = await failure(() => locate("org/model@v9"));
    expect(error.message).toMatch(/The model org\/model has no revision v9 \(http.*\/org\/model\)\. Name a branch/);
  });

  test("gives way to a path of that name", async () => {
    const { hub, locate } = await site();
    const folder = await scratch();
    expect(await locate(folder)).toBe(folder);
    expect(hub.requests).toEqual([]);
  });

  test("that is neither a path nor on the hub is told so", async () => {
    const { locate } = await site();
    for (const name of ["models/a/b", "./models/M0", "gpt2", "org/model@", "org/../x"]) {
      expect((await failure(() => locate(name))).what).toMatch(
        /neither a path that exists nor the name of one on the hub/,
      );
    }
    const error = await failure(() => locate("models/M0"));
    expect(error.what).toBe("models/M0 is neither a path here nor a model that the hub shows to this account");
    expect(error.remedy).toContain("HF_TOKEN");
  });
});

describe("GGUF repositories", () => {
  const files = {
    "a-Q4_K_M.gguf": noise(4_000, "q4"),
    "big/a-F16.gguf": noise(6_000, "f16"),
    "config.json": text("{}"),
  };
  const repositories = { "org/gguf": { commits: { [first]: files }, refs: { main: first } } };

  test("need the name of a file, which alone is downloaded", async () => {
    const { hub, cache, locate } = await site(repositories);
    const error = await failure(() => locate("org/gguf"));
    expect(error.what).toBe("The model org/gguf (main) holds GGUF files only: a-Q4_K_M.gguf, big/a-F16.gguf");
    expect(error.remedy).toBe("Name one of them, as org/gguf/a-Q4_K_M.gguf.");
    const file = await locate("org/gguf/big/a-F16.gguf@main");
    expect(file).toBe(join(cache, "models--org--gguf", "snapshots", first, "big", "a-F16.gguf"));
    expect(await readFile(file)).toEqual(Buffer.from(files["big/a-F16.gguf"]));
    expect((await readlink(file)).startsWith("../../../blobs/")).toBe(true);
    expect(hub.downloads()).toEqual(["big/a-F16.gguf"]);
    expect((await failure(() => locate("org/gguf/none.gguf"))).message).toMatch(
      /has no file none.gguf .* It has a-Q4_K_M/,
    );
  });

  test("and those without safetensors at all are told apart", async () => {
    const pickled = { commits: { [first]: { ...small, ...others } }, refs: { main: first } };
    const { locate } = await site({ "org/pickled": pickled });
    const error = await failure(() => locate("org/pickled"));
    expect(error.what).toContain("has no weights as safetensors: config.json");
    expect(error.remedy).toContain("pickled");
  });
});

describe("a download that is cut off", () => {
  const partial = `${createHash("sha256").update(weights).digest("hex")}.tempora.incomplete`;

  /** Downloads in a process of its own, which the test may kill. */
  function child(environment: Record<string, string>) {
    const script = `import { locateModel } from ${JSON.stringify(join(import.meta.dirname, "hub.ts"))};
      process.stdout.write(await locateModel("org/model"));`;
    const running = spawn(process.execPath, ["-e", script], { env: { ...process.env, ...environment } });
    let output = "";
    running.stdout.on("data", (part) => {
      output += part;
    });
    const ended = new Promise<string>((done) => running.on("close", () => done(output)));
    return { running, ended };
  }

  async function grown(file: string, bytes: number): Promise<void> {
    for (let tries = 0; tries < 1000; tries++) {
      if (existsSync(file) && (await stat(file)).size >= bytes) return;
      await sleep(10);
    }
    throw new Error(`${file} did not grow`);
  }

  test("by kill -9 goes on where it was, with nothing visible before it is whole", async () => {
    const { hub, environment, locate, repository } = await site();
    hub.faults["model.safetensors"] = { cut: { after: 1_000_000, times: 1, stall: true } };
    const { running, ended } = child(environment);
    const file = join(repository, "blobs", partial);
    await grown(file, 900_000);
    running.kill("SIGKILL");
    await ended;
    expect(existsSync(join(repository, "snapshots"))).toBe(false);
    const kept = (await stat(file)).size;
    hub.requests.length = 0;
    const folder = await locate("org/model");
    expect(hub.requests.filter(({ at, url }) => at === "store" && url.endsWith("safetensors"))).toMatchObject([
      { range: `bytes=${kept}-` },
    ]);
    await expectBytes(join(folder, "model.safetensors"), weights);
    expect(existsSync(file)).toBe(false);
  });

  test("by Ctrl-C keeps what it has", async () => {
    const { hub, locate, repository } = await site();
    hub.faults["model.safetensors"] = { cut: { after: 1_000_000, times: 1, stall: true } };
    const controller = new AbortController();
    const reason = new Error("stopped");
    const work = locate("org/model", { signal: controller.signal });
    await Promise.race([work, grown(join(repository, "blobs", partial), 900_000)]);
    controller.abort(reason);
    await expect(work).rejects.toBe(reason);
    hub.requests.length = 0;
    await locate("org/model");
    expect(hub.requests.find(({ url }) => url.endsWith("safetensors"))?.range).toMatch(/^bytes=[1-9]\d{5}/);
  });

  test.each([false, true])("by the network is taken up again, silence (%s) included", async (stall) => {
    const { hub, locate } = await site();
    hub.faults["model.safetensors"] = { cut: { after: 700_000, times: 2, stall } };
    const folder = await locate("org/model", { patience: { ...patience, silence: 300 } });
    await expectBytes(join(folder, "model.safetensors"), weights);
    const ranges = hub.requests.filter(({ at, url }) => at === "store" && url.endsWith("safetensors"));
    expect(ranges).toHaveLength(3);
    // How much of what was sent arrives before the end is known is the network's.
    const [, second, third] = ranges.map(({ range }) => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1]));
    expect(second).toBeGreaterThan(0);
    expect(third).toBeGreaterThan(second as number);
  });

  test("from a store that knows no ranges begins again", async () => {
    const { hub, locate } = await site();
    hub.faults["model.safetensors"] = { cut: { after: 700_000, times: 1 }, ignoreRanges: true };
    const folder = await locate("org/model");
    await expectBytes(join(folder, "model.safetensors"), weights);
  });

  test("gives up where nothing comes any more, and says what the cache holds", async () => {
    const { hub, locate, cache } = await site();
    await mkdir(join(cache, "models--some--other"), { recursive: true });
    hub.faults["model.safetensors"] = { cut: { after: 0, times: 99 } };
    const error = await failure(() => locate("org/model"));
    expect(error.what).toMatch(/^org\/model is no path here, and the hub cannot be reached: /);
    expect(error.remedy).toContain("some/other");
  });

  test("two processes at once download it once, and both have it whole", async () => {
    const { hub, environment } = await site();
    const outputs = await Promise.all(Array.from({ length: 3 }, () => child(environment).ended));
    expect(new Set(outputs).size).toBe(1);
    await expectBytes(join(outputs[0]!, "model.safetensors"), weights);
    expect(hub.downloads().filter((path) => path === "model.safetensors")).toHaveLength(1);
  });
});

describe("bytes that are not those that the hub lists", () => {
  test("are refused and leave nothing behind", async () => {
    const { hub, locate, repository } = await site();
    hub.faults["model.safetensors"] = { corrupt: { times: 1 } };
    const error = await failure(() => locate("org/model"));
    expect(error.what).toBe(
      "What was downloaded as model.safetensors of org/model is not what the hub lists: its hash differs",
    );
    expect(existsSync(join(repository, "snapshots"))).toBe(false);
    expect((await readdir(join(repository, "blobs"))).filter((name) => name.length > 60)).toHaveLength(1);
    const folder = await locate("org/model");
    await expectBytes(join(folder, "model.safetensors"), weights);
  });

  test("in a small file, which git's hash names", async () => {
    const { hub, locate } = await site();
    hub.faults["config.json"] = { corrupt: { times: 1 } };
    expect((await failure(() => locate("org/model"))).what).toContain("config.json");
  });

  test("that an earlier try left are downloaded again", async () => {
    const { hub, locate, repository } = await site();
    const blob = createHash("sha256").update(weights).digest("hex");
    await mkdir(join(repository, "blobs"), { recursive: true });
    await writeFile(join(repository, "blobs", `${blob}.tempora.incomplete`), noise(1_000_000, "damaged"));
    const folder = await locate("org/model");
    await expectBytes(join(folder, "model.safetensors"), weights);
    expect(hub.requests.filter(({ at, url }) => at === "store" && url.endsWith("safetensors"))).toHaveLength(2);
  });
});

describe("who asks", () => {
  const repositories = { "org/model": { ...single, token: "hf_secret" } };

  test("sends HF_TOKEN to the hub, and not to the store it redirects to", async () => {
    const { hub, locate } = await site(repositories);
    await locate("org/model", { env: { HF_TOKEN: " hf_secret\n" } });
    const of = (at: string) => new Set(hub.requests.filter((one) => one.at === at).map((one) => one.authorization));
    expect(of("hub")).toEqual(new Set(["Bearer hf_secret"]));
    expect(of("store")).toEqual(new Set([undefined]));
  });

  test("else the token that `hf auth login` wrote", async () => {
    const { locate } = await site(repositories);
    const home = await scratch();
    await writeFile(join(home, "token"), "hf_secret\n");
    await locate("org/model", { env: { HF_HOME: home } });
    expect((await failure(() => locate("org/model@v9"))).what).toContain("nor a model that the hub shows");
  });

  test("HF_HOME holds the cache where no other one is named", async () => {
    const home = await scratch();
    const { locate } = await site();
    const folder = await locate("org/model", { env: { HF_HOME: home, HF_HUB_CACHE: "" } });
    expect(folder).toBe(join(home, "hub", "models--org--model", "snapshots", first));
  });

  test("is told of a gated model's page", async () => {
    const { hub, locate } = await site({ "org/model": { ...single, gated: true } });
    const without = await failure(() => locate("org/model"));
    expect(without.what).toBe("The model org/model is gated, and this account has no access");
    expect(without.remedy).toBe(
      `Accept its conditions on ${hub.url}/org/model, then set HF_TOKEN, or run \`hf auth login\`.`,
    );
    const having = await failure(() => locate("org/model", { env: { HF_TOKEN: "hf_other" } }));
    expect(having.remedy).toContain("then check the token (HF_TOKEN)");
  });

  test("waits for a busy hub", async () => {
    const { hub, locate } = await site();
    hub.busy = 2;
    await locate("org/model");
  });
});

describe("without the hub", () => {
  test("what the cache has is used, offline without a word and otherwise with one", async () => {
    const { hub, locate, notes } = await site();
    const folder = await locate("org/model");
    hub.requests.length = 0;
    expect(await locate("org/model", { env: { HF_HUB_OFFLINE: "1" } })).toBe(folder);
    expect(hub.requests).toEqual([]);
    expect(notes).toEqual([]);
    await hub.stop();
    expect(await locate("org/model")).toBe(folder);
    expect(notes).toEqual([expect.stringContaining(`org/model is taken from the cache, at commit ${first}`)]);
  });

  test("what the cache lacks is told with what it has", async () => {
    const { locate } = await site();
    const offline = { env: { HF_HUB_OFFLINE: "1" } };
    const none = await failure(() => locate("org/model", offline));
    expect(none.what).toBe("org/model is no path here, and the hub is not asked: HF_HUB_OFFLINE is set");
    expect(none.remedy).toContain("The cache holds no model.");
    const folder = await locate("org/model");
    expect((await failure(() => locate("org/model@v2", offline))).remedy).toContain(
      "In the cache lies org/model at main",
    );
    await rm(join(folder, "model.safetensors"));
    expect((await failure(() => locate("org/model", offline))).remedy).toContain("not all of org/model@main");
    expect((await failure(() => locate("org/other", offline))).remedy).toContain("The cache holds org/model.");
  });

  test("a snapshot whose blob was removed is not taken for whole", async () => {
    const { locate, repository, hub } = await site();
    const folder = await locate("org/model");
    await rm(join(repository, "blobs", createHash("sha256").update(weights).digest("hex")));
    expect((await lstat(join(folder, "model.safetensors"))).isSymbolicLink()).toBe(true);
    hub.requests.length = 0;
    await locate("org/model");
    expect(hub.downloads()).toEqual(["model.safetensors"]);
  });
});

test("a cache that cannot be written is named", async () => {
  const { locate, cache } = await site();
  await writeFile(cache, "a file in the way");
  const error = await failure(() => locate("org/model"));
  expect(error.where.file).toContain(cache);
});

test("a disk that is too small is told before anything is downloaded", async () => {
  const { hub, locate } = await site();
  const files = hub.repositories["org/model"]?.commits[first] as Record<string, Uint8Array>;
  files["model.safetensors"] = Object.defineProperty(new Uint8Array(2_000), "length", { value: 1e18 });
  const error = await failure(() => locate("org/model"));
  expect(error.what).toMatch(/^org\/model needs 1000000000.\d GB, and the disk has .* left$/);
  expect(hub.downloads()).toEqual([]);
});
