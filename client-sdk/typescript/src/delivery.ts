import { matches } from "./filters.js";
import type { Filters } from "./filters.js";
import type { Event } from "./gen/switchboard/event/v1/event_pb.js";
import { Resync_Reason } from "./gen/switchboard/notification/v1/notification_pb.js";
import type { SubscribeResponse } from "./gen/switchboard/notification/v1/notification_pb.js";
import { Recent } from "./recent.js";
import type { ResyncReason } from "./status.js";

/** How many events are remembered, so that what comes twice is told once. */
const REMEMBERED = 1_000;
/** How many places in the log are remembered. */
const PASSED = 256;
/** How many events wait while the application fetches its state anew; beyond that they are dropped and it does so again. */
const WAITING = 10_000;

/** What the application does with what arrives. */
export interface Handlers {
  onEvent(event: Event): void;
  onResync(reason: ResyncReason): void | Promise<void>;
  onError(error: unknown): void;
}

/** An event, a reason to fetch everything anew, or a place that has been reached. */
type Item = { event: Event } | { resync: ResyncReason } | { cursor: string };

/** Gives one tab's application what it asked for: each event once, and no event while it fetches its state anew. */
export class Delivery {
  /** What the application wants. */
  wanted: Filters;

  readonly #user: string | undefined;
  readonly #handlers: Handlers;
  readonly #reached: (cursor: string) => void;
  readonly #seen = new Recent(REMEMBERED);
  readonly #passed = new Recent(PASSED);
  #waiting: Item[] = [];
  #busy = false;
  #closed = false;
  #cursor: string;

  /** `reached` hears of every place up to which everything has been given to the application. */
  constructor(
    wanted: Filters,
    user: string | undefined,
    cursor: string,
    handlers: Handlers,
    reached: (cursor: string) => void,
  ) {
    this.wanted = wanted;
    this.#user = user;
    this.#handlers = handlers;
    this.#reached = reached;
    this.#cursor = cursor;
    this.#passed.add(cursor);
  }

  /** Everything up to here has arrived; empty when nothing ever did. */
  get cursor(): string {
    return this.#cursor;
  }

  /** What follows goes on from this place. Where that leaves a gap, the application has to fetch its state anew. */
  continueFrom(cursor: string): void {
    if (this.#cursor !== "" && !this.#passed.has(cursor)) {
      this.#put({ resync: "missed" });
    }
    this.#cursor = cursor;
    this.#passed.add(cursor);
  }

  /** Something of the stream was missed. */
  missed(): void {
    this.#put({ resync: "missed" });
  }

  /** Takes a frame. */
  frame(frame: SubscribeResponse): void {
    if (frame.resync !== undefined) {
      this.#put({ resync: REASONS[frame.resync.reason] ?? "missed" });
    }
    for (const event of frame.events) {
      this.event(event);
    }
    this.#pass(frame.cursor);
  }

  /** Takes an event. */
  event(event: Event): void {
    if (this.#seen.add(event.id) && matches(this.wanted, this.#user, event)) {
      this.#put({ event });
    }
  }

  #pass(cursor: string): void {
    if (cursor !== "") {
      this.#cursor = cursor;
      this.#passed.add(cursor);
      this.#put({ cursor });
    }
  }

  /** Gives nothing more to the application. */
  close(): void {
    this.#closed = true;
    this.#waiting = [];
  }

  #put(item: Item): void {
    const last = this.#waiting.at(-1);
    if (this.#closed || ("resync" in item && last !== undefined && "resync" in last)) {
      return;
    }
    if (this.#waiting.length >= WAITING) {
      this.#waiting = [{ resync: "lag" }];
    }
    this.#waiting.push(item);
    if (!this.#busy) {
      void this.#work();
    }
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let item = this.#waiting.shift(); item !== undefined; item = this.#waiting.shift()) {
      try {
        if ("event" in item) {
          this.#handlers.onEvent(item.event);
        } else if ("cursor" in item) {
          this.#reached(item.cursor);
        } else {
          await this.#handlers.onResync(item.resync);
        }
      } catch (error) {
        this.#handlers.onError(error);
      }
    }
    this.#busy = false;
  }
}

const REASONS: { readonly [reason in Resync_Reason]?: ResyncReason } = {
  [Resync_Reason.CURSOR_EXPIRED]: "cursor_expired",
  [Resync_Reason.CURSOR_UNKNOWN]: "cursor_unknown",
  [Resync_Reason.LAG]: "lag",
};
