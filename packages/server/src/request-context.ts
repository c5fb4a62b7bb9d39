import type { Admission } from "./admission.ts";
import { ApiError } from "./api-error.ts";
import type { ServerLimits } from "./limits.ts";
import type { Metrics } from "./metrics.ts";
import type { ModelService } from "./model-service.ts";

/** What a request is answered with. */
export interface RequestContext {
  service: ModelService;
  limits: ServerLimits;
  admission: Admission;
  metrics: Metrics;
  /** Aborted when the client leaves, the request has taken too long, or the server stops. */
  signal: AbortSignal;
  /** To be called when the request is answered: nothing holds the signal any more. May be called again. */
  release(): void;
  /** Hears of failures that are no client's fault. */
  onFailure(error: unknown): void;
  /** performance.now() when the request came. */
  began: number;
}

/**
 * A signal that follows others and a limit of time, until it is released. (Those that AbortSignal.any makes stay with a
 * source that is never aborted.)
 */
export function requestSignal(
  sources: readonly AbortSignal[],
  milliseconds: number,
): Pick<RequestContext, "signal" | "release"> {
  const controller = new AbortController();
  const message = `The request took more than ${milliseconds / 1000} s.`;
  const timer = setTimeout(() => controller.abort(new ApiError(503, message, { code: "timeout" })), milliseconds);
  timer.unref();
  const followed = sources.map((source) => {
    const follow = () => controller.abort(source.reason);
    if (source.aborted) follow();
    source.addEventListener("abort", follow, { once: true });
    return () => source.removeEventListener("abort", follow);
  });
  return {
    signal: controller.signal,
    release: () => {
      clearTimeout(timer);
      for (const leave of followed.splice(0)) leave();
    },
  };
}
