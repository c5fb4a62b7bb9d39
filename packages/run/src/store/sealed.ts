import { createHash } from "node:crypto";
import { isObject, TemporaError } from "@tempora/errors";

/** What to do about a file of the store that is not what was written. */
export const changedRemedy =
  "Something else wrote to it: delete the folder that it lies in and run again; what it held is computed again.";

/** What to do about a file of the store that has no checksum, since what wrote it knew none. */
export const earlierRemedy =
  "Go on without --keep-stages, or delete the folder that it lies in and run again; what it held is computed again.";

export function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** A value as JSON, with the SHA-256 of that. */
export function sealed(value: unknown): string {
  const text = JSON.stringify(value);
  return `{"sha256":"${sha256(text)}","result":${text}}\n`;
}

/**
 * The value that was sealed.
 * @throws TypeError or SyntaxError when the text is not what was written, TemporaError where it never was sealed.
 */
export function unsealed(text: string): unknown {
  const value = JSON.parse(text) as { sha256?: unknown; result?: unknown } | null;
  if (value?.sha256 === sha256(JSON.stringify(value?.result) ?? "")) return value.result;
  // One changed byte does not make this of a sealed value.
  if (isObject(value) && !("sha256" in value) && !("result" in value)) {
    throw new TemporaError("An earlier version of Tempora wrote the stage's result, without a checksum", {
      remedy: earlierRemedy,
    });
  }
  throw new TypeError("the SHA-256 is not that of the content");
}
