import type { BatchRequest, BatchToken, GenerationBatch } from "@tempora/engine";

/** Hears of one request's tokens. */
export interface TokenSink {
  /** Called for each token of each sample in turn. Returns true to end the sample with it. */
  take(token: BatchToken): boolean;
  /** The engine failed; nothing more comes. */
  fail(error: unknown): void;
}

/** Runs one batch that requests join and leave while it goes on, and hands each token to whom it belongs. */
export class Scheduler {
  readonly #open: () => GenerationBatch;
  readonly #onTokens: (count: number) => void;
  readonly #sinks = new Map<number, { sink: TokenSink; left: number }>();
  #batch: GenerationBatch | null = null;
  #looping = false;

  /** @param onTokens Told how many tokens each step made. */
  constructor(open: () => GenerationBatch, onTokens: (count: number) => void = () => {}) {
    this.#open = open;
    this.#onTokens = onTokens;
  }

  /** Completions in the batch. */
  get rows(): number {
    return this.#batch?.rows ?? 0;
  }

  /** Takes the batch's memory. @throws TemporaError where there is not enough. */
  async start(): Promise<void> {
    this.#batch ??= this.#open();
    await this.#batch.step();
  }

  /** Adds a request; its tokens come from the next step on. Returns how to end it early, which may be called again. */
  add(request: BatchRequest, sink: TokenSink): () => void {
    this.#batch ??= this.#open();
    const number = this.#batch.add(request);
    this.#sinks.set(number, { sink, left: request.samples ?? 1 });
    if (!this.#looping) void this.#loop();
    return () => {
      if (this.#sinks.delete(number)) this.#batch?.end(number);
    };
  }

  /** Ends everything. */
  close(): void {
    this.#batch?.dispose();
    this.#batch = null;
    this.#sinks.clear();
  }

  async #loop(): Promise<void> {
    this.#looping = true;
    try {
      // Whoever adds in this turn of the event loop is in the first step.
      await Promise.resolve();
      while (this.#batch !== null && this.#batch.rows > 0) {
        const tokens = await this.#batch.step();
        this.#onTokens(tokens.length);
        for (const token of tokens) this.#deliver(token);
      }
    } catch (error) {
      this.#failAll(error);
    } finally {
      this.#looping = false;
    }
  }

  #deliver(token: BatchToken): void {
    const entry = this.#sinks.get(token.request);
    if (entry === undefined) return;
    const stop = entry.sink.take(token);
    if (!stop && token.finishReason === null) return;
    if (token.finishReason === null) this.#batch?.end(token.request, token.sample);
    entry.left--;
    if (entry.left === 0) this.#sinks.delete(token.request);
  }

  #failAll(error: unknown): void {
    const sinks = [...this.#sinks.values()];
    this.close();
    for (const { sink } of sinks) sink.fail(error);
  }
}
