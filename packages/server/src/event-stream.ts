import { apiErrorOf } from "./api-error.ts";

export const endOfStream = "data: [DONE]\n\n";

/** One server-sent event. */
export function event(value: object): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/**
 * A response of server-sent events, made only as fast as the client reads them. A failure after the beginning becomes an
 * event with an error. `close` is called once, whichever way it ends.
 */
export function eventStream(
  events: AsyncGenerator<string>,
  close: () => void,
  onFailure: (error: unknown) => void,
): Response {
  const encoder = new TextEncoder();
  let open = true;
  const end = () => {
    if (open) close();
    open = false;
  };
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { value, done } = await events.next();
          if (!open) return;
          if (!done) return controller.enqueue(encoder.encode(value));
        } catch (error) {
          if (!open) return;
          const known = apiErrorOf(error);
          if (known.status === 500) onFailure(error);
          controller.enqueue(encoder.encode(event(known.body)));
        }
        end();
        controller.close();
      },
      cancel() {
        end();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // Proxies such as nginx would hold events back.
      "x-accel-buffering": "no",
    },
  });
}
