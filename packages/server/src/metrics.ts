import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** What is read off when /metrics is asked for. */
export interface Readings {
  running: number;
  waiting: number;
  rows: number;
  /** Bytes by use. */
  memory: Readonly<Record<string, number>>;
}

const latencyBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** Counts for Prometheus, of one server. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #register = { registers: [this.#registry] };
  readonly requests = new Counter({
    name: "tempora_requests_total",
    help: "Requests answered, by path and status",
    labelNames: ["path", "status"],
    ...this.#register,
  });
  readonly promptTokens = new Counter({
    name: "tempora_prompt_tokens_total",
    help: "Tokens of the prompts that were taken in",
    ...this.#register,
  });
  readonly generatedTokens = new Counter({
    name: "tempora_generated_tokens_total",
    help: "Tokens generated",
    ...this.#register,
  });
  readonly requestSeconds = new Histogram({
    name: "tempora_request_seconds",
    help: "From a request's headers to the last byte of its answer",
    labelNames: ["path"],
    buckets: latencyBuckets,
    ...this.#register,
  });
  readonly firstTokenSeconds = new Histogram({
    name: "tempora_first_token_seconds",
    help: "From a request's headers to the first token of a streamed answer",
    buckets: latencyBuckets,
    ...this.#register,
  });

  constructor(read: () => Readings) {
    collectDefaultMetrics({ register: this.#registry });
    const gauge = (name: string, help: string, value: (readings: Readings) => number) =>
      new Gauge({
        name,
        help,
        ...this.#register,
        collect() {
          this.set(value(read()));
        },
      });
    gauge("tempora_requests_running", "Requests that generate or score now", ({ running }) => running);
    gauge("tempora_requests_waiting", "Requests that wait for a place", ({ waiting }) => waiting);
    gauge("tempora_rows_running", "Completions in the batch", ({ rows }) => rows);
    new Gauge({
      name: "tempora_engine_memory_bytes",
      help: "Memory of the engine, by use",
      labelNames: ["use"],
      ...this.#register,
      collect() {
        for (const [use, bytes] of Object.entries(read().memory)) this.set({ use }, bytes);
      },
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
