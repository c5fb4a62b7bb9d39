import type { BenchRow } from "./row.ts";

/** Three significant digits. */
function short(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}

/** One block of rows as aligned text: name, value, floor, ratio to the floor, note. */
export function table(title: string, rows: readonly BenchRow[]): string {
  const cells = [
    ["", "measured", "floor", "of the floor", ""],
    ...rows.map((row) => [
      row.name,
      `${short(row.value)} ${row.unit}`,
      row.floor === undefined ? "" : `${short(row.floor)} ${row.unit}`,
      row.ratio === undefined ? "" : `${(100 * row.ratio).toFixed(0)} %`,
      row.note ?? "",
    ]),
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...cells.map((line) => (line[column] as string).length)));
  const lines = cells.map((line) =>
    line
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return column === 0 || column === 4 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("   ")
      .trimEnd(),
  );
  return `${title}\n${lines.join("\n")}\n`;
}
