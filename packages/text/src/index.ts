export { readAllRows, readRows, type SourceRow } from "./datasets.ts";
export { writeJson, writeJsonl, writeWhole } from "./files.ts";
export { JsonlLog } from "./jsonl_log.ts";
