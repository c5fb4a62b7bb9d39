/** Targets that break as parsers written badly do, where an input begins with "!". */

import type { Pointer } from "bun:ffi";
import { read } from "bun:ffi";
import type { Target } from "./targets.ts";

const kept: Uint8Array[] = [];

const faulty = (fault: () => void): Target => ({
  seeds: [Buffer.from("abc"), Buffer.from("!bc")],
  read: (bytes) => {
    if (bytes[0] === "!".charCodeAt(0)) fault();
  },
});

export const targets: Record<string, Target> = {
  /** Reads where no memory is. */
  crash: faulty(() => read.u8(8 as Pointer, 0)),
  hang: faulty(() => {
    for (;;);
  }),
  slow: faulty(() => Bun.sleepSync(1100)),
  memory: faulty(() => {
    for (;;) kept.push(new Uint8Array(1 << 24).fill(1));
  }),
  error: faulty(() => {
    throw new RangeError("out of bounds");
  }),
};
