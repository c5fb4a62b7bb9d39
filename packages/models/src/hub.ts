import { existsSync } from "node:fs";
import { mkdir, statfs } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileError, isThere, TemporaError } from "@tempora/errors";
import { type FolderLock, tryLockFolder } from "./folder-lock.ts";
import { downloadBlob, partialFile } from "./hub-blob.ts";
import { HubCache, isCommit, sizeOf } from "./hub-cache.ts";
import { HubClient, type HubFile, HubRefusal, type Patience, usualPatience } from "./hub-client.ts";
import { hubError, offlineError } from "./hub-errors.ts";
import { type HubName, hubNameForm, parseHubName } from "./hub-name.ts";
import { type Environment, type HubSettings, readHubSettings } from "./hub-settings.ts";
import { companionFiles, replacedFolder } from "./layout.ts";
import { indexFile, shardsOf, singleFile } from "./weights.ts";

export interface LocateOptions {
  signal?: AbortSignal | undefined;
  /** Bytes that are there, of all bytes of the model. Called only when something is downloaded. */
  onProgress?(done: number, total: number): void;
  /** Told what a user should know: that the cache stands in for the hub, that another process is downloading. */
  note?(text: string): void;
  /** Where HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE are read; default: the process's. */
  environment?: Environment;
  patience?: Patience;
}

/** Files downloaded at once. */
const parallel = 4;

/** How often a held lock is tried again, in milliseconds. */
const lockPause = 500;

/** Beside layout's: what a checkpoint holds that is neither weights nor tokenizer. */
const configFiles = ["config.json", "tempora_judge.json"];

/**
 * The path of a model: the given one where it exists, else what `org/name[@revision]` or `org/name/file.gguf[@revision]` names
 * on the hub, downloaded into the cache that Python's huggingface_hub shares. Only what is needed is fetched; what is in the
 * cache is not fetched again; an interrupted download goes on where it was.
 * @throws TemporaError for a name that is neither, a gated or missing model, no network, a full disk, damaged bytes.
 */
export async function locateModel(name: string, options: LocateOptions = {}): Promise<string> {
  // A folder whose saving was cut off is missing for a reason that openCheckpoint tells.
  if (isThere(name, "Cannot read the model") || existsSync(replacedFolder(name))) return name;
  const model = parseHubName(name);
  if (model === null) {
    throw new TemporaError("There is no model: this is neither a path that exists nor the name of one on the hub", {
      where: { file: name },
      remedy: `Check the path, or name a model as ${hubNameForm}.`,
    });
  }
  const settings = await readHubSettings(options.environment);
  const snapshot = await new HubModel(model, settings, options).locate();
  return model.file === null ? snapshot : join(snapshot, model.file);
}

class HubModel {
  readonly #cache: HubCache;
  readonly #client: HubClient;

  constructor(
    private readonly name: HubName,
    private readonly settings: HubSettings,
    private readonly options: LocateOptions,
  ) {
    this.#cache = new HubCache(settings.cache, name.id);
    this.#client = new HubClient(settings, options.patience ?? usualPatience, options.signal);
  }

