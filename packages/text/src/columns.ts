import { TemporaError } from "@tempora/errors";
import type { SourceRow } from "./types.ts";

/** For a field that Tempora reads, the column of the file that holds it; "" where the file's own column is not meant. */
export type Columns = Readonly<Record<string, string>>;

/** "prompt=instruction,completion=output"; "system=" leaves the column system out. @throws TemporaError */
export function parseColumns(text: string): Record<string, string> {
  const columns: Record<string, string> = {};
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    const [field, column] = [part.slice(0, at).trim(), part.slice(at + 1).trim()];
    if (at < 0 || field === "" || field in columns) {
      throw new TemporaError(`"${part.trim()}" does not say which column a field is read from`, {
        where: { field: "--columns" },
        remedy: "Write field=column pairs, each field once, as prompt=instruction,completion=output.",
      });
    }
    columns[field] = column;
  }
  return columns;
}

/** The row with its columns under the names of the fields. @throws TemporaError for a column that the row lacks. */
export function renameColumns(source: SourceRow, file: string, columns: Columns): SourceRow {
  const value = { ...source.value };
  for (const [field, column] of Object.entries(columns)) {
    if (column !== "" && !(column in source.value)) {
      throw new TemporaError(
        `The row has no column ${column}; it has ${Object.keys(source.value).join(", ") || "none"}`,
        {
          where: { file: source.file ?? file, row: source.row, field: column },
          remedy: `Name a column that is there for ${field} (--columns ${field}=...).`,
        },
      );
    }
    delete value[column === "" ? field : column];
  }
  for (const [field, column] of Object.entries(columns)) if (column !== "") value[field] = source.value[column];
  return { ...source, value };
}
