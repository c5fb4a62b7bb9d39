import { Template } from "@huggingface/jinja";

/**
 * Where @huggingface/jinja 0.5.11 is not Jinja, and templates in use notice: `strip`, `lstrip` and `rstrip` drop their
 * argument, white space is JavaScript's, `selectattr(name, "undefined")` finds nothing, and strftime_now tells the moment of
 * the call in the machine's language. The parsed template is rewritten so that it calls what stands here.
 */
export function repair(template: Template): void {
  const program = template.parsed as unknown as Node;
  rewrite(program);
  (program.body as Node[]).unshift(...(ownDate.parsed.body as unknown as Node[]));
}

/** Variables that a repaired template needs. @param formatNow Python's strftime of the date that the template is told. */
export function repairVariables(formatNow: (format: string) => string): Record<string, unknown> {
  return {
    [names.now]: formatNow,
    [names.strip]: (text: string, chars?: string) => stripEnd(stripStart(text, chars), chars),
    [names.lstrip]: stripStart,
    [names.rstrip]: stripEnd,
  };
}

type Node = { type: string } & Record<string, unknown>;

const names = {
  now: "tempora_now",
  strip: "tempora_strip",
  lstrip: "tempora_lstrip",
  rstrip: "tempora_rstrip",
} as const;

// A variable of the library's own cannot be given another value from outside.
const ownDate = new Template(`{% set strftime_now = ${names.now} %}`);

/** What Python's str.isspace is true for. */
const pythonSpace =
  "\t\n\v\f\r\u001c\u001d\u001e\u001f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" +
  "\u2028\u2029\u202f\u205f\u3000";

function stripStart(text: string, chars: string = pythonSpace): string {
  const points = Array.from(text);
  const from = points.findIndex((point) => !chars.includes(point));
  return from < 0 ? "" : points.slice(from).join("");
}

function stripEnd(text: string, chars: string = pythonSpace): string {
  const points = Array.from(text);
  const last = points.findLastIndex((point) => !chars.includes(point));
  return points.slice(0, last + 1).join("");
}

function rewrite(value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  for (const part of Object.values(value)) rewrite(part);
  const node = value as Node;
  if (node.type === "CallExpression") rewriteCall(node);
  if (node.type === "FilterExpression") rewriteFilter(node);
}

/** `text.strip(chars)` becomes `tempora_strip(text, chars)`. */
function rewriteCall(node: Node): void {
  const callee = node.callee as Node;
  const name = callee.computed === false ? (callee.property as Node).value : null;
  if (name !== "strip" && name !== "lstrip" && name !== "rstrip") return;
  node.args = [callee.object, ...(node.args as Node[])];
  node.callee = identifier(names[name]);
}

/** `text | trim` becomes `tempora_strip(text)`; `selectattr(x, "undefined")` becomes `rejectattr(x, "defined")`. */
function rewriteFilter(node: Node): void {
  const filter = node.filter as Node;
  if (filter.type === "Identifier" && filter.value === "trim") {
    Object.assign(node, { type: "CallExpression", callee: identifier(names.strip), args: [node.operand] });
    return;
  }
  const callee = filter.callee as Node | undefined;
  const test = (filter.args as Node[] | undefined)?.[1];
  const opposite = { selectattr: "rejectattr", rejectattr: "selectattr" }[String(callee?.value)];
  if (callee === undefined || opposite === undefined || test?.value !== "undefined") return;
  callee.value = opposite;
  test.value = "defined";
}

function identifier(value: string): Node {
  return { type: "Identifier", value };
}
