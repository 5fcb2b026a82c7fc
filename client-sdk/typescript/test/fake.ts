// A server, a clock and a browser with tabs, all in this process and moved by the test.
import { create } from "@bufbuild/protobuf";
import { DurationSchema, durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import type { HandlerContext, Interceptor } from "@connectrpc/connect";
import { setImmediate } from "node:timers/promises";

import { createClient } from "../src/client.js";
import type { Client } from "../src/client.js";
import type { Channel, Environment } from "../src/environment.js";
import { matches } from "../src/filters.js";
import type { Filters } from "../src/filters.js";
import { EventSchema } from "../src/gen/switchboard/event/v1/event_pb.js";
import type { Event } from "../src/gen/switchboard/event/v1/event_pb.js";
import { NotificationService } from "../src/gen/switchboard/notification/v1/notification_pb.js";
import {
  Closing_Reason,
  Resync_Reason,
  SubscribeResponseSchema,
} from "../src/gen/switchboard/notification/v1/notification_pb.js";
import type { SubscribeRequest, SubscribeResponse } from "../src/gen/switchboard/notification/v1/notification_pb.js";

/** Lets everything happen that is not waiting for time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) {
    await setImmediate();
  }
}

/** Time that stands still until it is moved. */
export class Clock {
  time = 1_800_000_000_000;
  #timers = new Map<object, { readonly at: number; readonly run: () => void }>();

  later(run: () => void, ms: number): () => void {
    const timer = {};
    this.#timers.set(timer, { at: this.time + ms, run });
    return () => void this.#timers.delete(timer);
  }

  async advance(ms: number): Promise<void> {
    await settle();
    const end = this.time + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort((one, two) => one[1].at - two[1].at)[0];
      if (due === undefined) {
        break;
      }
      this.#timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].run();
      await settle();
    }
    this.time = end;
    await settle();
  }
}

/** The tabs of one origin. */
export class Browser {
  readonly clock = new Clock();
  readonly tabs: Tab[] = [];
  readonly #locks = new Map<string, { held: boolean; readonly queue: (() => void)[] }>();
  #ids = 0;

  tab(): Tab {
    const tab = new Tab(this, `tab${++this.#ids}`);
    this.tabs.push(tab);
    return tab;
  }

  lock(name: string, signal: AbortSignal, held: () => Promise<void>): void {
    const lock = this.#locks.get(name) ?? { held: false, queue: [] };
    this.#locks.set(name, lock);
    const next = () => {
      const one = lock.held ? undefined : lock.queue.shift();
      if (one !== undefined) {
        lock.held = true;
        one();
      }
    };
    const one = () => {
      void held().finally(() => {
        lock.held = false;
        next();
      });
    };
    lock.queue.push(one);
    signal.addEventListener("abort", () => {
      const index = lock.queue.indexOf(one);
      if (index >= 0) {
        lock.queue.splice(index, 1);
      }
    });
    queueMicrotask(next);
  }
}

/** One of them. */
export class Tab implements Environment {
  readonly channels: FakeChannel[] = [];
  hidden = false;
  locks = true;
  /** Chance gives this. */
  chance = 0.5;
  /** It hears nothing of the other tabs. */
  frozen = false;
  #listeners = new Set<(what: "visibility" | "online" | "leave" | "return") => void>();

  constructor(
    readonly browser: Browser,
    readonly name: string,
  ) {}

  get lock(): Environment["lock"] {
    return this.locks ? (name, signal, held) => this.browser.lock(name, signal, held) : undefined;
  }
  id(): string {
    return this.name;
  }
  now(): number {
    return this.browser.clock.time;
  }
  random(): number {
    return this.chance;
  }
  later(run: () => void, ms: number): () => void {
    return this.browser.clock.later(run, ms);
  }
  channel(name: string): Channel {
    const channel = new FakeChannel(this, name);
    this.channels.push(channel);
    return channel;
  }
  visible(): boolean {
    return !this.hidden;
  }
  listen(heard: (what: "visibility" | "online" | "leave" | "return") => void): () => void {
    this.#listeners.add(heard);
    return () => void this.#listeners.delete(heard);
  }
  tell(what: "visibility" | "online" | "leave" | "return"): void {
    this.#listeners.forEach((heard) => heard(what));
  }
  show(shown: boolean): void {
    this.hidden = !shown;
    this.tell("visibility");
  }
}

