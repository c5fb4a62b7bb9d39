/** The comments of a settings' schema, which say what a setting does: TypeScript's parser finds them beside the fields. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

/** Variables of all files of a folder, by name: what a schema is put together from. */
function variables(folder: string): Map<string, ts.Expression> {
  const found = new Map<string, ts.Expression>();
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))) {
    const file = ts.createSourceFile(name, readFileSync(join(folder, name), "utf8"), ts.ScriptTarget.ESNext, true);
    for (const statement of file.statements) {
      if (!ts.isVariableStatement(statement)) continue;
      for (const { name: variable, initializer } of statement.declarationList.declarations) {
        if (ts.isIdentifier(variable) && initializer !== undefined) found.set(variable.text, initializer);
      }
    }
  }
  return found;
}

/** The fields of the first object that an expression of zod describes, through arrays, unions, defaults and names. */
function fieldsOf(node: ts.Expression, known: Map<string, ts.Expression>): ts.ObjectLiteralExpression | null {
  if (ts.isIdentifier(node)) {
    const value = known.get(node.text);
    return value === undefined ? null : fieldsOf(value, known);
  }
  if (ts.isPropertyAccessExpression(node)) return fieldsOf(node.expression, known);
  if (ts.isArrayLiteralExpression(node)) return first(node.elements, known);
  if (!ts.isCallExpression(node)) return null;
  const [argument] = node.arguments;
  const isObject =
    ts.isPropertyAccessExpression(node.expression) && /^(strictO|o)bject$/.test(node.expression.name.text);
  if (isObject && argument !== undefined && ts.isObjectLiteralExpression(argument)) return argument;
  return fieldsOf(node.expression, known) ?? first(node.arguments, known);
}

function first(nodes: readonly ts.Expression[], known: Map<string, ts.Expression>): ts.ObjectLiteralExpression | null {
  for (const node of nodes) {
    const fields = fieldsOf(node, known);
    if (fields !== null) return fields;
  }
  return null;
}

function commentOf(node: ts.Node): string {
  const text = node.getSourceFile().text;
  const ranges = ts.getLeadingCommentRanges(text, node.pos) ?? [];
  const last = ranges.map(({ pos, end }) => text.slice(pos, end)).findLast((comment) => comment.startsWith("/**"));
  return (last ?? "")
    .replace(/^\/\*\*|\*\/$/g, "")
    .replace(/\s*\n\s*\* ?/g, " ")
    .trim();
}

/** Comments by the path of their setting, as "judge.endpoint.retries"; "" where a field has none. */
export function schemaComments(folder: string, schema: string): Map<string, string> {
  const known = variables(folder);
  const comments = new Map<string, string>();
  const walk = (node: ts.Expression, path: string) => {
    for (const property of fieldsOf(node, known)?.properties ?? []) {
      const name = property.name?.getText();
      const value = ts.isPropertyAssignment(property) ? property.initializer : null;
      const shorthand = ts.isShorthandPropertyAssignment(property) ? property.name : null;
      if (name === undefined || (value ?? shorthand) === null) continue;
      comments.set(`${path}${name}`, commentOf(property));
      walk((value ?? shorthand) as ts.Expression, `${path}${name}.`);
    }
  };
  const start = known.get(schema);
  if (start === undefined) throw new Error(`${folder} has no ${schema}`);
  walk(start, "");
  return comments;
}
