import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Run } from "../run-folder.ts";
import { type PageContent, pageContent, renderPage } from "../write-report.ts";
import { emptyRun, readLiveRun, readLiveState, runName } from "./live-run.ts";
import { settingDifferences, sideBySide } from "./side-by-side.ts";
import { noteHtml, statusHtml } from "./status.ts";

/** What a page is told: the whole content, its charts alone, how far the stages are, or that nothing more will come. */
export type PageEvent = { name: "page" | "charts" | "status" | "end"; data: unknown };

export interface FeedOptions {
  /** Run folders; those that are not there yet may come. */
  folders: readonly string[];
  /** Milliseconds between two looks at the files. */
  interval?: number;
}

type Listener = (event: PageEvent) => void;

/** Follows run folders for the pages that are open on them. Nothing is read while there is none. */
export class PageFeed {
  readonly #options: FeedOptions;
  readonly #listeners = new Set<Listener>();
  #timer: NodeJS.Timeout | null = null;
  #seen = "";
  /** Where unfinished runs stood when they last wrote, by their events. */
  #stages = new Map<string, string>();
  #shown: PageContent | null = null;
  #busy: Promise<void> = Promise.resolve();

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** The page as it is now, which will listen. */
  async html(): Promise<string> {
    return renderPage(await this.#content(), { live: true });
  }

  /** Sends the whole content first, then what changes. Returns how to stop. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    this.#after(async () => {
      this.#shown = await this.#content();
      listener({ name: "page", data: this.#shown });
      listener(await this.#status());
    });
    this.#timer ??= setInterval(() => this.#after(() => this.#look()), this.#options.interval ?? 1000);
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
  }

  /** A last look at the files, and the word that it was the last. */
  async close(): Promise<void> {
    if (this.#listeners.size > 0) this.#after(() => this.#look());
    await this.#busy;
    this.#tell({ name: "end", data: null });
    this.#stop();
  }

  #stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** One look after the other. A file that is being replaced is read at the next look. */
  #after(work: () => Promise<void>): void {
    this.#busy = this.#busy.then(work).catch((error: unknown) => {
      this.#seen = "";
      const what = error instanceof Error ? error.message : String(error);
      this.#tell({ name: "status", data: { html: noteHtml(`cannot be read now: ${what}`) } });
    });
  }

  async #look(): Promise<void> {
    const seen = await this.#signature();
    if (seen !== this.#seen) {
      this.#seen = seen;
      const before = this.#shown;
      const content = await this.#content();
      this.#shown = content;
      const same = before !== null && before.body === content.body && before.pairs.length === content.pairs.length;
      this.#tell(same ? { name: "charts", data: { charts: content.charts } } : { name: "page", data: content });
    }
    this.#tell(await this.#status());
  }

  #tell(event: PageEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Of every run what it does now; of one that was stopped, in which stage. */
  async #status(): Promise<PageEvent> {
    const { folders } = this.#options;
    const shown = folders.map(async (folder) => {
      const name = folders.length > 1 ? runName(folder) : "";
      const state = await readLiveState(folder);
      if (state !== null) return statusHtml(name, state);
      const stage = this.#stages.get(folder);
      return stage === undefined ? "" : noteHtml(`${name === "" ? "" : `${name}: `}stopped in ${stage}`);
    });
    return { name: "status", data: { html: (await Promise.all(shown)).join("") } };
  }

  async #content(): Promise<PageContent> {
    const { folders } = this.#options;
    const read = await Promise.all(folders.map(readLiveRun));
    const runs = read.filter((run) => run !== null);
    this.#stages = new Map(runs.flatMap(stageOf));
    if (runs.length === 0) return pageContent(emptyRun(folders[0] ?? ""));
    return pageContent(sideBySide(runs), runs.length > 1 ? settingDifferences(runs) : null);
  }

  /** Pairs are written before the stage that first reads them is told to the events. */
  async #signature(): Promise<string> {
    const files = this.#options.folders.flatMap((folder) => [join(folder, "run.json"), join(folder, "events.jsonl")]);
    const states = files.map((file) =>
      stat(file).then(
        ({ size, mtimeMs, ino }) => `${size} ${mtimeMs} ${ino}`,
        () => "",
      ),
    );
    return (await Promise.all(states)).join("\n");
  }
}

/** The stage that an unfinished run was in when it last wrote. */
function stageOf({ folder, result, events }: Run): [folder: string, stage: string][] {
  const last = events.findLastIndex(({ event }) => event === "stage");
  const stage = events[last];
  if (result.status !== "running" || stage?.event !== "stage") return [];
  const steps = events.length - last - 1;
  const place = stage.strategy === null ? "" : `${stage.strategy} ${stage.iteration} · `;
  return [[folder, `${place}${stage.label}${steps === 0 ? "" : `, ${steps} steps`}`]];
}
