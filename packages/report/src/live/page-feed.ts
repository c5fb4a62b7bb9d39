import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Run } from "../run-folder.ts";
import { type PageContent, pageContent, renderPage } from "../write-report.ts";
import { emptyRun, readLiveRun, runName } from "./live-run.ts";
import type { ProgressLog } from "./progress-log.ts";
import { settingDifferences, sideBySide } from "./side-by-side.ts";
import { statusHtml } from "./status.ts";

/** What a page is told: the whole content, its charts alone, how far the stages are, or that nothing more will come. */
export type PageEvent = { name: "page" | "charts" | "status" | "end"; data: unknown };

export interface FeedOptions {
  /** Run folders; those that are not there yet may come. */
  folders: readonly string[];
  /** Of the run that goes on in this process; null: the files are all that is known. */
  progress: ProgressLog | null;
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
  /** Where runs of other processes stand, by their events. */
  #stages: string[] = [];
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
      listener(this.#status());
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
      this.#tell({ name: "status", data: { html: statusHtml([], [`cannot be read now: ${what}`]) } });
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
    this.#tell(this.#status());
  }

  #tell(event: PageEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #status(): PageEvent {
    const { progress } = this.#options;
    const html =
      progress === null
        ? statusHtml([], this.#stages)
        : statusHtml(progress.stages(), progress.notes.slice(-1), process.memoryUsage.rss());
    return { name: "status", data: { html } };
  }

  async #content(): Promise<PageContent> {
    const { folders } = this.#options;
    const read = await Promise.all(folders.map(readLiveRun));
    const runs = read.filter((run) => run !== null);
    this.#stages = runs.flatMap(stageOf);
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
function stageOf({ folder, result, events }: Run): string[] {
  const last = events.findLastIndex(({ event }) => event === "stage");
  const stage = events[last];
  if (result.status === "finished" || stage?.event !== "stage") return [];
  const steps = events.length - last - 1;
  const place = stage.strategy === null ? "" : `${stage.strategy} ${stage.iteration} · `;
  return [`${runName(folder)}: ${place}${stage.label}${steps === 0 ? "" : `, ${steps} steps`}`];
}
