import { TemporaError } from "@tempora/errors";
import type { NativeSnapshot } from "./addon.ts";

/** A copy of an engine's weights in native memory; of use to that engine only, and gone with it. */
export class Snapshot implements Disposable {
  readonly #native: NativeSnapshot;

  constructor(native: NativeSnapshot) {
    this.#native = native;
  }

  /** 0 once disposed of. */
  get bytes(): number {
    return this.#native.bytes;
  }

  /** @internal */
  static native(snapshot: Snapshot): NativeSnapshot {
    if (snapshot.bytes === 0) {
      throw new TemporaError("The snapshot is disposed", { remedy: "Restore before its scope ends, or take another." });
    }
    return snapshot.#native;
  }

  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
