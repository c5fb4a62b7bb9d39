/**
 * The command `tempora` in this process: `bun bench/peak-memory.ts FILE dpo --model …` leaves in FILE the most memory, in
 * bytes, that was resident at once.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { main } from "../packages/cli/src/run.ts";

const [file = "", ...command] = process.argv.slice(2);
const code = await main(command);
const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
writeFileSync(file, `${Number(kilobytes) * 1024}\n`);
process.exit(code);
