import { setTimeout as sleep } from "node:timers/promises";
import { listFiles, modelInfo } from "@huggingface/hub";
import { isPlainPath } from "./hub-name.ts";
import type { HubSettings } from "./hub-settings.ts";

/** A file of a repository at one commit. */
export interface HubFile {
  path: string;
  /** Bytes. */
  size: number;
  /** SHA-256 of the content for large files, else git's SHA-1 of it; the name of its blob in the cache, as of Python's. */
  etag: string;
}

/** The hub answered, and not with what was asked for. */
export class HubRefusal extends Error {
  override readonly name = "HubRefusal";

  constructor(
    readonly status: number,
    /** The hub's X-Error-Code: GatedRepo, RepoNotFound, RevisionNotFound, EntryNotFound; "" without one. */
    readonly code: string,
    readonly text: string,
  ) {
    super(`HTTP ${status}${text === "" ? "" : `: ${text}`}`);
  }
}

/** No answer came: no network, no such host, or silence for too long. */
export class HubUnreachable extends Error {
  override readonly name = "HubUnreachable";
}

/** How long the hub may be silent, and how often is tried again. */
export interface Patience {
  /** Milliseconds without an answer, or without a byte of it. */
  silence: number;
  /** Tries in a row that bring nothing. */
  tries: number;
  /** Milliseconds before the second try; doubled for each further one. */
  pause: number;
}

export const usualPatience: Patience = { silence: 30_000, tries: 5, pause: 1_000 };

const maxRedirects = 8;
const busy = [408, 425, 429, 500, 502, 503, 504];

/** What the library needs of a fetch. */
type Fetch = typeof fetch;

/** Asks one hub. The token goes to the hub's own address only, never to the stores that it redirects to. */
export class HubClient {
  constructor(
    readonly settings: HubSettings,
    readonly patience: Patience,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** The commit that a branch, tag or commit names. @throws HubRefusal, HubUnreachable */
  async commit(id: string, revision: string): Promise<string> {
    const { sha } = await this.#patient(() =>
      modelInfo({ name: id, revision, additionalFields: ["sha"], hubUrl: this.settings.endpoint, fetch: this.#fetch }),
    );
    if (/^[0-9a-f]{40}$/.test(sha)) return sha;
    throw new HubRefusal(200, "", `it names ${JSON.stringify(sha)} as the commit of ${revision}`);
  }

  /** All files of the repository at a commit. @throws HubRefusal, HubUnreachable */
  async files(id: string, commit: string): Promise<HubFile[]> {
    return this.#patient(async () => {
      const files: HubFile[] = [];
      const repo = { type: "model", name: id } as const;
      const entries = listFiles({
        repo,
        recursive: true,
        revision: commit,
        hubUrl: this.settings.endpoint,
        fetch: this.#fetch,
      });
      for await (const { type, path, size, oid, lfs } of entries) {
        if (type !== "file") continue;
        const etag = lfs?.oid ?? oid ?? "";
        // Both become names in the cache.
        if (!isPlainPath(path) || !/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(etag)) {
          throw new HubRefusal(200, "", `it lists ${JSON.stringify(path)} with the hash ${JSON.stringify(etag)}`);
        }
        files.push({ path, size: lfs?.size ?? size, etag });
      }
      return files;
    });
  }

  /** Opens a file from byte `from` on. @throws HubRefusal, HubUnreachable */
  open(id: string, commit: string, path: string, from: number, signal: AbortSignal): Promise<Response> {
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    return this.#follow(`${this.settings.endpoint}/${id}/resolve/${commit}/${encoded}`, {
      // A compressed answer would have other offsets.
      headers: { "accept-encoding": "identity", ...(from > 0 ? { range: `bytes=${from}-` } : {}) },
      signal,
    });
  }

  /** Short questions, asked again where the hub is busy; an unreachable one is told at once. */
  async #patient<T>(ask: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (error) {
        this.signal?.throwIfAborted();
        if (!(error instanceof HubRefusal)) {
          // What the library throws of itself: an answer that broke off, or one that is not the hub's.
          throw error instanceof HubUnreachable ? error : new HubUnreachable(reason(error), { cause: error });
        }
        if (!busy.includes(error.status) || attempt >= this.patience.tries) throw error;
        await sleep(this.patience.pause * 2 ** (attempt - 1), undefined, { signal: this.signal });
      }
    }
  }

  readonly #fetch = ((input: string | URL | Request, init: RequestInit = {}) => {
    const limits = [AbortSignal.timeout(this.patience.silence), this.signal].filter((signal) => signal !== undefined);
    return this.#follow(input instanceof Request ? input.url : String(input), {
      ...init,
      signal: AbortSignal.any(limits),
    });
  }) as Fetch;

  /** Redirects are followed here, so that it is seen to whom the token goes. */
  async #follow(start: string, init: RequestInit): Promise<Response> {
    let url = start;
    for (let hop = 0; hop <= maxRedirects; hop++) {
      const headers = new Headers(init.headers);
      headers.set("user-agent", "tempora");
      const { token, endpoint } = this.settings;
      if (token !== null && new URL(url).origin === new URL(endpoint).origin) {
        headers.set("authorization", `Bearer ${token}`);
      }
      const answer = await this.#ask(url, { ...init, headers, redirect: "manual" });
      const location = answer.headers.get("location");
      if (answer.status >= 300 && answer.status < 400 && location !== null) {
        await answer.body?.cancel();
        url = new URL(location, url).href;
      } else if (answer.ok) {
        return answer;
      } else {
        throw await refusal(answer);
      }
    }
    throw new HubRefusal(310, "", `it redirects more than ${maxRedirects} times`);
  }

  async #ask(url: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url, init);
    } catch (error) {
      this.signal?.throwIfAborted();
      throw new HubUnreachable(reason(error), { cause: error });
    }
  }
}

async function refusal(answer: Response): Promise<HubRefusal> {
  const code = answer.headers.get("x-error-code") ?? "";
  const text = answer.headers.get("x-error-message") ?? "";
  await answer.body?.cancel();
  return new HubRefusal(answer.status, code, text);
}

/** True where asking again may help. */
export function isPassing(error: unknown): boolean {
  return error instanceof HubUnreachable || (error instanceof HubRefusal && busy.includes(error.status));
}

export function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === "TimeoutError" ? "no answer came in time" : error.message;
}
