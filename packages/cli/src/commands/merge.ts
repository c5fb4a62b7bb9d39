import { Engine, oneAtATime } from "@tempora/engine";
import { TemporaError } from "@tempora/errors";
import { type AdapterFolder, saveCheckpoint, saveGgufAdapter } from "@tempora/models";
import type { Command } from "commander";
import { mergeAdapter, namedAdapter, withoutAdapter } from "../adapter.ts";
import type { Context } from "../context.ts";
import { loadEngine, modelHelp, type OpenModel, openModel } from "../model.ts";
import { addEngineOptions, type EngineFlags, newCommand, whenCalled } from "../options.ts";
import { claimFile, claimFolder } from "../output.ts";

interface MergeFlags extends EngineFlags {
  model: string;
  adapter?: string;
  out: string;
}

export function mergeCommand(context: Context): Command {
  const command = newCommand("merge", "Add a LoRA adapter to its model's weights, or write it for llama.cpp", [
    "merge --model models/base --adapter adapters/dpo --out models/dpo",
    "merge --model models/base --adapter adapters/dpo --out dpo.gguf",
    "merge --model runs/my-run/models/M2 --out models/M2",
  ])
    .requiredOption("--model <model>", modelHelp)
    .option("--adapter <folder>", "a LoRA adapter over the model, as PEFT saves it (default: the model, which is one)")
    .requiredOption(
      "--out <path>",
      "where the merged checkpoint goes; a name that ends in .gguf: the adapter by itself, for llama.cpp's --lora",
    );
  return whenCalled(addEngineOptions(command), context, merge);
}

async function merge(flags: MergeFlags, context: Context): Promise<void> {
  context.onStopped("Nothing was written: run the same command again.");
  if (flags.out.endsWith(".gguf")) return writeGguf(flags, context);
  const out = await claimFolder("--out", flags.out, { inputs: inputsOf(flags), what: "checkpoint" });
  const model = await openModel(flags.model, context);
  const adapter = await requiredAdapter(model, flags);
  using loaded = await loadEngine({ ...model, adapter: null }, withoutAdapter(flags), context);
  // An adapter that was trained over quantized weights belongs to the numbers that they stand for.
  using engine = flags.quantize === undefined ? loaded : await dequantized(loaded);
  await mergeAdapter(engine, adapter);
  const { config, raw, companion } = model.checkpoint;
  await saveCheckpoint(out, { config, raw, dtype: engine.dtype, tensors: oneAtATime(engine.tensors()), companion });
  context.result(
    { out, dtype: engine.dtype, device: engine.device },
    `Merged ${adapter.path} into ${model.checkpoint.path}: ${flags.out}`,
  );
}

const inputsOf = ({ model, adapter }: MergeFlags) => (adapter === undefined ? [model] : [model, adapter]);

async function requiredAdapter(model: OpenModel, flags: MergeFlags): Promise<AdapterFolder> {
  const adapter = await namedAdapter(model, flags);
  if (adapter !== null) return adapter;
  throw new TemporaError("There is no adapter to merge", {
    where: { field: "--adapter" },
    remedy: "Name its folder by --adapter, or by --model where its base can be found.",
  });
}

function dequantized(from: Engine): Promise<Engine> {
  const { config, dtype, device } = from;
  const name = "the quantized model";
  const tensors = () =>
    from.parameters.map(({ name: tensor, shape }) => ({
      name: tensor,
      shape,
      dtype,
      file: name,
      read: () => from.getParameter(tensor),
    }));
  return Engine.load({ config, dtype, name, tensors }, { device, dtype });
}

async function writeGguf(flags: MergeFlags, context: Context): Promise<void> {
  const out = await claimFile("--out", flags.out, inputsOf(flags));
  const model = await openModel(flags.model, context);
  const adapter = await requiredAdapter(model, flags);
  if (flags.dtype === "bf16") {
    throw new TemporaError("A GGUF adapter is written in f32", {
      where: { field: "--dtype" },
      remedy: "Leave --dtype out.",
    });
  }
  await saveGgufAdapter(adapter, model.checkpoint.config, out);
  context.result({ out }, `Wrote ${adapter.path} for llama.cpp's --lora: ${flags.out}`);
}
