import type { Duration } from "@bufbuild/protobuf/wkt";
import { durationMs } from "@bufbuild/protobuf/wkt";

import { bearer } from "./client.js";
import type { Client } from "./client.js";
import type { Environment } from "./environment.js";
import type { SubscribeRequest, SubscribeResponse } from "./gen/switchboard/notification/v1/notification_pb.js";

/** How much longer than the heartbeat silence may last, in milliseconds. */
const GRACE = 10_000;

/** What is asked of the server, in the words of its contract. */
export type Request = Omit<SubscribeRequest, "$typeName" | "$unknown" | "heartbeatInterval"> & {
  heartbeatInterval: Duration;
};

/**
 * One stream, until it ends. A server that says nothing for longer than its heartbeat and ten seconds is gone, whatever
 * the connection looks like: then this throws, as it does for every other failure.
 */
export async function* frames(
  client: Client,
  environment: Environment,
  token: string,
  request: Request,
  signal: AbortSignal,
): AsyncGenerator<SubscribeResponse, void> {
  const abort = new AbortController();
  let fail: (reason: Error) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => (fail = reject));
  // Whoever waits for a frame hears of it; nobody may be waiting.
  failed.catch(() => undefined);
  const give = (message: string) => {
    fail(new Error(message));
    abort.abort();
  };
  const stopped = () => give("the stream was given up");
  signal.addEventListener("abort", stopped);
  if (signal.aborted) {
    stopped();
  }
  let patience = durationMs(request.heartbeatInterval) + GRACE;
  const watch = () => environment.later(() => give(`the server was silent for ${patience / 1000} s`), patience);
  let unwatch = watch();
  try {
    const headers = { authorization: bearer(token) };
    const options = { headers, signal: abort.signal, timeoutMs: 0 };
    const stream = client.notifications.subscribe(request, options)[Symbol.asyncIterator]();
    for (;;) {
      const next = await Promise.race([stream.next(), failed]);
      if (next.done === true) {
        return;
      }
      unwatch();
      const promised = next.value.opened?.heartbeatInterval;
      patience = promised === undefined ? patience : durationMs(promised) + GRACE;
      yield next.value;
      unwatch = watch();
    }
  } finally {
    unwatch();
    signal.removeEventListener("abort", stopped);
    abort.abort();
  }
}
