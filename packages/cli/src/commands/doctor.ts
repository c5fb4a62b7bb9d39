import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { deviceInfo } from "@tempora/engine";
import type { Command } from "commander";
import type { Context } from "../context.ts";
import { formatBytes } from "../format.ts";
import { modelHelp } from "../model.ts";
import { addEngineOptions, maxTokensOption, newCommand, optimizerOption, whenCalled, wholeNumber } from "../options.ts";
import { describeOutlook, type OutlookFlags, outlookOf } from "./outlook.ts";

type DeviceInfo = ReturnType<typeof deviceInfo>;

export function doctorCommand(context: Context): Command {
  const command = newCommand("doctor", "What this machine offers to Tempora, and what is missing", [
    "doctor",
    "doctor --model models/M0 --lora-rank 16 --max-tokens 2048",
  ])
    .option("--model <model>", `${modelHelp}: what training it and generating with it would take here`)
    .option("--lora-rank <count>", "of an adapter that is trained instead of the model", wholeNumber(1))
    .addOption(maxTokensOption())
    .option("--gradient-checkpointing", "recompute activations in the backward pass: less memory, more time", false);
  return whenCalled(addEngineOptions(command.addOption(optimizerOption())), context, doctor);
}

/** Exit code 0 when the addon works and a training that is asked about fits: all else is a matter of speed. */
async function doctor(flags: OutlookFlags, context: Context): Promise<void> {
  const machine = {
    runtime: process.versions.bun === undefined ? `Node ${process.versions.node}` : `Bun ${process.versions.bun}`,
    platform: `${process.platform} ${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: { total: totalmem(), free: freemem() },
  };
  let info: DeviceInfo;
  try {
    info = deviceInfo();
  } catch (error) {
    context.progress.note(describe(machine, null, []));
    throw error;
  }
  const missing = missingParts(info);
  const outlook = await outlookOf(flags, context);
  const shown = describe(machine, info, missing);
  context.result(
    { ...machine, addon: info, missing, ...(outlook === null ? {} : { model: outlook }) },
    outlook === null ? shown : `${shown}\n\n${describeOutlook(outlook)}`,
    outlook?.fits === false ? 1 : 0,
  );
}

interface Machine {
  runtime: string;
  platform: string;
  cpu: string;
  cores: number;
  memory: { total: number; free: number };
}

function missingParts(info: DeviceInfo): string[] {
  const missing: string[] = [];
  if (info.cpuKernels === "baseline") missing.push("AVX2: this CPU runs the plain kernels, slowly");
  if (!info.cuda.built) missing.push(`CUDA: ${info.cuda.problem ?? "the addon was built without it"}`);
  else if (info.cuda.devices.length === 0) missing.push(`CUDA device: ${info.cuda.problem ?? "none was found"}`);
  return missing;
}

function describe(machine: Machine, info: DeviceInfo | null, missing: readonly string[]): string {
  const lines: [string, string][] = [
    ["runtime", machine.runtime],
    ["platform", machine.platform],
    ["cpu", `${machine.cpu}, ${machine.cores} cores`],
    ["memory", `${formatBytes(machine.memory.total)}, ${formatBytes(machine.memory.free)} free`],
    ["addon", info === null ? "does not load" : "loads"],
  ];
  if (info !== null) {
    lines.push(["kernels", info.cpuKernels], ["oneDNN", info.oneDnn], ["threads", `${info.threads}`]);
    lines.push(["cuda", info.cuda.devices.join(", ") || "none"]);
  }
  const shown = lines.map(([name, value]) => `${name.padEnd(10)}${value}`).join("\n");
  if (info === null) return shown;
  if (missing.length === 0) return `${shown}\n\nNothing is missing.`;
  return `${shown}\n\nMissing (Tempora works without):\n${missing.map((part) => `  ${part}`).join("\n")}`;
}
