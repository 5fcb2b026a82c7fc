import { fromBinary } from "@bufbuild/protobuf";

import type { Delivery } from "./delivery.js";
import { covers } from "./filters.js";
import type { Filters } from "./filters.js";
import { SubscribeResponseSchema } from "./gen/switchboard/notification/v1/notification_pb.js";
import type { Message } from "./messages.js";
import { Recent } from "./recent.js";
import type { Status } from "./status.js";
import type { Wishes } from "./wishes.js";

/** How many former runs are remembered, whose last frames may still be under way. */
const RUNS = 32;

interface Pending {
  readonly wish: number;
  readonly done: () => void;
  readonly failed: (error: Error) => void;
}

/** A tab that gets its frames from the one that leads. */
export class Follower {
  readonly #tab: string;
  readonly #delivery: Delivery;
  readonly #wishes: Wishes;
  readonly #post: (message: Message) => void;
  readonly #report: (status: Status) => void;
  readonly #runs = new Recent(RUNS);
  #run: string | undefined;
  #seq = 0;
  #wish = 0;
  #pending: Pending[] = [];
  /** How the leader's stream is. */
  #status: Status = { state: "connecting" };

  constructor(
    tab: string,
    delivery: Delivery,
    wishes: Wishes,
    post: (message: Message) => void,
    report: (status: Status) => void,
  ) {
    this.#tab = tab;
    this.#delivery = delivery;
    this.#wishes = wishes;
    this.#post = post;
    this.#report = report;
  }

  /** Tells whoever leads what this tab wants. */
  join(): void {
    this.#wish += 1;
    this.#post({ kind: "join", tab: this.#tab, wish: this.#wish, wanted: this.#delivery.wanted });
  }

  /** Changes what this tab wants; answers when it is in force. */
  update(wanted: Filters): Promise<void> {
    const before = this.#delivery.wanted;
    this.#delivery.wanted = wanted;
    this.join();
    const wish = this.#wish;
    return new Promise((done, reject) => {
      const failed = (error: Error) => {
        this.#delivery.wanted = this.#delivery.wanted === wanted ? before : this.#delivery.wanted;
        reject(error);
      };
      this.#pending.push({ wish, done, failed });
    });
  }

  /** Hears the tab that leads. */
  hear(message: Message): void {
    switch (message.kind) {
      case "lead":
        this.join();
        break;
      case "join":
        this.#wishes.set(message.tab, message);
        break;
      case "status":
        this.#status = message.status;
        this.#tell();
        break;
      case "welcome":
        this.#welcome(message);
        break;
      case "refused":
        this.#refused(message);
        break;
      case "frame":
        this.#frame(message);
        break;
    }
  }

  /** This tab leads now. Its changes are in force once `settled` is over. */
  async retire(settled: Promise<void>): Promise<void> {
    const pending = this.#pending.splice(0);
    try {
      await settled;
      pending.forEach((one) => one.done());
    } catch (error) {
      pending.forEach((one) => one.failed(error instanceof Error ? error : new Error(String(error))));
    }
  }

  /** Nothing more will be heard. */
  close(): void {
    this.#pending.splice(0).forEach((one) => one.failed(new Error("the stream was stopped")));
  }

  /** This tab led until now, and knows where it is. */
  resume(): void {
    this.#status = { state: "connecting" };
    if (this.#delivery.cursor !== "") {
      this.#enter("own", 0);
    }
  }

  #welcome({ tab, wish, run, seq, cursor, wishes, latest }: Message & { kind: "welcome" }): void {
    wishes.forEach(([name, other]) => this.#wishes.set(name, other));
    if (tab !== this.#tab) {
      return;
    }
    if (this.#run === undefined || this.#run !== run || this.#seq !== seq) {
      this.#enter(run, seq);
      this.#delivery.continueFrom(cursor);
    }
    fromBinary(SubscribeResponseSchema, latest).events.forEach((event) => this.#delivery.event(event));
    this.#pending.filter((one) => one.wish <= wish).forEach((one) => one.done());
    this.#pending = this.#pending.filter((one) => one.wish > wish);
    this.#tell();
  }

  #refused({ tab, wish, message }: Message & { kind: "refused" }): void {
    if (tab !== this.#tab) {
      return;
    }
    const pending = this.#pending.filter((one) => one.wish === wish);
    this.#pending = this.#pending.filter((one) => one.wish !== wish);
    pending.forEach((one) => one.failed(new Error(message)));
    if (this.#run === undefined) {
      this.#report({ state: "disconnected", reason: "refused", message });
    }
  }

  #frame({ run, start, seq, about, bytes }: Message & { kind: "frame" }): void {
    // Before the welcome it is not known where this tab begins. What a former leader still said comes again from its
    // successor, or has been told as a gap.
    const known = this.#run === run;
    if (this.#run === undefined || (known ? seq <= this.#seq : this.#runs.has(run))) {
      return;
    }
    if (!known) {
      if (about === undefined || !covers(about, this.#delivery.wanted)) {
        this.#delivery.missed();
      } else {
        this.#delivery.continueFrom(start);
      }
    } else if (seq !== this.#seq + 1) {
      this.#delivery.missed();
    }
    this.#enter(run, seq);
    this.#delivery.frame(fromBinary(SubscribeResponseSchema, bytes));
  }

  #enter(run: string, seq: number): void {
    if (this.#run !== undefined && this.#run !== run) {
      this.#runs.add(this.#run);
    }
    this.#run = run;
    this.#seq = seq;
  }

  #tell(): void {
    const isLate = this.#status.state === "connected" && this.#run === undefined;
    this.#report(isLate ? { state: "connecting" } : this.#status);
  }
}
