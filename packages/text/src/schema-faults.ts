/** What a schema finds wrong with a value, in words for whoever wrote the value. @param message As zod gives it. */
export function schemaFault(message: string): string {
  const [, expected, received] = /^Invalid input: expected (.+), received (\w+)$/.exec(message) ?? [];
  if (received !== "undefined") return message.replace(/^Invalid input: /, "");
  return expected === "nonoptional" ? "is missing" : `is missing: expected ${expected}`;
}
