import { TemporaError } from "@tempora/errors";

/** The key-value pairs of a GGUF file; every fault names file and key. */
export class GgufMetadata {
  constructor(
    private readonly values: Readonly<Record<string, unknown>>,
    readonly file: string,
  ) {}

  has(key: string): boolean {
    return (this.values[key] ?? null) !== null;
  }

  keys(): string[] {
    return Object.keys(this.values);
  }

  /** 64-bit integers become numbers. */
  number(key: string, fallback?: number): number {
    const value = this.values[key] ?? fallback;
    if (typeof value === "bigint") return Number(value);
    if (typeof value === "number") return value;
    return this.fail(key, value === undefined ? "is missing" : `must be a number, not ${typeof value}`);
  }

  optionalNumber(key: string): number | null {
    return this.has(key) ? this.number(key) : null;
  }

  string(key: string): string {
    const value = this.values[key];
    if (typeof value === "string") return value;
    return this.fail(key, value === undefined ? "is missing" : `must be a string, not ${typeof value}`);
  }

  optionalString(key: string): string | null {
    return this.has(key) ? this.string(key) : null;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.values[key] ?? fallback;
    return typeof value === "boolean" ? value : this.fail(key, `must be true or false, not ${typeof value}`);
  }

  strings(key: string): string[] {
    return this.#list(key, "string") as string[];
  }

  numbers(key: string): number[] {
    return this.#list(key, "number") as number[];
  }

  fail(key: string, what: string, remedy = "Fetch the file again, or convert the model again."): never {
    throw new TemporaError(`${key} ${what}`, { where: { file: this.file, field: key }, remedy });
  }

  #list(key: string, type: "string" | "number"): unknown[] {
    const value = this.values[key];
    if (value === undefined) return this.fail(key, "is missing");
    if (Array.isArray(value) && value.every((item) => typeof item === type)) return value;
    return this.fail(key, `must be a list of ${type}s`);
  }
}
