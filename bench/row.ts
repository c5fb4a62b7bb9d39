/** One line of `bun run bench`. */
export interface BenchRow {
  name: string;
  value: number;
  unit: string;
  /** The least that it can take, in the same unit: counted from FLOPs and bytes over what this machine reaches. */
  floor?: number;
  /** value over floor, or over the peer measured in the same run; `note` says which. */
  ratio?: number;
  note?: string;
}
