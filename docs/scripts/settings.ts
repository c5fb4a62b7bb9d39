/** Writes the page of all settings from their schema: names, what they take and their defaults; what they do is its comments. */
import { fileURLToPath } from "node:url";
import { paperSettings, settingsSchema, worldSettings } from "@tempora/run";
import { z } from "zod";
import { schemaComments } from "./comments.ts";

interface JsonSchema {
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  items?: JsonSchema;
  prefixItems?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
}

const folder = fileURLToPath(new URL("../../packages/run/src/settings", import.meta.url));

function bounds({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: JsonSchema): string {
  const parts = [
    minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER ? `≥ ${minimum}` : "",
    exclusiveMinimum === undefined ? "" : `> ${exclusiveMinimum}`,
    maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER ? `≤ ${maximum}` : "",
    exclusiveMaximum === undefined ? "" : `< ${exclusiveMaximum}`,
  ].filter((part) => part !== "");
  return parts.length === 0 ? "" : ` ${parts.join(", ")}`;
}

function takes(schema: JsonSchema): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf !== undefined) return [...new Set(schema.anyOf.map(takes))].join(" | ");
  if (schema.prefixItems !== undefined) return `[${schema.prefixItems.map(takes).join(", ")}]`;
  if (schema.type === "array") return `list of ${takes(schema.items ?? {})}`;
  if (schema.type === "number" || schema.type === "integer") return `${schema.type}${bounds(schema)}`;
  return [schema.type ?? "function"].flat().join(" | ");
}

/** The fields of a setting that is an object, a list of objects, or either of several of which one is. */
function fields(schema: JsonSchema): Record<string, JsonSchema> | null {
  if (schema.properties !== undefined) return schema.properties;
  for (const inner of [schema.items, ...(schema.anyOf ?? [])]) {
    const found = inner === undefined ? null : fields(inner);
    if (found !== null) return found;
  }
  return null;
}

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("{{", "{ {").replaceAll("<", "&lt;");
const code = (value: unknown) => (value === undefined ? "" : `\`${JSON.stringify(value).replaceAll("|", "\\|")}\``);

function at(value: unknown, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>((inner, name) => (inner as Record<string, unknown> | null | undefined)?.[name], value);
}

/** Every setting under `schema`, in the schema's order. */
function rows(schema: JsonSchema, path: string, comments: Map<string, string>): string[] {
  return Object.entries(fields(schema) ?? {}).flatMap(([name, field]) => {
    const here = `${path}${name}`;
    const [paper, world] = [at(paperSettings, here), at(worldSettings(), here)];
    const given = paper === undefined ? field.default : paper;
    const nested = fields(field) !== null && field.type === "object";
    const comment = comments.get(here);
    if (comment === undefined) throw new Error(`the schema's sources have no field ${here}`);
    const other = nested || JSON.stringify(world) === JSON.stringify(paper) ? "" : code(world);
    const own = `| \`${here}\` | ${nested ? "" : cell(takes(field))} | ${nested ? "" : code(given)} | ${other} | ${cell(comment)} |`;
    return [own, ...rows(field, `${here}.`, comments)];
  });
}

export function settingsPage(): string {
  const schema = z.toJSONSchema(settingsSchema, { unrepresentable: "any" }) as JsonSchema;
  const lines = rows(schema, "", schemaComments(folder, "settingsSchema"));
  return `# Settings

Of \`tempora.config.ts\`, and of every command by \`--set path=value\`. Flags override the configuration, which overrides the
defaults. The defaults are those for a model that is given; where the embedded world's differ, they stand beside. Two more
fields of the configuration name folders: \`run\`, the run's own, and \`runs\`, which holds runs and their store (\`"runs"\`).
This page is made from the schema that checks them.

| setting | takes | default | in the world | |
|---|---|---|---|---|
${lines.join("\n")}
`;
}
