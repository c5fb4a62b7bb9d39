import { type Place, TemporaError } from "@tempora/errors";

/** Names by which a function judge is given what it judges: a row's column must have another one. */
const ownNames = ["prompts", "answers"];

/** @throws TemporaError for a column that would hide what a function judge is given anyway. */
export function requireOtherNames(columns: Readonly<Record<string, unknown>>, where: Place | undefined): void {
  const name = ownNames.find((own) => Object.hasOwn(columns, own));
  if (name === undefined) return;
  throw new TemporaError(`The column ${name} has the name of what a judge is given anyway`, {
    where: { ...where, field: name },
    remedy: "Rename the column: prompts and answers are the judge's own.",
  });
}
