/** Counts what a target's code comes to: modules are given a call in each function and each branch as they are loaded. */
import { readFileSync } from "node:fs";
import { type NodePath, type PluginObj, transformSync, types } from "@babel/core";

type Kind = "functions" | "branches";

/** Of a file, a digit for each function and each branch: 1 where it was come to. */
export type Coverage = Record<string, Record<Kind, string>>;

const hit = "temporaFuzzHit";
const points: { file: string; kind: Kind }[] = [];
const seen = new Uint8Array(1 << 17);
const instrumented = new Set<string>();
let fresh = 0;
let left = Infinity;

Object.defineProperty(globalThis, hit, {
  value: (point: number) => {
    if (seen[point] === 0) {
      seen[point] = 1;
      fresh++;
    }
    if (--left < 0) throw new Error("more steps than are allowed");
  },
});

/** What follows may take so many steps; it throws from then on. */
export function allow(steps: number): void {
  left = steps;
}

export const isExhausted = () => left < 0;

/** How many functions and branches were come to for the first time since it was asked last. */
export function takeFresh(): number {
  const count = fresh;
  fresh = 0;
  return count;
}

function plugin(file: string): PluginObj {
  const point = (kind: Kind): types.CallExpression => {
    points.push({ file, kind });
    return types.callExpression(types.identifier(hit), [types.numericLiteral(points.length - 1)]);
  };
  const statement = () => types.expressionStatement(point("branches"));
  const enterBlock = (path: NodePath<types.Statement>) =>
    path.replaceWith(types.blockStatement([statement(), path.node]));
  const enterValue = (path: NodePath<types.Expression>) =>
    path.replaceWith(types.sequenceExpression([point("branches"), path.node]));
  return {
    visitor: {
      Function: {
        exit(path: NodePath<types.Function>) {
          path.ensureBlock();
          (path.node.body as types.BlockStatement).body.unshift(types.expressionStatement(point("functions")));
        },
      },
      IfStatement: {
        exit(path) {
          enterBlock(path.get("consequent"));
          if (path.node.alternate) enterBlock(path.get("alternate") as NodePath<types.Statement>);
          else path.node.alternate = types.blockStatement([statement()]);
        },
      },
      Loop: { exit: (path) => void enterBlock(path.get("body") as NodePath<types.Statement>) },
      SwitchCase: { exit: (path) => void path.node.consequent.unshift(statement()) },
      CatchClause: { exit: (path) => void path.node.body.body.unshift(statement()) },
      ConditionalExpression: {
        exit(path) {
          enterValue(path.get("consequent"));
          enterValue(path.get("alternate"));
        },
      },
      LogicalExpression: { exit: (path) => void enterValue(path.get("right")) },
    },
  };
}

function transform(file: string): string {
  const text = readFileSync(file, "utf8");
  const plain = file.endsWith(".ts") ? new Bun.Transpiler({ loader: "ts" }).transformSync(text) : text;
  instrumented.add(file);
  const options = { babelrc: false, configFile: false, compact: false, plugins: [plugin(file)] };
  return transformSync(plain, options)?.code ?? plain;
}

/** From here on these files are loaded with the calls. */
export function instrument(files: readonly string[]): void {
  if (files.length === 0) return;
  const escaped = files.map((file) => file.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  Bun.plugin({
    name: "fuzz coverage",
    setup(build) {
      build.onLoad({ filter: new RegExp(`^(${escaped.join("|")})$`) }, ({ path }) => ({
        contents: transform(path),
        loader: "js",
      }));
    },
  });
}

/** What was come to in these files; one that was never loaded counts too. */
export function coverage(files: readonly string[]): Coverage {
  for (const file of files) if (!instrumented.has(file)) transform(file);
  const found: Coverage = {};
  for (const [k, { file, kind }] of points.entries()) {
    found[file] ??= { functions: "", branches: "" };
    found[file][kind] += seen[k];
  }
  return found;
}

/** What either of two processes came to. */
export function united(a: Coverage, b: Coverage): Coverage {
  const either = (x: string, y: string) =>
    Array.from(x, (digit, k) => (digit === "1" || y[k] === "1" ? "1" : "0")).join("");
  const both = { ...a };
  for (const [file, { functions, branches }] of Object.entries(b)) {
    const other = a[file];
    both[file] = {
      functions: other === undefined ? functions : either(functions, other.functions),
      branches: other === undefined ? branches : either(branches, other.branches),
    };
  }
  return both;
}

/** "12 of 13 functions and 140 of 150 branches". */
export function inWords(found: Coverage): string {
  const part = (kind: Kind) => {
    const digits = Object.values(found)
      .map((file) => file[kind])
      .join("");
    return `${digits.replaceAll("0", "").length} of ${digits.length} ${kind}`;
  };
  return `${part("functions")} and ${part("branches")}`;
}
