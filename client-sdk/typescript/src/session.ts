import { durationFromMs, durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { Backoff } from "./backoff.js";
import { Changes } from "./changes.js";
import type { Client } from "./client.js";
import type { Environment } from "./environment.js";
import type { Filters } from "./filters.js";
import { Closing_Reason } from "./gen/switchboard/notification/v1/notification_pb.js";
import type { Closing, Opened, SubscribeResponse } from "./gen/switchboard/notification/v1/notification_pb.js";
import { frames } from "./link.js";
import { Refresh } from "./refresh.js";
import { isFinal, retryAfter } from "./status.js";
import type { Status } from "./status.js";

/** A stream that was open for this long was healthy, in milliseconds. */
const HEALTHY = 60_000;
/** One that was open for less than this is not replaced without a pause twice. */
const HURRIED = 1_000;
/** How many entries a filter may have while the server has not said it. */
export const FILTER_LIMIT = 100;

/** What every stream of a session asks for. */
export interface SessionOptions {
  readonly heartbeatMs: number;
  readonly snapshot: boolean;
  readonly invisible: boolean;
}

/** Hears what happens to a session. */
export interface Sink {
  status(status: Status): void;
  /** A stream about this is open that goes on from here; its frames follow. */
  opened(start: string, about: Filters): void;
  frame(frame: SubscribeResponse): void;
}

/** What comes after a stream. `after` is a time that the server named, in milliseconds. */
type Outcome =
  | { readonly next: "retry"; readonly after?: number | undefined; readonly message: string }
  | { readonly next: "stop"; readonly message: string };

/**
 * Streams one after the other, each from where the last one ended. Whether the server closes a stream, the connection
 * fails, or silence lasts too long: the next one follows after a pause, without end, until the server says not to come
 * back.
 */
export class Session {
  /** Everything up to here has been given to the sink. */
  cursor: string;
  /** How many entries the server takes in each filter. */
  filterLimit = FILTER_LIMIT;

  readonly #client: Client;
  readonly #environment: Environment;
  readonly #options: SessionOptions;
  readonly #sink: Sink;
  readonly #backoff: Backoff;
  readonly #changes: Changes;
  #open: { readonly id: string; readonly since: number; readonly reopen: () => void } | undefined;
  /** The token that the server did not take. */
  #refused: string | undefined;
  #hurried = false;
  #wake: (() => void) | undefined;

  constructor(
    client: Client,
    environment: Environment,
    options: SessionOptions,
    wanted: Filters,
    cursor: string,
    sink: Sink,
  ) {
    this.#client = client;
    this.#environment = environment;
    this.#options = options;
    this.#changes = new Changes(wanted);
    this.cursor = cursor;
    this.#sink = sink;
    this.#backoff = new Backoff(() => environment.random());
  }

  /** Runs until `signal` ends it, or until the server will not have it any more. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#sink.status({ state: "connecting" });
      const outcome = await this.#try(signal);
      const lasted = this.#open === undefined ? 0 : this.#environment.now() - this.#open.since;
      this.#open = undefined;
      this.#changes.lost();
      if (signal.aborted) {
        break;
      }
      if (outcome.next === "stop") {
        this.#changes.fail(new Error(outcome.message));
        this.#sink.status({ state: "disconnected", reason: "refused", message: outcome.message });
        return;
      }
      if (lasted >= HEALTHY) {
        this.#backoff.reset();
      }
      this.#hurried &&= lasted < HURRIED;
      await this.#pause(outcome, signal);
    }
    this.#changes.fail(new Error("the stream was stopped"));
  }

  /** Tries at once, if it is waiting and the server has not named a time. */
  wake(): void {
    this.#wake?.();
  }

  /**
   * Changes what the stream is about, without a drop where the server can; answers when the change is in force. What
   * the server refuses changes nothing.
   */
  update(wanted: Filters): Promise<void> {
    const { isNew, settled } = this.#changes.want(wanted);
    if (isNew) {
      void this.#tell();
    }
    return settled;
  }

  /** One stream, with a new token when the server did not take the last one. */
  async #try(signal: AbortSignal): Promise<Outcome> {
    let token: string | undefined;
    try {
      const { tokens } = this.#client;
      token = await (this.#refused === undefined ? tokens.get() : tokens.renew(this.#refused));
      if (token === this.#refused) {
        return { next: "stop", message: "the server does not take the token, and there is no other" };
      }
      return await this.#stream(token, signal);
    } catch (error) {
      const failure = ConnectError.from(error);
      const { code, message } = failure;
      // What the application's own server says of tokens is no refusal of Switchboard's.
      if (token === undefined || !isFinal(failure)) {
        return { next: "retry", after: retryAfter(failure), message };
      }
      const again: Outcome = { next: "retry", after: 0, message };
      if (code === Code.Unauthenticated) {
        const isFirst = this.#refused === undefined;
        this.#refused = token;
        return isFirst ? again : { next: "stop", message };
      }
      // A change that was not in force yet may be what the server will not have: then what was wanted before it goes on.
      return this.#changes.refuse(1, failure) ? again : { next: "stop", message };
    }
  }

  /** One stream, from its beginning to its end. */
  async #stream(token: string, signal: AbortSignal): Promise<Outcome> {
    const abort = new AbortController();
    const stop = () => abort.abort();
    signal.addEventListener("abort", stop);
    if (signal.aborted) {
      stop();
    }
    const { snapshot, invisible, heartbeatMs } = this.#options;
    const heartbeatInterval = durationFromMs(heartbeatMs);
    const { cursor } = this;
    const { generation, wanted } = this.#changes;
    const request = { ...lists(wanted), cursor, snapshot, invisible, heartbeatInterval };
    let replaced = false;
    const reopen = () => {
      replaced = true;
      stop();
    };
    const refresh = new Refresh(this.#client, this.#environment, token, reopen);
    try {
      for await (const frame of frames(this.#client, this.#environment, token, request, abort.signal)) {
        if (frame.opened !== undefined) {
          refresh.opened(frame.opened);
          this.#sink.opened(cursor || frame.cursor, wanted);
          this.#opened(frame.opened, generation, reopen);
        }
        this.cursor = frame.cursor || this.cursor;
        this.#sink.frame(frame);
        if (frame.updated !== undefined) {
          this.#changes.settle(Number(frame.updated.generation));
        }
        if (frame.tokenExpireTime !== undefined) {
          refresh.expiresAt(timestampMs(frame.tokenExpireTime));
        }
        if (frame.closing !== undefined) {
          return await this.#closed(frame.closing, refresh.token);
        }
      }
      return { next: "retry", message: "the stream ended without a farewell" };
    } catch (error) {
      if (replaced) {
        return { next: "retry", after: 0, message: "the stream is opened anew" };
      }
      throw error;
    } finally {
      refresh.stop();
      signal.removeEventListener("abort", stop);
    }
  }

  #opened(opened: Opened, generation: number, reopen: () => void): void {
    this.filterLimit = opened.maxFilters || FILTER_LIMIT;
    this.#open = { id: opened.subscriptionId, since: this.#environment.now(), reopen };
    this.#refused = undefined;
    this.#sink.status({ state: "connected" });
    this.#changes.settle(generation);
    if (generation !== this.#changes.generation) {
      // It was changed while this stream was being opened.
      void this.#tell();
    }
  }

  /** Tells the server of the newest change, if there is a stream. */
  async #tell(): Promise<void> {
    const open = this.#open;
    if (open === undefined) {
      return;
    }
    const { generation, wanted } = this.#changes;
    const request = { subscriptionId: open.id, generation: BigInt(generation), ...lists(wanted) };
    try {
      await this.#client.notifications.updateSubscription(request);
    } catch (error) {
      const failure = ConnectError.from(error);
      const isRefusal = failure.code === Code.InvalidArgument || failure.code === Code.PermissionDenied;
      if (isRefusal && isFinal(failure)) {
        this.#changes.refuse(generation, failure);
      } else if (this.#open === open) {
        // It is no longer open, or nobody there can change it: a new one has the change.
        open.reopen();
      }
    }
  }

  async #closed(closing: Closing, token: string): Promise<Outcome> {
    const reason = (Closing_Reason[closing.reason] ?? "unknown").toLowerCase();
    const message = `the server has closed the stream: ${reason}`;
    if (!closing.reconnect) {
      // The same token must not come back. There may be another.
      const isOver = closing.reason !== Closing_Reason.KEY_ENDED || (await this.#client.tokens.renew(token)) === token;
      return isOver ? { next: "stop", message } : { next: "retry", message };
    }
    return { next: "retry", after: closing.retryAfter && durationMs(closing.retryAfter), message };
  }

  /** Waits before the next try. */
  async #pause({ message, after }: Outcome & { next: "retry" }, signal: AbortSignal): Promise<void> {
    if (after === 0 && !this.#hurried) {
      this.#hurried = true;
      return;
    }
    const delay = after || this.#backoff.next();
    const reason = after ? "closed" : "lost";
    const retryAt = this.#environment.now() + delay;
    this.#sink.status({ state: "disconnected", reason, retryAt, message });
    await new Promise<void>((resolve) => {
      const end = () => {
        cancel();
        signal.removeEventListener("abort", end);
        resolve();
      };
      const cancel = this.#environment.later(end, delay);
      signal.addEventListener("abort", end);
      this.#wake = after ? undefined : end;
    });
    this.#wake = undefined;
  }
}

function lists(wanted: Filters): { eventTypes: string[]; subjects: string[]; topics: string[] } {
  return { eventTypes: [...wanted.eventTypes], subjects: [...wanted.subjects], topics: [...wanted.topics] };
}
