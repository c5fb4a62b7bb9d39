import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileError, systemErrorCode, TemporaError } from "@tempora/errors";
import { type HubClient, type HubFile, HubUnreachable, isPassing, reason } from "./hub-client.ts";

/** What is fetched, and where it goes. */
export interface BlobTask {
  id: string;
  commit: string;
  file: HubFile;
  /** Path of the blob, which appears only when it is whole and its hash is right. */
  blob: string;
}

export interface BlobOptions {
  signal: AbortSignal;
  /** Told of bytes that are there: those of an earlier try at once, and a negative number when some are thrown away. */
  onBytes(count: number): void;
}

/**
 * Downloads one file into the cache. What an interrupted process had of it is kept beside the blob and continued by a range
 * request. The caller holds the repository's lock; Python, which does not, writes to names of its own and renames, too.
 * @throws TemporaError for wrong bytes or a disk that does not take them; HubRefusal, HubUnreachable.
 */
export async function downloadBlob(client: HubClient, task: BlobTask, options: BlobOptions): Promise<void> {
  const partial = partialFile(task.blob);
  const found = await attempt(client, task, partial, options);
  if (found === "wrong after resuming") {
    // The earlier bytes may be at fault: once more from the first byte.
    const again = await attempt(client, task, partial, options);
    if (again !== "done") throw wrongBytes(client, task);
  } else if (found === "wrong") {
    throw wrongBytes(client, task);
  }
}

/** Where the bytes are collected: not the name that versions of Python's library have appended to. */
export function partialFile(blob: string): string {
  return `${blob}.tempora.incomplete`;
}

type Outcome = "done" | "wrong" | "wrong after resuming";

async function attempt(client: HubClient, task: BlobTask, partial: string, options: BlobOptions): Promise<Outcome> {
  const file = await PartialFile.open(partial, task.file, options.onBytes);
  const resumed = file.size > 0;
  try {
    await fill(client, task, file, options);
    const right = await file.isRight();
    if (right) await file.sync();
    await file.close();
    if (!right) {
      await rm(partial, { force: true });
      options.onBytes(-file.size);
      return resumed ? "wrong after resuming" : "wrong";
    }
    await rename(partial, task.blob);
    return "done";
  } catch (error) {
    throw systemErrorCode(error) === undefined ? error : fileError(error, "Cannot keep the model's file", partial);
  } finally {
    await file.close();
  }
}

/** Asks for what is missing until nothing is; a broken connection is taken up again where it broke. */
async function fill(client: HubClient, task: BlobTask, file: PartialFile, options: BlobOptions): Promise<void> {
  let barren = 0;
  while (file.size < task.file.size) {
    const before = file.size;
    try {
      await transfer(client, task, file, options.signal);
    } catch (error) {
      options.signal.throwIfAborted();
      barren = file.size > before ? 1 : barren + 1;
      if (!isPassing(error) || barren >= client.patience.tries) throw error;
      await sleep(client.patience.pause * 2 ** (barren - 1), undefined, { signal: options.signal });
    }
  }
}

async function transfer(client: HubClient, task: BlobTask, file: PartialFile, signal: AbortSignal): Promise<void> {
  const silence = new AbortController();
  const wait = () =>
    setTimeout(() => silence.abort(new HubUnreachable("no byte came in time")), client.patience.silence);
  let timer = wait();
  try {
    const either = AbortSignal.any([signal, silence.signal]);
    const answer = await client.open(task.id, task.commit, task.file.path, file.size, either);
    // A store that does not know ranges sends all of it.
    if (answer.status !== 206) await file.restart();
    else if (!continues(answer, file.size)) throw new HubUnreachable("the answer begins at another byte");
    if (answer.body === null) throw new HubUnreachable("the answer is empty");
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw new HubUnreachable(reason(error), { cause: error });
      });
      if (done) break;
      clearTimeout(timer);
      timer = wait();
      await file.append(value);
      if (file.size > task.file.size) return;
    }
    if (file.size < task.file.size) throw new HubUnreachable("the connection broke off");
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

function continues(answer: Response, from: number): boolean {
  return (answer.headers.get("content-range") ?? "").startsWith(`bytes ${from}-`);
}

function wrongBytes(client: HubClient, { id, file }: BlobTask): TemporaError {
  return new TemporaError(`What was downloaded as ${file.path} of ${id} is not what the hub lists: its hash differs`, {
    where: { file: `${client.settings.endpoint}/${id}` },
    remedy: "Try again; where it stays so, a proxy or a mirror (HF_ENDPOINT) changes or truncates files.",
  });
}

/** The bytes so far, and their hash. */
class PartialFile {
  size = 0;
  #hash: Hash;
  #open = true;

  private constructor(
    private readonly handle: FileHandle,
    private readonly file: HubFile,
    private readonly onBytes: (count: number) => void,
  ) {
    this.#hash = newHash(file);
  }

  static async open(path: string, file: HubFile, onBytes: (count: number) => void): Promise<PartialFile> {
    let handle: FileHandle | undefined;
    try {
      await mkdir(dirname(path), { recursive: true });
      // Reads and writes, and makes the file without emptying it.
      handle = await open(path, constants.O_RDWR | constants.O_CREAT);
      const { size } = await handle.stat();
      const partial = new PartialFile(handle, file, onBytes);
      if (size > file.size) await handle.truncate(0);
      else await partial.#readAgain(size);
      return partial;
    } catch (error) {
      await handle?.close();
      throw fileError(error, "Cannot keep the model's file", path);
    }
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      // At its place rather than at the end: a second writer, if the lock failed, writes the same bytes there.
      const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, this.size + done);
      done += bytesWritten;
    }
    this.#take(bytes);
  }

  async restart(): Promise<void> {
    if (this.size === 0) return;
    await this.handle.truncate(0);
    this.onBytes(-this.size);
    this.size = 0;
    this.#hash = newHash(this.file);
  }

  async isRight(): Promise<boolean> {
    const { size } = await this.handle.stat();
    return this.size === this.file.size && size === this.size && this.#hash.digest("hex") === this.file.etag;
  }

  sync(): Promise<void> {
    return this.handle.sync();
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.handle.close();
  }

  async #readAgain(size: number): Promise<void> {
    const buffer = Buffer.allocUnsafe(1 << 20);
    while (this.size < size) {
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, this.size);
      if (bytesRead === 0) break;
      this.#take(buffer.subarray(0, bytesRead));
    }
  }

  #take(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.size += bytes.length;
    this.onBytes(bytes.length);
  }
}

/** The hub names large files by SHA-256, small ones as git does. */
function newHash({ etag, size }: HubFile): Hash {
  return etag.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}
