import { createHash } from "node:crypto";

/** What to do about a file of the store that is not what was written. */
export const changedRemedy =
  "Something else wrote to it: delete the folder that it lies in and run again; what it held is computed again.";

export function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** A value as JSON, with the SHA-256 of that. */
export function sealed(value: unknown): string {
  const text = JSON.stringify(value);
  return `{"sha256":"${sha256(text)}","result":${text}}\n`;
}

/** The value that was sealed. @throws TypeError or SyntaxError when the text is not what was written. */
export function unsealed(text: string): unknown {
  const value = JSON.parse(text) as { sha256?: unknown; result?: unknown } | null;
  if (value?.sha256 === sha256(JSON.stringify(value?.result) ?? "")) return value.result;
  throw new TypeError("the SHA-256 is not that of the content");
}
