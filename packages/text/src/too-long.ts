import { describePlace, type Place, TemporaError } from "@tempora/errors";

/** A row that the model's context has no room for. */
export class TooLongError extends TemporaError {}

/** Rows that do not fit into the context: the first one ends the work, or all of them are left out and counted. */
export class ContextFit {
  #skipped = 0;
  #first: TooLongError | null = null;

  /** @param skip Leave out what does not fit, instead of throwing. */
  constructor(private readonly skip: boolean) {}

  /** What `make` gives, or null where it is too long and such rows are left out. @throws TooLongError unless they are. */
  keep<T>(make: () => T): T | null {
    try {
      return make();
    } catch (error) {
      if (!this.skip || !(error instanceof TooLongError)) throw error;
      this.#skipped++;
      this.#first ??= error;
      return null;
    }
  }

  get skipped(): number {
    return this.#skipped;
  }

  /** Where the first one stands that was left out. */
  get first(): Place | null {
    return this.#first === null ? null : this.#first.where;
  }

  /** Why the first one was left out. */
  get reason(): string | null {
    return this.#first === null ? null : this.#first.what;
  }

  /** "3 rows are left out, the first: …", or null where everything fits. @param unit What was counted, in the plural. */
  summary(unit: string): string | null {
    if (this.#first === null) return null;
    const { what, where } = this.#first;
    return `${this.#skipped} of the ${unit} are left out. The first: ${what} (${describePlace(where)})`;
  }

  /** @throws the first one's error where nothing is left. @param kept How many rows fit. */
  requireSome(kept: number): void {
    if (kept === 0 && this.#first !== null) throw this.#first;
  }
}
