import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { TemporaError } from "@tempora/errors";
import type { NativeAddon, NativeCancel, NativeDeviceInfo, NativeErrorCode } from "./addon.ts";

/** Where cmake-js leaves the addon in a checkout. */
const builtFile = fileURLToPath(new URL("../../../native/build/Release/tempora.node", import.meta.url));

/** The addon: that of TEMPORA_ADDON, such as one with sanitizers, the one built here, or the one installed for this platform. */
export const addonFile =
  process.env.TEMPORA_ADDON ??
  (existsSync(builtFile) ? builtFile : installedFile(createRequire(import.meta.url).resolve)) ??
  builtFile;

/**
 * The installed addon, by what finds a package's file or throws: the one with CUDA before the one without. Null where neither was
 * installed, or there is none for this platform.
 */
export function installedFile(resolve: (name: string) => string): string | null {
  const plain = `@tempora/${process.platform}-${process.arch}-gnu`;
  for (const name of [`${plain}-cuda`, plain]) {
    try {
      return resolve(name);
    } catch {
      // Not installed.
    }
  }
  return null;
}

/** Loads an addon file, or says what to do about it. */
export function openAddon(file: string): NativeAddon {
  try {
    return createRequire(import.meta.url)(file) as NativeAddon;
  } catch (cause) {
    throw loadFailure(file, cause);
  }
}

/** What the system said when it did not load an addon file, with a remedy. */
export function loadFailure(file: string, cause: unknown): TemporaError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const [what, remedy] = /cannot find (module|package)|no such file/i.test(reason)
    ? [
        "The native engine has not been built",
        "Run `bun run build` in a checkout. Installed from npm there is an engine for Linux on x64 with glibc 2.28 or newer: elsewhere build it from a checkout.",
      ]
    : // What glibc's loader says where the system gives it no memory.
      /cannot (map|allocate|create)|failed to map|zero-fill/i.test(reason)
      ? [
          `The system has no memory to load the native engine: ${reason}`,
          "End other programs or raise the limit on memory (ulimit, container).",
        ]
      : [
          `The native engine does not load: ${reason}`,
          "Run `bun run build` on this machine; if a shared library is named, install it (oneDNN is libdnnl-dev on Debian).",
        ];
  return new TemporaError(what, { where: { file }, remedy, cause });
}

let opened: NativeAddon | undefined;

/** The addon, loaded when it is first needed. */
export function addon(): NativeAddon {
  opened ??= openAddon(addonFile);
  return opened;
}

/** What this machine offers: CPU kernels, threads, CUDA devices or the reason why there are none. */
export function deviceInfo(): NativeDeviceInfo {
  return addon().deviceInfo();
}

/** Goes to another thread and back without any work there: what a call costs at least. */
export function callRoundTrip(): Promise<void> {
  return addon().noop();
}

const remedies: Record<Exclude<NativeErrorCode, "cancelled">, string> = {
  disposed: "Load a new engine; a disposed one cannot be used again.",
  "out-of-memory":
    "Give it less at a time (maxTokens of a micro-batch, maxRows and maxCacheTokens of a generation), switch checkpointing on, or use bf16.",
  "not-finite": "Check the weights and lower the learning rate; the gradients were set to zero.",
  "invalid-argument": "This should have been caught earlier: please report it with the call that led here.",
  failed:
    "Check `bun run tempora doctor` for what this machine offers, and whether a limit on memory, threads or processes is reached.",
};

function codeOf(error: unknown): NativeErrorCode | undefined {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") return undefined;
  return error.code in remedies || error.code === "cancelled" ? (error.code as NativeErrorCode) : undefined;
}

/** The error of a call that its caller aborted: the signal's own reason where that is one, else an AbortError with it as cause. */
export function abortError(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  if (reason instanceof Error && (reason.name === "AbortError" || reason.name === "TimeoutError")) return reason;
  const error = new DOMException("The call was aborted", "AbortError");
  Object.defineProperty(error, "cause", { value: reason, configurable: true });
  return error;
}

/** Turns what a native call rejected with into an error with a stack, a place and a remedy. */
export function nativeFailure(error: unknown, signal?: AbortSignal): unknown {
  const code = codeOf(error);
  if (code === undefined || !(error instanceof Error)) return error;
  if (code === "cancelled") {
    if (signal?.aborted) return abortError(signal);
    return new TemporaError("The engine was disposed while a call was running", {
      remedy: "Await the calls in flight before disposing of an engine.",
      cause: error,
    });
  }
  // The standard library's word for having none names no cause.
  const what = error.message.replace("std::bad_alloc", "the system has no memory for it");
  return new TemporaError(what, { remedy: remedies[code], cause: error });
}

/** Runs a native call that can be cancelled by `signal`. */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  call: (cancel: NativeCancel | null) => Promise<T>,
): Promise<T> {
  if (signal === undefined) {
    try {
      return await call(null);
    } catch (error) {
      throw nativeFailure(error);
    }
  }
  if (signal.aborted) throw abortError(signal);
  const cancel = new (addon().Cancel)();
  const stop = () => cancel.cancel();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await call(cancel);
  } catch (error) {
    throw nativeFailure(error, signal);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
