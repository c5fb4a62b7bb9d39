import { isObject, TemporaError } from "@tempora/errors";

export interface NumberRule {
  /** Taken when the field is missing or null; without it the field must be there. */
  fallback?: number;
  /** Smallest value allowed. */
  least?: number;
  /** Greatest value that is too small. */
  above?: number;
}

/** Reads fields of a config.json object one by one; every fault names the field, its value and the remedy. */
export class ConfigReader {
  constructor(
    readonly raw: Record<string, unknown>,
    readonly file: string,
    private readonly prefix = "",
  ) {}

  number(field: string, rule: NumberRule = {}): number {
    const value = this.raw[field] ?? rule.fallback;
    if (value === undefined) this.fail(field, "is missing", "Take the config.json that belongs to the checkpoint");
    if (typeof value !== "number" || !Number.isFinite(value)) this.wrong(field, "a number");
    if (rule.least !== undefined && value < rule.least) this.wrong(field, `a number of at least ${rule.least}`);
    if (rule.above !== undefined && value <= rule.above) this.wrong(field, `a number above ${rule.above}`);
    return value;
  }

  /** An integer of at least `least` (1). */
  integer(field: string, rule: NumberRule = {}): number {
    const value = this.number(field, { least: 1, ...rule });
    if (!Number.isSafeInteger(value)) this.wrong(field, "an integer");
    return value;
  }

  boolean(field: string, fallback: boolean): boolean {
    const value = this.raw[field] ?? fallback;
    if (typeof value !== "boolean") this.wrong(field, "true or false");
    return value;
  }

  string(field: string, fallback: string): string {
    const value = this.raw[field] ?? fallback;
    if (typeof value !== "string") this.wrong(field, "a string");
    return value;
  }

  optionalObject(field: string): ConfigReader | null {
    const value = this.raw[field] ?? null;
    if (value === null) return null;
    if (!isObject(value)) this.wrong(field, "an object");
    return new ConfigReader(value, this.file, `${this.prefix}${field}.`);
  }

  optionalStrings(field: string): string[] | null {
    const value = this.raw[field] ?? null;
    if (value === null) return null;
    if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
      this.wrong(field, "a list of strings");
    return value;
  }

  /** The field is well formed, but the engine does not compute what it asks for. */
  refuse(field: string, what: string, supported?: string): never {
    this.fail(
      field,
      `asks for ${what}, which Tempora does not compute`,
      supported === undefined ? "Choose a model without it" : `Choose a model with one of: ${supported}`,
    );
  }

  wrong(field: string, expected: string, value: unknown = this.raw[field]): never {
    this.fail(
      field,
      `must be ${expected}, not ${JSON.stringify(value)}`,
      "Correct it, or take the config.json that belongs to the checkpoint",
    );
  }

  fail(field: string, what: string, remedy: string): never {
    const name = `${this.prefix}${field}`;
    throw new TemporaError(`${name} ${what}`, { where: { file: this.file, field: name }, remedy: `${remedy}.` });
  }
}
