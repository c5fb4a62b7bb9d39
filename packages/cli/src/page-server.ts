import type { Server } from "node:http";
import { createAdaptorServer } from "@hono/node-server";
import { TemporaError } from "@tempora/errors";
import type { PageEvent, PageFeed } from "@tempora/report";
import { foreignName, isLoopback, listen } from "@tempora/server";
import { type Command, Option } from "commander";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { wholeNumber } from "./options.ts";

export interface PageFlags {
  host: string;
  port?: number;
}

/** Tried first where no port is named, so that the page of a run that is resumed has the address it had. */
const usualPort = 8321;

export function addPageOptions(command: Command): Command {
  return command
    .option(
      "--host <address>",
      "where the page listens; 0.0.0.0 for every machine that can reach this one",
      "127.0.0.1",
    )
    .addOption(
      new Option(
        "--port <number>",
        `of the page; 0 takes any that is free (default: ${usualPort}, else any)`,
      ).argParser(wholeNumber(0, 65_535)),
    );
}

/** Milliseconds after which a page that lost its run looks for it again; browsers take three seconds by themselves. */
const lookAgain = 400;

export interface PageServer {
  /** "http://127.0.0.1:8321" */
  url: string;
  /** Tells the open pages how it ended, and stops. */
  close(): Promise<void>;
}

/** Serves a feed's page. @throws TemporaError when the named port cannot be taken */
export async function servePage(feed: PageFeed, { host, port }: PageFlags): Promise<PageServer> {
  const server = createAdaptorServer({ fetch: pageApp(feed, isLoopback(host)).fetch }) as Server;
  const url = await listen(server, host, port ?? usualPort).catch((error: unknown) => {
    if (port === undefined && error instanceof TemporaError) return listen(server, host, 0);
    throw error;
  });
  return {
    url,
    async close() {
      await feed.close();
      await closed(server);
    },
  };
}

/** Lets what was sent last arrive; whoever does not read it keeps nothing open. */
async function closed(server: Server): Promise<void> {
  const all = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  const late = setTimeout(() => server.closeAllConnections(), 500);
  await all;
  clearInterval(idle);
  clearTimeout(late);
}

function pageApp(feed: PageFeed, local: boolean): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    if (local && foreignName(c.req.header("host") ?? "") !== null)
      return c.text("This page is its own machine's.", 403);
    await next();
  });
  app.get("/", async (c) => c.html(await feed.html()));
  app.get("/events", (c) =>
    streamSSE(c, async (stream) => {
      const { promise: ended, resolve: end } = Promise.withResolvers<void>();
      stream.onAbort(end);
      // Said once, it holds for the page: one that lost its run looks for it this often, and misses no short one.
      let sent: Promise<unknown> = stream.writeSSE({ event: "hello", data: "", retry: lookAgain });
      const leave = feed.subscribe(({ name, data }: PageEvent) => {
        sent = sent.then(() => stream.writeSSE({ event: name, data: JSON.stringify(data) }));
        if (name === "end") end();
      });
      await ended;
      leave();
      if (!stream.aborted) await sent;
    }),
  );
  return app;
}
