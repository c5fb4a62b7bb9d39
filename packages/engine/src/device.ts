import { TemporaError } from "@tempora/errors";
import type { EngineOptions } from "./engine-types.ts";
import { deviceInfo } from "./native.ts";

/** The device that the options ask for, and what it is called. */
export function chooseDevice(wanted: EngineOptions["device"] = "auto"): { device: "cpu" | "cuda"; name: string } {
  const info = deviceInfo();
  const [first] = info.cuda.devices;
  if (wanted !== "cpu" && first !== undefined) return { device: "cuda", name: first };
  if (wanted !== "cuda") return { device: "cpu", name: info.cpuName };
  throw new TemporaError(`There is no CUDA device: ${info.cuda.problem ?? "none was found"}`, {
    where: { field: "device" },
    remedy: 'Use device "cpu", or "auto" to take whatever there is.',
  });
}