class FakeChannel implements Channel {
  #heard: ((message: { readonly data: unknown }) => void) | undefined;
  #closed = false;

  constructor(
    readonly tab: Tab,
    readonly name: string,
  ) {}

  postMessage(message: unknown): void {
    for (const tab of this.tab.browser.tabs.filter((one) => one !== this.tab && !one.frozen)) {
      for (const channel of tab.channels.filter((one) => one.name === this.name && !one.#closed)) {
        const data: unknown = structuredClone(message);
        queueMicrotask(() => channel.#heard?.({ data }));
      }
    }
  }
  addEventListener(_: "message", heard: (message: { readonly data: unknown }) => void): void {
    this.#heard = heard;
  }
  close(): void {
    this.#closed = true;
    this.#heard = undefined;
  }
}

/** A stream, as the server sees it. */
interface Stream {
  readonly id: string;
  readonly token: string;
  readonly frames: (SubscribeResponse | Error | "end")[];
  wanted: Filters;
  ring: () => void;
}

type Frame = Partial<Omit<SubscribeResponse, "$typeName" | "$unknown">>;

/** A server whose log is a list. */
export class FakeServer {
  readonly events: Event[] = [];
  readonly streams: Stream[] = [];
  readonly requests: SubscribeRequest[] = [];
  readonly updates: { readonly id: string; readonly generation: bigint }[] = [];
  readonly refreshes: string[] = [];
  /** Tokens that it takes; all while this is unset. */
  tokens: Set<string> | undefined;
  /** What it answers to every Subscribe. */
  down: ConnectError | undefined;
  /** What it answers to every UpdateSubscription. */
  rigid: ConnectError | undefined;
  /** What it answers to every RefreshSubscription. */
  stubborn: ConnectError | undefined;
  /** Cursors below this have been forgotten. */
  start = 0;
  tokenExpireTime: ((token: string) => number) | undefined;
  #ids = 0;

  constructor(readonly clock: Clock) {}

  client(credentials: () => Promise<string> = async () => "key"): Client {
    const transport = (interceptors: Interceptor[]) =>
      createRouterTransport(({ service }) => service(NotificationService, {
          subscribe: (request, context) => this.#subscribe(request, context),
          updateSubscription: (request) => {
            this.updates.push({ id: request.subscriptionId, generation: request.generation });
            if (this.rigid !== undefined) {
              throw this.rigid;
            }
            const stream = this.#stream(request.subscriptionId);
            stream.wanted = request;
            const { generation } = request;
            this.#push(stream, { updated: { $typeName: "switchboard.notification.v1.SubscriptionUpdated", generation } });
            return { generation };
          },
          refreshSubscription: (request, context) => {
            const token = this.#authenticate(context);
            this.refreshes.push(token);
            if (this.stubborn !== undefined) {
              throw this.stubborn;
            }
            this.#stream(request.subscriptionId);
            return { ...this.#expiry(token) };
          },
          getUnreadCount: (_, context) => {
            this.#authenticate(context);
            return { counts: { unread: 7n } };
          },
        }), { transport: { interceptors } });
    return createClient("https://switchboard.test", credentials, { transport });
  }

  publish(id: string, eventType = "a.b", topic = "events"): void {
    const event = create(EventSchema, { id, eventType, topic, cursor: String(this.events.length + 1) });
    this.events.push(event);
    for (const stream of this.streams) {
      this.#push(stream, { events: matches(stream.wanted, undefined, event) ? [event] : [] });
    }
  }

  whisper(id: string, topic: string, collapseKey: string): void {
    const event = create(EventSchema, { id, eventType: "now", topic, collapseKey });
    this.streams.forEach((stream) => this.#push(stream, { events: [event] }));
  }

  heartbeat(): void {
    this.streams.forEach((stream) => this.#push(stream, {}));
  }

  /** Says good-bye to every stream. */
  close(reason: Closing_Reason, reconnect: boolean, retryAfterMs?: number): void {
    const closing = {
      $typeName: "switchboard.notification.v1.Closing" as const,
      reason,
      reconnect,
      ...(retryAfterMs === undefined ? {} : { retryAfter: durationFromMs(retryAfterMs) }),
    };
    this.streams.splice(0).forEach((stream) => {
      this.#push(stream, { closing });
      stream.frames.push("end");
      stream.ring();
    });
  }

  /** Ends every stream, with an error or without a word. */
  drop(how: Error | "end"): void {
    this.streams.splice(0).forEach((stream) => {
      stream.frames.push(how);
      stream.ring();
    });
  }

  #stream(id: string): Stream {
    const stream = this.streams.find((one) => one.id === id);
    if (stream === undefined) {
      throw refusal(Code.NotFound);
    }
    return stream;
  }

  #authenticate(context: HandlerContext): string {
    const token = context.requestHeader.get("authorization")?.replace("Bearer ", "") ?? "";
    if (this.tokens !== undefined && !this.tokens.has(token)) {
      throw refusal(Code.Unauthenticated);
    }
    return token;
  }

  #expiry(token: string) {
    const time = this.tokenExpireTime?.(token);
    return time === undefined ? {} : { tokenExpireTime: timestampFromMs(time) };
  }

  #push(stream: Stream, frame: Frame): void {
    stream.frames.push(create(SubscribeResponseSchema, { cursor: String(this.events.length), ...frame }));
    stream.ring();
  }

  async *#subscribe(request: SubscribeRequest, context: HandlerContext): AsyncGenerator<SubscribeResponse> {
    this.requests.push(request);
    if (this.down !== undefined) {
      throw this.down;
    }
    const token = this.#authenticate(context);
    const stream: Stream = {
      id: `sub_${++this.#ids}`,
      token,
      frames: [],
      wanted: request,
      ring: () => undefined,
    };
    const gone = request.cursor !== "" && Number(request.cursor) < this.start;
    const from = request.cursor === "" || gone ? this.events.length : Number(request.cursor);
    const opened = {
      $typeName: "switchboard.notification.v1.Opened" as const,
      resumed: request.cursor !== "" && !gone,
      subscriptionId: stream.id,
      maxFilters: 100,
      serverTime: timestampFromMs(this.clock.time),
      heartbeatInterval: request.heartbeatInterval ?? durationFromMs(20_000),
      ...this.#expiry(token),
    };
    const resync = { $typeName: "switchboard.notification.v1.Resync" as const, reason: Resync_Reason.CURSOR_EXPIRED };
    this.#push(stream, { cursor: String(from), opened, ...(gone ? { resync } : {}) });
    const missed = this.events.slice(from).filter((event) => matches(request, undefined, event));
    if (missed.length > 0) {
      this.#push(stream, { events: missed });
    }
    this.streams.push(stream);
    const leave = () => {
      stream.frames.push("end");
      stream.ring();
    };
    context.signal.addEventListener("abort", leave);
    try {
      for (;;) {
        const frame = stream.frames.shift();
        if (frame === "end") {
          return;
        }
        if (frame instanceof Error) {
          throw frame;
        }
        if (frame === undefined) {
          await new Promise<void>((ring) => (stream.ring = ring));
        } else {
          yield frame;
        }
      }
    } finally {
      const index = this.streams.indexOf(stream);
      if (index >= 0) {
        this.streams.splice(index, 1);
      }
    }
  }
}

/** What Switchboard answers: it always has details. */
export function refusal(code: Code): ConnectError {
  return new ConnectError("refused", code, undefined, [{ desc: DurationSchema, value: create(DurationSchema) }]);
}
