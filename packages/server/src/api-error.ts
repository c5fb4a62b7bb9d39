import { TemporaError } from "@tempora/errors";

type Status = 400 | 401 | 403 | 404 | 413 | 415 | 429 | 500 | 503;

interface Details {
  /** The field of the request that is at fault. */
  param?: string | undefined;
  /** A word for programs, such as "model_not_found". */
  code?: string | undefined;
  /** Seconds after which to try again. */
  retryAfter?: number | undefined;
  cause?: unknown;
}

const types: Partial<Record<Status, string>> = {
  401: "authentication_error",
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

/** A fault as OpenAI's API tells it: a status and `{error: {message, type, param, code}}`. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: Status;
  readonly param: string | null;
  readonly code: string | null;
  readonly retryAfter: number | undefined;

  constructor(status: Status, message: string, { param, code, retryAfter, cause }: Details = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.param = param ?? null;
    this.code = code ?? null;
    this.retryAfter = retryAfter;
  }

  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    const { message, param, code } = this;
    return { error: { message, type: types[this.status] ?? "invalid_request_error", param, code } };
  }
}

/** What was thrown as an answer to give. A defect of ours becomes a 500 that tells nothing of the inside. */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(500, "The server failed at this request.", { code: "internal_error", cause: error });
}

/** Runs a check of what the client sent: its TemporaError is the client's fault. */
export function asClientFault<T>(param: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof TemporaError)) throw error;
    throw new ApiError(400, `${error.what}. ${error.remedy}`, { param, cause: error });
  }
}
