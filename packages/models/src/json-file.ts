import { readFile } from "node:fs/promises";
import { fileError, isObject, TemporaError } from "@tempora/errors";

/** The object that a JSON file holds. @throws TemporaError when the file is missing, not JSON, or not an object. */
export async function readJsonObject(file: string, what: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw fileError(error, `Cannot read ${what}`, file);
  }
  return parseJsonObject(text, file, what);
}

/** The same from text that was read already. */
export function parseJsonObject(text: string, file: string, what: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TemporaError(`${sentence(what)} is not valid JSON: ${reason}`, {
      where: { file },
      remedy: "Fetch or write the file again.",
      cause: error,
    });
  }
  if (!isObject(value)) {
    throw new TemporaError(`${sentence(what)} does not hold a JSON object`, {
      where: { file },
      remedy: "Fetch or write the file again.",
    });
  }
  return value;
}

/** "the model's config.json" where a sentence begins. */
function sentence(what: string): string {
  return what.charAt(0).toUpperCase() + what.slice(1);
}
