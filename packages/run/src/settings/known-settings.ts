import { z } from "zod";
import { settingsSchema } from "./settings.ts";

/** Beside the settings: where the run lies. */
const places = ["run", "runs"];

/** Names of the settings at a place of the configuration, as under ["judge", "limits"]; none where it takes any name. */
export function knownSettings(path: readonly PropertyKey[]): string[] {
  const inner = path.reduce<z.core.$ZodType | null>(
    (schema, key) => (schema === null ? null : within(schema, key)),
    settingsSchema,
  );
  const object = inner === null ? null : objectOf(inner);
  if (object === null) return [];
  return path.length === 0 ? [...Object.keys(object.shape), ...places] : Object.keys(object.shape);
}

function within(schema: z.core.$ZodType, key: PropertyKey): z.core.$ZodType | null {
  const plain = unwrapped(schema);
  if (plain instanceof z.ZodArray) return plain.element;
  const object = objectOf(plain);
  return object === null ? null : (object.shape[String(key)] ?? null);
}

function objectOf(schema: z.core.$ZodType): z.ZodObject | null {
  const plain = unwrapped(schema);
  if (plain instanceof z.ZodObject) return plain;
  if (plain instanceof z.ZodUnion)
    return plain.options.map((option) => objectOf(option)).find((one) => one !== null) ?? null;
  return null;
}

function unwrapped(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodNullable || schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) {
    return unwrapped(schema.unwrap());
  }
  return schema;
}
