/** What one client, or all of them together, may ask of the server. Times in milliseconds. */
export interface ServerLimits {
  /** Requests that generate or score at the same time. */
  concurrency: number;
  /** Requests that wait for those; one more is answered with 429. */
  queue: number;
  /** Completions of one request: its prompts times `n`. */
  choices: number;
  bodyBytes: number;
  headerBytes: number;
  connections: number;
  /** For a request, headers and body, to arrive. */
  receiveTimeout: number;
  /** For a whole request, to the last byte of its answer. */
  requestTimeout: number;
  /** For requests that still run when the server is told to stop; then they are cut off. */
  shutdownTimeout: number;
  /** Prompt tokens that one scoring pass computes at once: bounds its memory, and how long others wait for it. */
  scoringTokens: number;
}

export const defaultLimits: ServerLimits = {
  concurrency: 64,
  queue: 256,
  choices: 128,
  bodyBytes: 8 * 2 ** 20,
  headerBytes: 16 * 2 ** 10,
  connections: 1024,
  receiveTimeout: 30_000,
  requestTimeout: 600_000,
  shutdownTimeout: 10_000,
  scoringTokens: 4096,
};
