import { posix } from "node:path";
import { isCpp, type SourceFile } from "./files.ts";

/** The packages, lowest first: one may import those before it. */
const order = [
  "errors",
  "testing",
  "engine",
  "models",
  "text",
  "preferences",
  "world",
  "training",
  "logging",
  "run",
  "report",
  "server",
  "cli",
];

/** The rooms of the C++ side, lowest first: a file may include of its own room and of those before it. */
const nativeOrder = ["forest", "backend", "engine", "addon"];

/** Packages that may import less than their place allows; their tests may use all that lies below. */
const only: Record<string, readonly string[]> = {
  text: ["errors", "testing"],
  preferences: ["errors"],
  world: ["errors", "text", "preferences"],
  training: ["errors", "engine"],
  logging: ["errors", "testing", "text"],
  server: ["errors", "testing", "engine", "text", "training"],
};

/** Folders within a package, lowest first: one may import those before it. Files beside them may import all of them. */
const rooms: Record<string, readonly string[]> = {
  run: ["results", "settings", "store", "models", "sources", "sampling", "judges", "stages", "estimate", "loop"],
};

function allowedImports(name: string, isTest: boolean): readonly string[] {
  const below = order.slice(0, order.indexOf(name));
  return isTest ? below : (only[name] ?? below);
}

/** Against the order of a package's rooms. Tests may look up: they try a room with what is built on it. */
function roomProblem(name: string, path: string, resolved: string): string | null {
  const list = rooms[name];
  if (list === undefined || path.endsWith(".test.ts")) return null;
  const roomOf = (file: string) => file.slice(`packages/${name}/src/`.length).split("/").slice(0, -1)[0];
  const [own, other] = [roomOf(path), roomOf(resolved)];
  if (own === undefined || own === other) return null;
  for (const room of [own, other]) {
    if (room !== undefined && !list.includes(room)) return `lies in ${room}/, a room whose place is unknown`;
  }
  if (other !== undefined && list.indexOf(other) < list.indexOf(own)) return null;
  return `lies above ${own}/ in packages/${name}`;
}

interface Reference {
  target: string;
  line: number;
}

function references(text: string, pattern: RegExp): Reference[] {
  return [...text.matchAll(pattern)].map((match) => ({
    target: match[1] ?? match[2] ?? "",
    line: text.slice(0, match.index).split("\n").length,
  }));
}

const tsImport =
  /^[ \t]*(?:import|export)\b[^"';=()]*?\bfrom\s*["']([^"'\n]+)["']|(?:^[ \t]*import\s*|\bimport\(\s*)["']([^"'\n]+)["']/gm;
const cppInclude = /^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]/gm;

function packageProblem(name: string, path: string, target: string): string | null {
  if (target.startsWith(".")) {
    const resolved = posix.join(posix.dirname(path), target);
    if (!resolved.startsWith(`packages/${name}/`)) return "leaves its package; import it by name";
    return roomProblem(name, path, resolved);
  }
  const imported = /^@tempora\/([^/]+)/.exec(target)?.[1];
  if (imported === undefined || allowedImports(name, path.endsWith(".test.ts")).includes(imported)) return null;
  return imported === name ? "is its own package" : `may not be imported by ${name}`;
}

function tsProblem(path: string, target: string): string | null {
  const name = /^packages\/([^/]+)\//.exec(path)?.[1];
  if (name !== undefined) {
    return order.includes(name) ? packageProblem(name, path, target) : "is in a package whose place is unknown";
  }
  const isSetup = path === "scripts/setup.ts" || (path.startsWith("scripts/setup/") && !path.endsWith(".test.ts"));
  if (isSetup && !/^(node:|bun:|\.)/.test(target))
    return "may not be imported by the set-up: it runs before the install";
  return null;
}

function cppProblem(path: string, target: string): string | null {
  if (/^(napi|node_api|js_native_api)\b/.test(target) && !path.startsWith("native/src/addon/")) {
    return "may be included by native/src/addon only";
  }
  const resolved =
    target.startsWith(".") || !target.includes("/") ? posix.join(posix.dirname(path), target) : `native/src/${target}`;
  const room = (file: string) => nativeOrder.indexOf(/^native\/src\/([^/]+)\//.exec(file)?.[1] ?? "");
  if (path.startsWith("native/src/") && room(path) < 0) return "is in a room whose place is unknown";
  if (room(path) >= 0 && room(resolved) > room(path)) {
    return `lies above ${nativeOrder[room(path)]}, which may not include it`;
  }
  const aboveBackends = room(path) > nativeOrder.indexOf("backend");
  if (aboveBackends && resolved.startsWith("native/src/backend/") && resolved !== "native/src/backend/backend.h") {
    return "is a backend's own: backend.h is all that those above know";
  }
  const device = /^native\/src\/backend\/(cpu|cuda)\//;
  const own = device.exec(path)?.[1];
  const other = device.exec(resolved)?.[1];
  if (own !== undefined && other !== undefined && own !== other) return "is another backend's";
  return null;
}

/** Imports and includes against the direction of the architecture. */
export function importProblems(files: readonly SourceFile[]): string[] {
  const problems: string[] = [];
  for (const { path, text } of files) {
    const cpp = isCpp(path);
    for (const { target, line } of references(text, cpp ? cppInclude : tsImport)) {
      const problem = cpp ? cppProblem(path, target) : tsProblem(path, target);
      if (problem !== null) problems.push(`${path}:${line}: ${target} ${problem}`);
    }
  }
  return problems;
}
