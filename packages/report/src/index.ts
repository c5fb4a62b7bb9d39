export { type Run, readRun } from "./run-folder.ts";
export { studyTable, summaryTable } from "./summary-table.ts";
export { renderReport, writeReport } from "./write-report.ts";
