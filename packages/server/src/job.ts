import type { BatchRequest, BatchToken } from "@tempora/engine";
import type { Tokenizer } from "@tempora/text";
import { keyOf } from "@tempora/training";
import { asClientFault } from "./api-error.ts";
import { Choice } from "./choice.ts";
import type { Scheduler } from "./scheduler.ts";

/** What all completions of a request have in common. */
export interface JobSettings extends Omit<BatchRequest, "ids" | "key" | "samples" | "maxNewTokens"> {
  /** Completions of each prompt. */
  n: number;
  /** 0: none are generated. */
  maxNewTokens: number;
  stop: readonly string[];
}

/**
 * The completions of one request: choice p · n + s is sample s of prompt p, and what the command `generate` makes
 * of rows with the same prompts, and the same seed. Ends when it is done, fails or is aborted.
 */
export class Job {
  readonly choices: readonly Choice[];
  readonly #ends: (() => void)[] = [];
  readonly #onFinished: () => void;
  #wake: (() => void) | null = null;
  #failure: { error: unknown } | null = null;

  constructor(
    scheduler: Scheduler,
    tokenizer: Tokenizer,
    prompts: readonly (readonly number[])[],
    { n, stop, maxNewTokens, ...sampling }: JobSettings,
    onFinished: () => void,
  ) {
    this.#onFinished = onFinished;
    const endTokens = sampling.endTokens ?? [];
    this.choices = Array.from(
      { length: prompts.length * n },
      (_, index) => new Choice(index, tokenizer, stop, endTokens),
    );
    if (maxNewTokens === 0) {
      for (const choice of this.choices) choice.finishEmpty();
      onFinished();
      return;
    }
    const fail = (error: unknown) => this.#fail(error);
    try {
      for (const [prompt, ids] of prompts.entries()) {
        const take = (token: BatchToken) => this.#take(prompt * n + token.sample, token);
        // As the command `generate` keys the rows of a file.
        const key = keyOf(`row ${prompt}`);
        const request = { ...sampling, ids, key, samples: n, maxNewTokens };
        this.#ends.push(asClientFault("prompt", () => scheduler.add(request, { take, fail })));
      }
    } catch (error) {
      this.end();
      throw error;
    }
  }

  get finished(): boolean {
    return this.choices.every((choice) => choice.finished);
  }

  get newTokens(): number {
    return this.choices.reduce((sum, choice) => sum + choice.newTokens, 0);
  }

  /**
   * Resolves when there is something to read or all is done. One caller at a time.
   * @throws What the engine failed with, or the signal's reason.
   */
  async changed(signal: AbortSignal): Promise<void> {
    while (this.#failure === null && !signal.aborted && !this.finished && !this.choices.some(({ unread }) => unread)) {
      await this.#sleep(signal);
    }
    if (this.#failure !== null) throw this.#failure.error;
    signal.throwIfAborted();
  }

  /** Resolves when all is done; throws as `changed` does. */
  async done(signal: AbortSignal): Promise<void> {
    while (this.#failure === null && !signal.aborted && !this.finished) await this.#sleep(signal);
    if (this.#failure !== null) throw this.#failure.error;
    signal.throwIfAborted();
  }

  /** Ends what still runs. May be called again. */
  end(): void {
    for (const end of this.#ends.splice(0)) end();
    this.#wake?.();
  }

  #take(index: number, token: BatchToken): boolean {
    const choice = this.choices[index] as Choice;
    const stopped = choice.take(token);
    if (choice.finished && this.finished) {
      this.#ends.length = 0;
      this.#onFinished();
    }
    this.#wake?.();
    return stopped;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }

  #sleep(signal: AbortSignal): Promise<void> {
    return new Promise<void>((resolve) => {
      const wake = () => {
        this.#wake = null;
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#wake = wake;
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}
