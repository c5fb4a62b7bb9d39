import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { isObject, systemErrorCode, TemporaError } from "@tempora/errors";
import { writeWhole } from "@tempora/text";
import { type LoggedRow, type Logger, type Outcome, type Series, settingLeaves } from "./logger.ts";

/** What MLflow takes in one log-batch: 1000 entities, of which 100 params; a value of a param has 6000 characters. */
const batchMetrics = 1000;
const batchParams = 100;
const paramLength = 6000;

/** mlflow.json: the run that an earlier attempt at the series began, and how many of its rows the server has. */
interface Known {
  runId: string;
  rows: number;
}

/**
 * MLflow's REST (api/2.0/mlflow: experiments/get-by-name and create, runs/create, log-batch, update), at
 * MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME. A training that is resumed tells its first rows again, the
 * same ones: they are left out, so that its run goes on.
 */
export async function mlflowLogger(series: Series): Promise<Logger> {
  await mkdir(series.folder, { recursive: true });
  const file = join(series.folder, "mlflow.json");
  const client = new MlflowClient();
  let known = await readKnown(file);
  let begun = false;
  let told = 0;
  async function begin(): Promise<Known> {
    if (known !== null && !(await client.reopen(known.runId))) known = null;
    known ??= { runId: await client.createRun(series), rows: 0 };
    begun = true;
    await writeWhole(file, `${JSON.stringify(known)}\n`);
    return known;
  }
  return {
    async log(rows) {
      const run = begun && known !== null ? known : await begin();
      const fresh = rows.slice(Math.max(0, run.rows - told));
      if (fresh.length > 0) await client.logMetrics(run.runId, fresh);
      told += rows.length;
      if (fresh.length === 0) return;
      known = { ...run, rows: told };
      await writeWhole(file, `${JSON.stringify(known)}\n`);
    },
    async close(outcome) {
      if (begun && known !== null) await client.end(known.runId, outcome);
    },
  };
}

async function readKnown(file: string): Promise<Known | null> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Known;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

const timeout = 20_000;

const statuses = { finished: "FINISHED", failed: "FAILED", stopped: "KILLED" } satisfies Record<Outcome, string>;

class MlflowClient {
  readonly #base = (process.env.MLFLOW_TRACKING_URI ?? "http://127.0.0.1:5000").replace(/\/+$/, "");

  async createRun({ name, settings }: Series): Promise<string> {
    const experiment_id = await this.#experiment(process.env.MLFLOW_EXPERIMENT_NAME ?? "tempora");
    const start = { experiment_id, run_name: name, start_time: Date.now() };
    const { run } = await this.#call("POST", "runs/create", start);
    const runId = textOf(isObject(run) && isObject(run.info) ? run.info.run_id : undefined);
    const params = settingLeaves(settings).map(([key, value]) => ({
      key,
      value: (typeof value === "string" ? value : JSON.stringify(value ?? null)).slice(0, paramLength),
    }));
    for (let from = 0; from < params.length; from += batchParams) {
      const part = params.slice(from, from + batchParams);
      await this.#call("POST", "runs/log-batch", { run_id: runId, params: part });
    }
    return runId;
  }

  /** False where the server does not know the run: it was deleted there, or this is another server. */
  async reopen(runId: string): Promise<boolean> {
    try {
      await this.#call("POST", "runs/update", { run_id: runId, status: "RUNNING" });
      return true;
    } catch (error) {
      if (error instanceof MlflowRefusal && ["RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"].includes(error.code))
        return false;
      throw error;
    }
  }

  async logMetrics(runId: string, rows: readonly LoggedRow[]): Promise<void> {
    const metrics = rows.flatMap(({ step, time, kind, values }) =>
      Object.entries(values).map(([name, value]) => {
        // JSON has no such numbers; MLflow's REST takes them as words.
        const shown = Number.isFinite(value)
          ? value
          : Number.isNaN(value)
            ? "NaN"
            : value > 0
              ? "Infinity"
              : "-Infinity";
        return { key: kind === "eval" ? `eval/${name}` : name, value: shown, timestamp: Math.round(time), step };
      }),
    );
    for (let from = 0; from < metrics.length; from += batchMetrics) {
      const part = metrics.slice(from, from + batchMetrics);
      await this.#call("POST", "runs/log-batch", { run_id: runId, metrics: part });
    }
  }

  async end(runId: string, outcome: Outcome): Promise<void> {
    await this.#call("POST", "runs/update", { run_id: runId, status: statuses[outcome], end_time: Date.now() });
  }

  async #experiment(name: string): Promise<string> {
    try {
      const path = `experiments/get-by-name?experiment_name=${encodeURIComponent(name)}`;
      const { experiment } = await this.#call("GET", path);
      return textOf(isObject(experiment) ? experiment.experiment_id : undefined);
    } catch (error) {
      if (!(error instanceof MlflowRefusal) || error.code !== "RESOURCE_DOES_NOT_EXIST") throw error;
      return textOf((await this.#call("POST", "experiments/create", { name })).experiment_id);
    }
  }

  async #call(method: "GET" | "POST", path: string, body?: object): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.#base}/api/2.0/mlflow/${path}`, {
      method,
      headers: { "content-type": "application/json", ...authorization() },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(timeout),
    });
    const text = await response.text();
    const value = jsonObject(text);
    if (response.ok && value !== null) return value;
    throw new MlflowRefusal(`${this.#base}: ${path} ${response.status}`, value, text);
  }
}

/** An answer other than 200, with MLflow's own code and message where there are any. */
class MlflowRefusal extends Error {
  readonly code: string;

  constructor(what: string, value: Record<string, unknown> | null, text: string) {
    super(`${what}: ${typeof value?.message === "string" ? value.message : text.slice(0, 200)}`);
    this.code = typeof value?.error_code === "string" ? value.error_code : "";
  }
}

/** As MLflow's own clients read them. */
function authorization(): Record<string, string> {
  const { MLFLOW_TRACKING_TOKEN: token, MLFLOW_TRACKING_USERNAME: user, MLFLOW_TRACKING_PASSWORD: word } = process.env;
  if (user !== undefined && word !== undefined) {
    return { authorization: `Basic ${Buffer.from(`${user}:${word}`).toString("base64")}` };
  }
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

function jsonObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  throw new TemporaError("MLflow's answer lacks an id", {
    where: { field: "MLFLOW_TRACKING_URI" },
    remedy: "Name the address of an MLflow tracking server.",
  });
}
