import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** A repository of the test's hub: files by path; those of `large` bytes and more lie in a store of another origin. */
export interface HubRepository {
  /** By commit (40 hex digits), then by path. */
  commits: Record<string, Record<string, Uint8Array>>;
  /** Commits by branch or tag. */
  refs: Record<string, string>;
  /** Who does not send it is not shown the repository. */
  token?: string;
  /** Files are refused to everybody. */
  gated?: boolean;
}

export interface HubRequest {
  method: string;
  /** Path and query. */
  url: string;
  /** "store" for the other origin. */
  at: "hub" | "store";
  authorization: string | undefined;
  range: string | undefined;
}

/** What the store does to a file, by its path. */
export interface HubFaults {
  /** Sends only so many bytes of an answer, then breaks off, or with `stall` falls silent; for the first `times` answers. */
  cut?: { after: number; times: number; stall?: boolean };
  /** Sends other bytes of the same length, for the first `times` answers. */
  corrupt?: { times: number };
  ignoreRanges?: boolean;
}

export interface TestHub {
  url: string;
  requests: HubRequest[];
  /** Requests for the content of files, by path. */
  downloads(): string[];
  repositories: Record<string, HubRepository>;
  faults: Record<string, HubFaults>;
  /** The next so many answers of the hub are "503 Service Unavailable". */
  busy: number;
  stop(): Promise<void>;
}

const large = 1000;
const pageSize = 3;

