/** One row of a dataset file, not yet checked beyond being an object. */
export interface SourceRow {
  /** 1-based: the line of a JSONL file, the element of a JSON list, the row of a CSV file (after its header) or Parquet file. */
  row: number;
  /** The file that it lies in, where the dataset is a folder or a pattern. */
  file?: string;
  value: Record<string, unknown>;
}

/** One turn of a conversation. Further fields of a file's messages are kept and reach the chat template. */
export interface Message {
  role: string;
  /** null only beside tool_calls. */
  content: string | null;
}

/** Plain text, or turns that go through the chat template. */
export type Conversation = string | Message[];
