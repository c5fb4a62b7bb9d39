#!/usr/bin/env bun
import { main } from "./run.ts";

// Native clean-up does not run at exit: whatever is worth keeping was written before this line.
process.exit(await main(process.argv.slice(2)));