/** A hub on loopback, with the endpoints that a download uses, as huggingface.co answers them. It ends with the test. */
export async function startHub(repositories: Record<string, HubRepository>): Promise<TestHub> {
  const requests: HubRequest[] = [];
  const seen = (request: IncomingMessage, at: HubRequest["at"]) => {
    const { method = "", url = "", headers } = request;
    requests.push({ method, url, at, authorization: headers.authorization, range: headers.range });
  };
  const store = createServer((request, response) => {
    seen(request, "store");
    const [, sha256, path = ""] = /^\/([0-9a-f]{64})\/(.*)$/.exec(request.url ?? "") ?? [];
    const content = contents(hub.repositories).find((bytes) => hash("sha256", bytes) === sha256);
    if (content === undefined) response.writeHead(404).end();
    else send(request, response, content, hub.faults[decodeURIComponent(path)] ?? {});
  });
  const storeUrl = await listen(store);
  const server = createServer((request, response) => {
    seen(request, "hub");
    if (hub.busy > 0) {
      hub.busy -= 1;
      response.writeHead(503).end();
    } else {
      answer(request, response, hub, storeUrl);
    }
  });
  const url = await listen(server);
  const hub: TestHub = {
    url,
    requests,
    downloads: () =>
      requests
        .filter(({ at, method, url: asked }) => method === "GET" && (at === "store" || asked.includes("/resolve/")))
        .filter(({ at, url: asked }) => at === "store" || !isLarge(repositories, asked))
        .map(({ url: asked }) => decodeURIComponent(asked.replace(/^.*\/(?:resolve\/)?[0-9a-f]{40,64}\//, ""))),
    repositories,
    faults: {},
    busy: 0,
    stop: async () => {
      await Promise.all([close(server), close(store)]);
    },
  };
  onTestFinished(hub.stop);
  return hub;
}

function answer(request: IncomingMessage, response: ServerResponse, hub: TestHub, storeUrl: string): void {
  const path = decodeURIComponent(new URL(request.url ?? "", hub.url).pathname);
  const [, api, id = "", what = "", rest = ""] =
    /^\/(api\/models\/)?([^/]+\/[^/]+)\/(revision|tree|resolve)\/(.+)$/.exec(path) ?? [];
  const repository = hub.repositories[id];
  if (repository === undefined || !allowed(request, repository)) {
    refuse(response, 401, "RepoNotFound");
    return;
  }
  const [revision, file] = splitRevision(repository, rest);
  const commit = repository.refs[revision] ?? (revision in repository.commits ? revision : undefined);
  if (commit === undefined) refuse(response, 404, "RevisionNotFound");
  else if (api === undefined) resolveFile(request, response, hub, { repository, commit, file, storeUrl });
  else if (what === "revision") json(response, modelInfo(id, commit, repository));
  else tree(request, response, hub.url, repository.commits[commit] ?? {});
}

function modelInfo(id: string, sha: string, { commits, gated }: HubRepository): object {
  const siblings = Object.keys(commits[sha] ?? {}).map((rfilename) => ({ rfilename }));
  const state = { private: false, gated: gated === true ? "manual" : false, downloads: 0, likes: 0 };
  return { _id: "1", id, sha, lastModified: "2026-01-01T00:00:00.000Z", siblings, ...state };
}

interface Asked {
  repository: HubRepository;
  commit: string;
  file: string;
  storeUrl: string;
}

function resolveFile(request: IncomingMessage, response: ServerResponse, hub: TestHub, asked: Asked): void {
  const { repository, commit, file, storeUrl } = asked;
  const content = repository.commits[commit]?.[file];
  response.setHeader("x-repo-commit", commit);
  if (repository.gated === true) {
    refuse(response, request.headers.authorization === undefined ? 401 : 403, "GatedRepo");
  } else if (content === undefined) {
    refuse(response, 404, "EntryNotFound");
  } else if (content.length >= large) {
    const sha256 = hash("sha256", content);
    const linked = { "x-linked-etag": `"${sha256}"`, "x-linked-size": `${content.length}` };
    response.writeHead(302, { ...linked, location: `${storeUrl}/${sha256}/${encodeURIComponent(file)}` }).end();
  } else {
    response.setHeader("etag", `"${gitHash(content)}"`);
    send(request, response, content, hub.faults[file] ?? {});
  }
}

/** Like the hub's: pages, told of by a Link header; folders among the files. */
function tree(
  request: IncomingMessage,
  response: ServerResponse,
  base: string,
  files: Record<string, Uint8Array>,
): void {
  const url = new URL(request.url ?? "", base);
  const page = Number(url.searchParams.get("cursor") ?? 0);
  const folders = new Set(
    Object.keys(files).flatMap((path) => (path.includes("/") ? [path.replace(/\/[^/]*$/, "")] : [])),
  );
  const entries = [
    ...[...folders].map((path) => ({ type: "directory", path, oid: gitHash(Buffer.from(path)), size: 0 })),
    ...Object.entries(files).map(([path, content]) => ({
      type: "file",
      path,
      oid: gitHash(content),
      size: content.length,
      ...(content.length >= large
        ? { lfs: { oid: hash("sha256", content), size: content.length, pointerSize: 130 } }
        : {}),
    })),
  ];
  const next = (page + 1) * pageSize;
  if (next < entries.length) {
    url.searchParams.set("cursor", `${page + 1}`);
    response.setHeader("link", `<${url.href}>; rel="next"`);
  }
  json(response, entries.slice(page * pageSize, next));
}

function send(request: IncomingMessage, response: ServerResponse, whole: Uint8Array, faults: HubFaults): void {
  const from = faults.ignoreRanges === true ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const start = Number(from?.[1] ?? 0);
  const end = from === null || from[2] === "" ? whole.length : Number(from[2]) + 1;
  let body = Buffer.from(whole.subarray(start, end));
  if (faults.corrupt !== undefined && faults.corrupt.times > 0) {
    faults.corrupt.times -= 1;
    body = Buffer.from(body.map((byte) => byte ^ 1));
  }
  response.setHeader("content-length", body.length);
  if (from === null) response.writeHead(200);
  else response.writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${whole.length}` });
  const { cut } = faults;
  if (request.method === "HEAD") response.end();
  else if (cut === undefined || cut.times === 0) response.end(body);
  else {
    cut.times -= 1;
    response.write(body.subarray(0, cut.after), () => {
      if (cut.stall !== true) response.destroy();
    });
  }
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { "x-error-code": code, "x-error-message": `${code} as the hub words it` }).end();
}

function json(response: ServerResponse, value: unknown): void {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(value));
}

function allowed(request: IncomingMessage, { token }: HubRepository): boolean {
  return token === undefined || request.headers.authorization === `Bearer ${token}`;
}

/** "refs/pr/1/config.json": a revision may hold slashes, too. */
function splitRevision({ refs, commits }: HubRepository, rest: string): [revision: string, file: string] {
  const known = [...Object.keys(refs), ...Object.keys(commits)].find(
    (name) => rest === name || rest.startsWith(`${name}/`),
  );
  const revision = known ?? rest.split("/")[0] ?? "";
  return [revision, rest.slice(revision.length + 1)];
}

function contents(repositories: Record<string, HubRepository>): Uint8Array[] {
  return Object.values(repositories).flatMap(({ commits }) =>
    Object.values(commits).flatMap((files) => Object.values(files)),
  );
}

function isLarge(repositories: Record<string, HubRepository>, url: string): boolean {
  const [, id = "", rest = ""] = /^\/([^/]+\/[^/]+)\/resolve\/(.+)$/.exec(decodeURIComponent(url)) ?? [];
  const repository = repositories[id];
  if (repository === undefined) return false;
  const [revision, file] = splitRevision(repository, rest);
  return (repository.commits[repository.refs[revision] ?? revision]?.[file]?.length ?? 0) >= large;
}

function hash(algorithm: string, bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest("hex");
}

function gitHash(bytes: Uint8Array): string {
  return hash("sha1", Buffer.concat([Buffer.from(`blob ${bytes.length}\0`), bytes]));
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function close(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((done) => {
    server.close(() => done());
  });
}
