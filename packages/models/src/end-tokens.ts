import { join } from "node:path";
import { TemporaError } from "@tempora/errors";

/** Ids that end a completion by the eos_token_id of generation_config.json and of config.json, in order. */
export function statedEndTokens(
  config: Record<string, unknown>,
  generation: Record<string, unknown> | null,
  folder: string,
): number[] {
  const ids = [
    ...idsOf(generation?.eos_token_id, join(folder, "generation_config.json")),
    ...idsOf(config.eos_token_id, join(folder, "config.json")),
  ];
  return [...new Set(ids)].sort((a, b) => a - b);
}

function idsOf(value: unknown, file: string): number[] {
  if (value === undefined || value === null) return [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  if (!ids.every((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0)) {
    throw new TemporaError(`eos_token_id must be a token id or a list of them, not ${JSON.stringify(value)}`, {
      where: { file, field: "eos_token_id" },
      remedy: "Correct it in the file.",
    });
  }
  return ids;
}
