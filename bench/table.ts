import type { BenchRow } from "./row.ts";

/** Three significant digits. */
function short(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}

function percent(ratio: number): string {
  return `${(100 * ratio).toFixed(0)} %`;
}

function remarks(row: BenchRow): string {
  const second = row.secondFloor;
  const counted =
    second === undefined
      ? []
      : [`${percent(second.ratio)} of ${short(second.floor)} ${row.unit}, which counts ${second.counts}`];
  return [...counted, ...(row.note === undefined ? [] : [row.note])].join("; ");
}

/** One block of rows as aligned text: name, value, floor, ratio to the floor, second floor and note. */
export function table(title: string, rows: readonly BenchRow[]): string {
  const cells = [
    ["", "measured", "floor", "of the floor", ""],
    ...rows.map((row) => [
      row.name,
      `${short(row.value)} ${row.unit}`,
      row.floor === undefined ? "" : `${short(row.floor)} ${row.unit}`,
      row.ratio === undefined ? "" : percent(row.ratio),
      remarks(row),
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
