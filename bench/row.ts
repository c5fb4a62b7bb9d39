/** One line of `bun run bench`. */
export interface BenchRow {
  name: string;
  value: number;
  unit: string;
  /** The least that it can take, in the same unit: counted from FLOPs and bytes over what this machine reaches. */
  floor?: number;
  /** Share of the floor that is reached: floor / value for times, value / floor for rates. 1 is the best there is. */
  ratio?: number;
  /** The same with what the first floor leaves out. */
  secondFloor?: SecondFloor;
  note?: string;
}

export interface SecondFloor {
  /** What it counts besides. */
  counts: string;
  floor: number;
  ratio: number;
}
