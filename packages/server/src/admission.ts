import { ApiError } from "./api-error.ts";

interface Waiter {
  begin(): void;
  refuse(error: unknown): void;
}

/** Lets so many requests in at once, so many wait in order, and turns the rest away. */
export class Admission {
  readonly #concurrency: number;
  readonly #queue: number;
  readonly #waiting = new Set<Waiter>();
  #running = 0;
  #closed = false;
  #whenEmpty: (() => void) | null = null;

  constructor(concurrency: number, queue: number) {
    this.#concurrency = concurrency;
    this.#queue = queue;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a place. Returns how to give it back, which may be called again.
   * @throws ApiError 429 when too many wait already, 503 when the server is stopping; the signal's reason when it is aborted.
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    if (this.#closed) throw stopping();
    if (this.#running < this.#concurrency) this.#running++;
    else await this.#wait(signal);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave();
    };
  }

  /** Turns new requests and those that wait away; resolves when the last one that runs has left. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const waiter of this.#waiting) waiter.refuse(stopping());
    this.#waiting.clear();
    if (this.#running === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
    });
  }

  #wait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.size >= this.#queue) {
      const message = `The server is busy: ${this.#running} requests run and ${this.#waiting.size} wait. Try again later.`;
      throw new ApiError(429, message, { code: "server_busy", retryAfter: 1 });
    }
    return new Promise<void>((resolve, reject) => {
      const settle = (act: () => void) => {
        signal.removeEventListener("abort", abort);
        this.#waiting.delete(waiter);
        act();
      };
      const waiter: Waiter = {
        begin: () => settle(resolve),
        refuse: (error) => settle(() => reject(error)),
      };
      const abort = () => waiter.refuse(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.#waiting.add(waiter);
    });
  }

  #leave(): void {
    const [next] = this.#waiting;
    if (next !== undefined) {
      next.begin();
      return;
    }
    this.#running--;
    if (this.#running === 0) this.#whenEmpty?.();
  }
}

function stopping(): ApiError {
  return new ApiError(503, "The server is stopping.", { code: "server_stopping", retryAfter: 5 });
}
