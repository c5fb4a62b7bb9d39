import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { readLines, scratch } from "@tempora/testing";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Loggers, type LoggersOptions } from "./loggers.ts";

const folder = await scratch();
afterEach(() => {
  vi.unstubAllEnvs();
});

const settings = { loss: { beta: 0.1 }, model: "M0" };

function opened(more: Partial<LoggersOptions> & Pick<LoggersOptions, "kinds" | "folder">) {
  const warnings: string[] = [];
  return { warnings, loggers: new Loggers({ name: "a run", settings, warn: (text) => warnings.push(text), ...more }) };
}

/** Fields of a protobuf message, by number; a message within it is bytes. */
function fields(bytes: Uint8Array): Map<number, (number | bigint | Uint8Array)[]> {
  const reader = new BinaryReader(bytes);
  const found = new Map<number, (number | bigint | Uint8Array)[]>();
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    const value =
      type === WireType.Bit64
        ? reader.double()
        : type === WireType.Bit32
          ? reader.float()
          : type === WireType.Varint
            ? Number(reader.int64())
            : reader.bytes();
    found.set(field, [...(found.get(field) ?? []), value]);
  }
  return found;
}

const bytesOf = (message: ReturnType<typeof fields>, field: number) => (message.get(field) ?? []) as Uint8Array[];
const textOf = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString();

describe("tensorboard", () => {
  test("gets scalars under transformers' names, in one event file that replaces an earlier attempt's", async () => {
    const own = join(folder, "tensorboard");
    mkdirSync(join(own, "tensorboard", "temporal"), { recursive: true });
    writeFileSync(join(own, "tensorboard", "temporal", "events.out.tfevents.1.old.1.0"), "");
    const { loggers, warnings } = opened({ kinds: ["tensorboard"], folder: own });
    loggers.step("temporal", { loss: 0.5, "rewards/margins": -2 });
    loggers.step("temporal", { loss: 0.25 });
    loggers.evaluation("temporal", { win_rate: 0.75 });
    await loggers.close("finished");
    expect(warnings).toEqual([]);
    const names = readdirSync(join(own, "tensorboard", "temporal"));
    expect(names).toHaveLength(1);
    const data = readFileSync(join(own, "tensorboard", "temporal", names[0] as string));
    const events: ReturnType<typeof fields>[] = [];
    for (let at = 0; at < data.length; ) {
      const length = Number(data.readBigUInt64LE(at));
      events.push(fields(data.subarray(at + 12, at + 12 + length)));
      at += 16 + length;
    }
    expect(textOf(bytesOf(events[0] as never, 3)[0])).toBe("brain.Event:2");
    const scalars = events.slice(1).map((event) => {
      const values = bytesOf(fields(bytesOf(event, 5)[0] as Uint8Array), 1).map(fields);
      return [event.get(2)?.[0], values.map((value) => [textOf(bytesOf(value, 1)[0]), value.get(2)?.[0]])];
    });
    expect(scalars).toEqual([
      [1, [["train/loss", 0.5], ["train/rewards/margins", -2]]], // biome-ignore format: a step a line
      [2, [["train/loss", 0.25]]],
      [2, [["eval/win_rate", 0.75]]],
    ]);
  });
});

describe("wandb", () => {
  test("gets an offline run: settings, history, how it ended; records may be longer than a block of the log", async () => {
    const own = join(folder, "wandb");
    const text = "long ".repeat(20_000);
    const { loggers, warnings } = opened({ kinds: ["wandb"], folder: own, settings: { ...settings, text } });
    loggers.step("", { loss: 0.5 });
    loggers.step("", { loss: 0.25 });
    await loggers.close("stopped");
    expect(warnings).toEqual([]);
    const [run] = readdirSync(join(own, "wandb")) as [string];
    expect(run).toMatch(/^offline-run-\d{8}_\d{6}-[0-9a-f]{8}$/);
    const id = run.split("-").at(-1) as string;
    const records = wandbRecords(readFileSync(join(own, "wandb", run, `run-${id}.wandb`))).map(fields);
    const numbers = records.map((record) => record.get(1)?.[0]);
    expect(numbers).toEqual(numbers.map((_, k) => k + 1));
    const of = (field: number) => records.flatMap((record) => bytesOf(record, field)).map(fields);
    expect(of(21)).toHaveLength(1);
    const config = itemsOf(fields(bytesOf(of(17)[0] as never, 4)[0] as Uint8Array), 1, 1);
    expect(config).toEqual({ "loss.beta": 0.1, model: "M0", text });
    const history = of(2).map((row) => itemsOf(row, 1, 2));
    expect(history).toMatchObject([{ "train/loss": 0.5, _step: 1 }, { "train/loss": 0.25, _step: 2 }]); // biome-ignore format: short
    expect(of(18)[0]?.get(1)).toEqual([1]);
  });

  function itemsOf(message: ReturnType<typeof fields>, field: number, key: number): Record<string, unknown> {
    const items = bytesOf(message, field).map(fields);
    return Object.fromEntries(
      items.map((item) => [textOf(bytesOf(item, key)[0]), JSON.parse(textOf(bytesOf(item, 16)[0]))]),
    );
  }

  /** LevelDB's log with plain CRC-32. */
  function wandbRecords(data: Buffer): Buffer[] {
    const records: Buffer[] = [];
    let parts: Buffer[] = [];
    expect(data.subarray(0, 7).toString("hex")).toBe("3a572642e1be00");
    for (let at = 7; at < data.length; ) {
      const left = 32_768 - (at % 32_768);
      if (left < 7) {
        at += left;
        continue;
      }
      const [length, type] = [data.readUInt16LE(at + 4), data.readUInt8(at + 6)];
      const piece = data.subarray(at + 7, at + 7 + length);
      expect(crc32(piece, crc32(Buffer.from([type])))).toBe(data.readUInt32LE(at));
      parts.push(piece);
      if (type === 1 || type === 4) {
        records.push(Buffer.concat(parts));
        parts = [];
      }
      at += 7 + length;
    }
    return records;
  }
});