  /** The folder of the snapshot, whole. */
  async locate(): Promise<string> {
    const { name, settings, options } = this;
    const cached = await this.#cached();
    if (settings.offline) {
      if (cached === null) throw await offlineError(name, this.#cache);
      return this.#cache.snapshot(cached);
    }
    try {
      return this.#cache.snapshot(await this.#fetch());
    } catch (error) {
      options.signal?.throwIfAborted();
      const shown = await hubError(error, name, settings, this.#cache);
      const gone = error instanceof HubRefusal && error.code === "RevisionNotFound";
      // Only what the hub says is made up for by the cache; a fault of this machine or of the model is not.
      if (cached === null || gone || shown === error) throw shown;
      options.note?.(`${(shown as TemporaError).what}; ${name.id} is taken from the cache, at commit ${cached}`);
      return this.#cache.snapshot(cached);
    }
  }

  /** The commit that the cache has of this revision, if its files are there. */
  async #cached(): Promise<string | null> {
    const commit = await this.#cache.commit(this.name.revision);
    return commit !== null && (await this.#cache.isUsable(commit, this.name.file)) ? commit : null;
  }

  async #fetch(): Promise<string> {
    const { id, revision } = this.name;
    const commit = isCommit(revision) ? revision : await this.#client.commit(id, revision);
    const files = await this.#client.files(id, commit);
    const wanted = this.#wanted(files);
    if (!(await this.#complete(commit, wanted)) || wanted.some(isIndex)) await this.#download(commit, files, wanted);
    await this.#cache.remember(revision, commit);
    return commit;
  }

  /** What of a repository makes the model; of sharded weights the index, which names the rest. */
  #wanted(files: readonly HubFile[]): HubFile[] {
    const { id, file } = this.name;
    const byPath = new Map(files.map((one) => [one.path, one]));
    const ggufs = files.map(({ path }) => path).filter((path) => path.toLowerCase().endsWith(".gguf"));
    if (file !== null) {
      const found = byPath.get(file);
      if (found !== undefined) return [found];
      throw this.#lacks(`has no file ${file}`, ggufs.length === 0 ? "It has no GGUF file." : `It has ${some(ggufs)}.`);
    }
    const weights = byPath.get(singleFile) ?? byPath.get(indexFile);
    if (weights === undefined && ggufs.length > 0) {
      throw this.#lacks(`holds GGUF files only: ${some(ggufs)}`, `Name one of them, as ${id}/${ggufs[0]}.`);
    }
    if (weights === undefined || !byPath.has("config.json")) {
      const missing = weights === undefined ? "weights as safetensors" : "config.json";
      throw this.#lacks(
        `has no ${missing}: ${some(files.map(({ path }) => path))}`,
        "Name a whole checkpoint; pickled weights must be opened in transformers and saved again, adapters merged.",
      );
    }
    const others = [...configFiles, ...companionFiles].flatMap((path) => byPath.get(path) ?? []);
    return [...others, weights];
  }

  async #complete(commit: string, files: readonly HubFile[]): Promise<boolean> {
    for (const file of files) {
      if (!(await this.#cache.has(commit, file))) return false;
    }
    return true;
  }

  async #download(commit: string, files: readonly HubFile[], wanted: readonly HubFile[]): Promise<void> {
    const all = [...wanted];
    if (wanted.some(isIndex)) {
      const index = wanted.filter(isIndex);
      // It is small, and decides what the rest is.
      if (!(await this.#complete(commit, index)))
        await this.#locked((signal) => this.#bring(commit, index, signal, () => undefined));
      all.push(...(await this.#shards(commit, files)));
    }
    if (await this.#complete(commit, all)) return;
    await this.#locked(async (signal) => {
      const total = all.reduce((sum, { size }) => sum + size, 0);
      let done = 0;
      await this.#bring(commit, all, signal, (count) => {
        done += count;
        this.options.onProgress?.(done, total);
      });
    });
  }

  async #shards(commit: string, files: readonly HubFile[]): Promise<HubFile[]> {
    const byPath = new Map(files.map((file) => [file.path, file]));
    return (await shardsOf(this.#cache.snapshot(commit))).map((shard) => {
      const file = byPath.get(shard);
      if (file !== undefined) return file;
      throw this.#lacks(`lacks the shard ${shard}, which its ${indexFile} names`, "Tell its authors.");
    });
  }

  /** Downloads what the cache lacks, then links all of it, the weights last. The repository is locked. */
  async #bring(
    commit: string,
    files: readonly HubFile[],
    stop: AbortSignal,
    onBytes: (count: number) => void,
  ): Promise<void> {
    const missing: HubFile[] = [];
    for (const file of files) {
      const there = (await this.#cache.has(commit, file)) || (await this.#cache.hasBlob(file));
      if (there) onBytes(file.size);
      // Equal files have one blob.
      else if (!missing.some(({ etag }) => etag === file.etag)) missing.push(file);
    }
    await this.#checkSpace(missing);
    const failed = new AbortController();
    const signal = AbortSignal.any([stop, failed.signal]);
    const queue = [...missing];
    const work = async () => {
      for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
        const blob = this.#cache.blob(file);
        await downloadBlob(this.#client, { id: this.name.id, commit, file, blob }, { signal, onBytes });
      }
    };
    const workers = Array.from({ length: parallel }, () =>
      work().catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    );
    const outcomes = await Promise.allSettled(workers);
    stop.throwIfAborted();
    if (outcomes.some(({ status }) => status === "rejected")) throw failed.signal.reason;
    for (const file of files) {
      if (!(await this.#cache.has(commit, file))) await this.#cache.link(commit, file);
    }
  }

  async #checkSpace(missing: readonly HubFile[]): Promise<void> {
    let needed = 0;
    for (const file of missing) needed += file.size - ((await sizeOf(partialFile(this.#cache.blob(file)))) ?? 0);
    if (needed <= 0) return;
    const { folder } = this.#cache;
    let free: number;
    try {
      await mkdir(folder, { recursive: true });
      const { bavail, bsize } = await statfs(folder);
      free = bavail * bsize;
    } catch (error) {
      throw fileError(error, "Cannot use the hub's cache", folder);
    }
    if (needed <= free) return;
    throw new TemporaError(`${this.name.id} needs ${gigabytes(needed)}, and the disk has ${gigabytes(free)} left`, {
      where: { file: folder },
      remedy: "Free some space, or name a cache on another disk by HF_HUB_CACHE.",
    });
  }

  /** Does the work while no other process downloads into this repository. */
  async #locked(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { signal, note } = this.options;
    const lost = new AbortController();
    let lock: FolderLock | null = null;
    for (let told = false; lock === null; ) {
      signal?.throwIfAborted();
      lock = await tryLockFolder(this.#cache.lockFolder, (reason) => lost.abort(reason));
      if (lock !== null) break;
      if (!told) note?.(`Another process downloads ${this.name.id}: waiting for it.`);
      told = true;
      await sleep(lockPause, undefined, { signal });
    }
    try {
      await work(signal === undefined ? lost.signal : AbortSignal.any([signal, lost.signal]));
    } finally {
      await lock.release();
    }
  }

  #lacks(what: string, remedy: string): TemporaError {
    const { id, revision } = this.name;
    return new TemporaError(`The model ${id} (${revision}) ${what}`, {
      where: { file: `${this.settings.endpoint}/${id}` },
      remedy,
    });
  }
}

function isIndex({ path }: HubFile): boolean {
  return basename(path) === indexFile;
}

function some(names: readonly string[]): string {
  return names.slice(0, 12).join(", ") + (names.length > 12 ? `, ... (${names.length})` : "");
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(bytes < 1e9 ? 3 : 1)} GB`;
}
