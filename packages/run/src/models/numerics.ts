import { deviceInfo } from "@tempora/engine";
import type { Json } from "@tempora/errors";
import type { Settings } from "../settings/settings.ts";

/** What decides the last bits of a number besides the code. */
export function numericsOf({ device, dtype, threads, quantize }: Omit<Settings["engine"], "moments">): Json {
  const info = deviceInfo();
  const cuda = device !== "cpu" && info.cuda.devices.length > 0;
  return {
    device: cuda ? (info.cuda.devices[0] ?? "cuda") : "cpu",
    kernels: info.cpuKernels,
    oneDnn: info.oneDnn,
    threads: threads === 0 ? info.threads : threads,
    dtype,
    quantize,
  };
}
