import { create, toBinary } from "@bufbuild/protobuf";

import type { Event } from "./gen/switchboard/event/v1/event_pb.js";
import { SubscribeResponseSchema } from "./gen/switchboard/notification/v1/notification_pb.js";

/** How many are kept. */
const LIMIT = 1_000;

/** The newest ephemeral event of each topic and collapse key, for tabs that join later. */
export class Latest {
  readonly #events = new Map<string, Event>();

  /** Keeps those of a frame. */
  add(events: readonly Event[]): void {
    for (const event of events.filter((one) => one.cursor === "")) {
      const key = JSON.stringify([event.topic, event.collapseKey]);
      this.#events.delete(key);
      this.#events.set(key, event);
      if (this.#events.size > LIMIT) {
        for (const oldest of this.#events.keys()) {
          this.#events.delete(oldest);
          break;
        }
      }
    }
  }

  /** All of them, as one encoded frame. */
  encode(): Uint8Array {
    return toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { events: [...this.#events.values()] }));
  }
}
