import { schemaFault } from "@tempora/text";
import type { z } from "zod";
import { ApiError } from "../api-error.ts";

/**
 * The body of a request, checked.
 * @throws ApiError 400 naming the field.
 */
export function parseBody<T>(schema: z.ZodType<T>, text: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiError(400, "The body is not valid JSON.", { code: "invalid_json", cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ApiError(400, "The body must be a JSON object.", { code: "invalid_json" });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === "unrecognized_keys") {
    const param = pathOf([...issue.path, issue.keys[0] as string]);
    throw new ApiError(400, `This server does not know the field ${param}.`, { param, code: "unknown_parameter" });
  }
  const param = pathOf(issue.path);
  throw new ApiError(400, `${param}: ${schemaFault(issue.message)}.`, { param, code: "invalid_value" });
}

/** messages[0].content */
function pathOf(path: readonly PropertyKey[]): string {
  return path
    .map((key, i) => (typeof key === "number" ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`))
    .join("");
}