test("jsonl gets a row a step", async () => {
  const own = join(folder, "jsonl");
  const { loggers } = opened({ kinds: ["jsonl"], folder: own });
  loggers.step("", { loss: 0.5 });
  loggers.evaluation("", { win_rate: 1 });
  await loggers.close("finished");
  expect(readLines(join(own, "jsonl", "metrics.jsonl"))).toEqual([
    { step: 1, loss: 0.5 },
    { step: 1, "eval/win_rate": 1 },
  ]);
});

describe("mlflow", () => {
  interface Call {
    path: string;
    body: Record<string, never>;
  }

  /** Answers as MLflow's tracking server does, as far as a logger asks it. */
  async function standIn(): Promise<{ url: string; calls: Call[]; server: Server; down: { now: boolean } }> {
    const calls: Call[] = [];
    const down = { now: false };
    const known = new Set<string>();
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        const path = (request.url ?? "").replace("/api/2.0/mlflow/", "").split("?")[0] as string;
        const body = parts.length === 0 ? {} : JSON.parse(Buffer.concat(parts).toString());
        calls.push({ path, body });
        const [status, answer] = down.now ? [503, {}] : answerOf(path, body, known);
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
      });
    });
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    const { port } = server.address() as { port: number };
    return { url: `http://127.0.0.1:${port}`, calls, server, down };
  }

  function answerOf(path: string, body: Record<string, string>, known: Set<string>): [number, object] {
    const missing = { error_code: "RESOURCE_DOES_NOT_EXIST", message: "no such thing" };
    if (path === "experiments/get-by-name") return [404, missing];
    if (path === "experiments/create") return [200, { experiment_id: "7" }];
    if (path === "runs/create") {
      known.add(`run-${known.size}`);
      return [200, { run: { info: { run_id: `run-${known.size - 1}` } } }];
    }
    return known.has(body.run_id ?? "") ? [200, {}] : [404, missing];
  }

  const metricsOf = (calls: Call[]) => calls.flatMap(({ body }) => (body.metrics ?? []) as { step: number }[]);

  test("gets settings and metrics, and only what is new of a training that is resumed", async () => {
    const { url, calls, server } = await standIn();
    vi.stubEnv("MLFLOW_TRACKING_URI", url);
    const own = join(folder, "mlflow");
    const first = opened({ kinds: ["mlflow"], folder: own });
    first.loggers.step("", { loss: 0.5, grad_norm: Number.NaN });
    await first.loggers.close("stopped");
    const second = opened({ kinds: ["mlflow"], folder: own });
    second.loggers.step("", { loss: 0.5, grad_norm: Number.NaN });
    second.loggers.step("", { loss: 0.25 });
    await second.loggers.close("finished");
    expect([...first.warnings, ...second.warnings]).toEqual([]);
    const params = calls.flatMap(({ body }) => body.params ?? []);
    expect(params).toEqual([{ key: "loss.beta", value: "0.1" }, { key: "model", value: "M0" }]); // biome-ignore format: short
    expect(metricsOf(calls)).toMatchObject([
      { key: "loss", value: 0.5, step: 1 },
      { key: "grad_norm", value: "NaN", step: 1 },
      { key: "loss", value: 0.25, step: 2 },
    ]);
    expect(calls.filter(({ path }) => path === "runs/create")).toHaveLength(1);
    const statuses = calls.flatMap(({ path, body }) => (path === "runs/update" ? [body.status] : []));
    expect(statuses).toEqual(["KILLED", "RUNNING", "FINISHED"]);
    server.close();
  });

  test("that is away is said once, and at the end how much it lacks; other loggers go on", async () => {
    vi.stubEnv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9");
    const own = join(folder, "away");
    const { loggers, warnings } = opened({ kinds: ["mlflow", "jsonl"], folder: own, retryAfter: 0 });
    loggers.step("", { loss: 0.5 });
    await expect.poll(() => warnings.length).toBe(1);
    loggers.step("", { loss: 0.4 });
    await loggers.close("finished");
    expect(warnings[0]).toMatch(/^mlflow takes no metrics now, the training goes on: /);
    expect(warnings.slice(1)).toEqual([expect.stringContaining("2 rows were not logged")]);
    expect(readLines(join(own, "jsonl", "metrics.jsonl"))).toHaveLength(2);
  });

  test("that comes back gets what waited", async () => {
    const { url, calls, server, down } = await standIn();
    vi.stubEnv("MLFLOW_TRACKING_URI", url);
    down.now = true;
    const { loggers, warnings } = opened({ kinds: ["mlflow"], folder: join(folder, "back"), retryAfter: 0 });
    loggers.step("", { loss: 0.5 });
    await expect.poll(() => warnings.length).toBe(1);
    down.now = false;
    loggers.step("", { loss: 0.25 });
    await loggers.close("finished");
    expect(warnings).toHaveLength(1);
    expect(metricsOf(calls)).toMatchObject([{ value: 0.5 }, { value: 0.25 }]);
    server.close();
  });
});
