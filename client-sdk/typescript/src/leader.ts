import { toBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";

import type { Client } from "./client.js";
import type { Delivery } from "./delivery.js";
import type { Environment } from "./environment.js";
import { union } from "./filters.js";
import type { Filters } from "./filters.js";
import { SubscribeResponseSchema } from "./gen/switchboard/notification/v1/notification_pb.js";
import type { SubscribeResponse } from "./gen/switchboard/notification/v1/notification_pb.js";
import { Latest } from "./latest.js";
import type { Message } from "./messages.js";
import { FILTER_LIMIT, Session } from "./session.js";
import type { SessionOptions, Sink } from "./session.js";
import type { Status } from "./status.js";
import type { Wishes } from "./wishes.js";

/** What a leader needs of its tab. */
export interface Seat {
  readonly tab: string;
  readonly client: Client;
  readonly environment: Environment;
  readonly options: SessionOptions;
  readonly delivery: Delivery;
  /** What the other tabs want. */
  readonly wishes: Wishes;
  /** Tells the other tabs, if there are any. */
  readonly post: (message: Message) => void;
  /** Tells the application of this tab. */
  readonly report: (status: Status) => void;
}

/** The tab that has the stream. It is about what any of the tabs wants, and each frame goes to all. */
export class Leader implements Sink {
  readonly #seat: Seat;
  readonly #session: Session;
  readonly #latest = new Latest();
  #status: Status = { state: "connecting" };
  #own: Filters;
  #runs = 0;
  #start = "";
  #about: Filters | undefined;
  #seq = 0;

  constructor(seat: Seat) {
    const { client, environment, options, delivery } = seat;
    this.#seat = seat;
    this.#own = delivery.wanted;
    this.#session = new Session(client, environment, options, this.#all(FILTER_LIMIT), delivery.cursor, this);
  }

  /** Has the stream until `signal` ends it, or until the server will not have it. */
  async run(signal: AbortSignal): Promise<void> {
    this.#seat.post({ kind: "lead" });
    await this.#session.run(signal);
  }

  /** Changes what this tab wants; answers when it is in force. */
  async update(wanted: Filters): Promise<void> {
    const before = this.#own;
    this.#own = wanted;
    try {
      await this.#session.update(this.#all());
    } catch (error) {
      // Unless it was changed again meanwhile.
      this.#own = this.#own === wanted ? before : this.#own;
      throw error;
    }
  }

  /** Hears another tab. */
  hear(message: Message): void {
    if (message.kind === "join") {
      void this.#join(message);
    } else if (message.kind === "wake") {
      this.wake();
    }
  }

  wake(): void {
    this.#session.wake();
  }

  status(status: Status): void {
    this.#status = status;
    this.#seat.post({ kind: "status", status });
    this.#seat.report(status);
  }

  opened(start: string, about: Filters): void {
    this.#runs += 1;
    this.#about = about;
    this.#start = start;
    this.#seq = 0;
    this.#seat.delivery.continueFrom(start);
  }

  frame(frame: SubscribeResponse): void {
    this.#seq += 1;
    const bytes = toBinary(SubscribeResponseSchema, frame);
    const about = this.#seq === 1 ? this.#about : undefined;
    this.#seat.post({ kind: "frame", run: this.#run(), start: this.#start, seq: this.#seq, about, bytes });
    if (this.#seat.options.snapshot) {
      this.#latest.add(frame.events);
    }
    this.#seat.delivery.frame(frame);
  }

  async #join({ tab, wish, wanted }: Message & { kind: "join" }): Promise<void> {
    const { wishes } = this.#seat;
    const before = wishes.set(tab, { wish, wanted });
    this.#seat.post({ kind: "status", status: this.#status });
    try {
      await this.#session.update(this.#all());
      const { cursor } = this.#session;
      const [latest, others] = [this.#latest.encode(), wishes.entries()];
      this.#seat.post({
        kind: "welcome", tab, wish, run: this.#run(), seq: this.#seq, cursor, wishes: others, latest,
      });
    } catch (error) {
      wishes.refuse(tab, wish, before);
      // Otherwise the stream has ended, and whoever leads next is told again.
      if (error instanceof ConnectError) {
        this.#seat.post({ kind: "refused", tab, wish, message: error.message });
      }
    }
  }

  #run(): string {
    return `${this.#seat.tab}/${this.#runs}`;
  }

  #all(limit = this.#session.filterLimit): Filters {
    return union([this.#own, ...this.#seat.wishes.except(this.#seat.tab)], limit);
  }
}
