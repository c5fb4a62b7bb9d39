type Typed = Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** A list of numbers that grows, in a typed array: JavaScript's own take two to four times the memory while they grow. */
export class Numbers<T extends Typed> {
  #values: T;
  #count = 0;

  constructor(readonly make: new (length: number) => T) {
    this.#values = new make(64);
  }

  push(value: number): void {
    if (this.#count === this.#values.length) {
      const longer = new this.make(this.#count * 2);
      longer.set(this.#values);
      this.#values = longer;
    }
    this.#values[this.#count++] = value;
  }

  /** Those pushed so far; a view, good until the next push. */
  get list(): T {
    return this.#values.subarray(0, this.#count) as T;
  }
}

/** Slots of a set at first; a power of two, as it stays. */
const firstSlots = 64;

/** No member: only whole numbers from 0 on are. */
const free = -1;

/** A set of whole numbers from 0 on, in a typed array with open addressing: a fifth to a third of a Set's memory. */
export class NumberSet {
  #slots = new Float64Array(firstSlots).fill(free);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(value: number): boolean {
    return this.#slots[this.#slotOf(value)] === value;
  }

  /** False where it was a member before. */
  add(value: number): boolean {
    const slot = this.#slotOf(value);
    if (this.#slots[slot] === value) return false;
    this.#slots[slot] = value;
    this.#size++;
    // Above three quarters the runs of taken slots get long.
    if (4 * this.#size > 3 * this.#slots.length) this.#grow();
    return true;
  }

  /** Where the value is, or where it would be put. */
  #slotOf(value: number): number {
    const mask = this.#slots.length - 1;
    let slot = scattered(value) & mask;
    while (this.#slots[slot] !== free && this.#slots[slot] !== value) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const members = this.#slots;
    this.#slots = new Float64Array(2 * members.length).fill(free);
    for (const value of members) if (value !== free) this.#slots[this.#slotOf(value)] = value;
  }
}

/** 32 bits in which neighbours lie apart: the finalizer of MurmurHash3 over both halves of the number. */
function scattered(value: number): number {
  let bits = Math.imul(value % 2 ** 32, 1) ^ Math.imul(Math.floor(value / 2 ** 32), 0x9e3779b1);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
