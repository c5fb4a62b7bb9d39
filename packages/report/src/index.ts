export { alarmLines } from "./alarms.ts";
export { type Answer, alpacaEvalFile, arenaHardFile, markdownCounts } from "./answer-files.ts";
export { type ComparedAnswer, type ComparedPrompt, type Comparison, comparisonPage } from "./comparison.ts";
export { type PageEvent, PageFeed } from "./live/page-feed.ts";
export { type CardOptions, type ModelOrigin, modelCard, originOf } from "./model-card.ts";
export { leftOutNotes } from "./numbers.ts";
export { noRunFolder, type Run, readEvents, readRun } from "./run-folder.ts";
export { studyTable, summaryTable } from "./summary-table.ts";
export { renderReport, writeReport } from "./write-report.ts";
