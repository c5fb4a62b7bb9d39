/** Where a fault was found. Every part that is known is printed. */
export interface Place {
  file?: string;
  /** 1-based line or row of the file. */
  row?: number;
  /** Field, tensor or option name. */
  field?: string;
}

export interface TemporaErrorOptions {
  where?: Place;
  /** What the user can do about it, in one sentence. */
  remedy: string;
  cause?: unknown;
}

/**
 * The one error that Tempora throws for bad input and failed work: what is wrong, where, and the remedy.
 * Anything else that reaches the user is a defect of ours.
 */
export class TemporaError extends Error {
  override readonly name = "TemporaError";
  readonly what: string;
  readonly where: Place;
  readonly remedy: string;

  constructor(what: string, options: TemporaErrorOptions) {
    const where = options.where ?? {};
    const place = describePlace(where);
    super(
      `${what}${place ? ` (${place})` : ""}. ${options.remedy}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.what = what;
    this.where = where;
    this.remedy = options.remedy;
  }

  /** The same error, with a place that its finder knows. */
  at(place: Place): TemporaError {
    const { remedy, cause } = this;
    return new TemporaError(this.what, { where: { ...place, ...this.where }, remedy, cause });
  }
}

/** "pairs.jsonl, row 3, field chosen", or "" when nothing is known. */
export function describePlace(where: Place): string {
  const parts: string[] = [];
  if (where.file !== undefined) parts.push(where.file);
  if (where.row !== undefined) parts.push(`row ${where.row}`);
  if (where.field !== undefined) parts.push(`field ${where.field}`);
  return parts.join(", ");
}
