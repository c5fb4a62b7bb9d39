/** A model of the run: its name ("M0", "F1") and the checkpoint that holds it. */
export interface ModelRef {
  name: string;
  folder: string;
  /** checkpointHash of the folder: what stages are keyed by. */
  hash: string;
}
