import type { Client } from "./client.js";
import type { Delivery } from "./delivery.js";
import type { Channel, Environment } from "./environment.js";
import type { Filters } from "./filters.js";
import { Follower } from "./follower.js";
import { Leader } from "./leader.js";
import type { Message } from "./messages.js";
import type { SessionOptions } from "./session.js";
import type { Status } from "./status.js";
import { Wishes } from "./wishes.js";

/**
 * Where a tab's frames come from. Of the tabs that share a name, the one that holds the lock of that name has the
 * stream, and the others hear from it. When it gives the lock up or is closed, the next in line goes on from where it
 * is itself. Without a name, or where there are no locks, each tab has a stream of its own.
 */
export class Feed {
  readonly #name: string | undefined;
  readonly #tab: string;
  readonly #channel: Channel | undefined;
  readonly #client: Client;
  readonly #environment: Environment;
  readonly #options: SessionOptions;
  readonly #delivery: Delivery;
  readonly #report: (status: Status) => void;
  readonly #wishes = new Wishes();
  readonly #follower: Follower;
  #leader: Leader | undefined;
  /** Ends the stream, or the wait for the lock. */
  #candidacy: AbortController | undefined;
  #isRefused = false;

  constructor(
    name: string | undefined,
    client: Client,
    environment: Environment,
    options: SessionOptions,
    delivery: Delivery,
    report: (status: Status) => void,
  ) {
    this.#client = client;
    this.#environment = environment;
    this.#options = options;
    this.#delivery = delivery;
    this.#report = report;
    this.#tab = environment.id();
    this.#channel = name === undefined || environment.lock === undefined ? undefined : environment.channel(name);
    this.#name = this.#channel && name;
    this.#channel?.addEventListener("message", ({ data }) => this.#hear(data as Message));
    this.#follower = new Follower(this.#tab, delivery, this.#wishes, (message) => this.#post(message), report);
    this.#follower.join();
  }

  /** This tab may have the stream; `again`, even if the server would not have it before. */
  contend(again: boolean): void {
    if (this.#candidacy !== undefined || (this.#isRefused && !again)) {
      return;
    }
    this.#isRefused = false;
    const candidacy = new AbortController();
    this.#candidacy = candidacy;
    const held = () => this.#lead(candidacy);
    if (this.#name === undefined) {
      void held();
    } else {
      this.#environment.lock?.(this.#name, candidacy.signal, held);
    }
  }

  /** This tab must not have the stream any more, and goes on to hear from others. Answers whether it had it. */
  withdraw(): boolean {
    const had = this.#leader !== undefined;
    if (had) {
      // Whoever is next is to know what this tab wants. If nobody is, it is because all are hidden.
      this.#follower.join();
      this.#post({ kind: "status", status: { state: "disconnected", reason: "hidden" } });
    }
    this.#candidacy?.abort();
    this.#candidacy = undefined;
    return had;
  }

  /** The page is put away, and may be there again later. */
  leave(): boolean {
    const had = this.withdraw();
    this.#post({ kind: "leave", tab: this.#tab });
    return had;
  }

  /** The page is there again. */
  join(): void {
    this.#follower.join();
  }

  /** This tab hears nothing any more. */
  close(): void {
    this.leave();
    this.#follower.close();
    this.#channel?.close();
  }

  /** Changes what this tab wants; answers when it is in force. */
  async update(wanted: Filters): Promise<void> {
    if (this.#leader === undefined) {
      return this.#follower.update(wanted);
    }
    const before = this.#delivery.wanted;
    this.#delivery.wanted = wanted;
    try {
      await this.#leader.update(wanted);
    } catch (error) {
      this.#delivery.wanted = this.#delivery.wanted === wanted ? before : this.#delivery.wanted;
      throw error;
    }
  }

  /** A try now may help. */
  wake(): void {
    if (this.#leader === undefined) {
      this.#post({ kind: "wake" });
    } else {
      this.#leader.wake();
    }
  }

  async #lead(candidacy: AbortController): Promise<void> {
    if (candidacy.signal.aborted) {
      return;
    }
    const leader = new Leader({
      tab: this.#tab,
      client: this.#client,
      environment: this.#environment,
      options: this.#options,
      delivery: this.#delivery,
      wishes: this.#wishes,
      post: (message) => this.#post(message),
      // What it says after another has taken over is of the past.
      report: (status) => {
        if (this.#leader === leader && !candidacy.signal.aborted) {
          this.#report(status);
        }
      },
    });
    this.#leader = leader;
    void this.#follower.retire(leader.update(this.#delivery.wanted));
    await leader.run(candidacy.signal);
    this.#leader = undefined;
    this.#follower.resume();
    if (this.#candidacy === candidacy) {
      // It was refused. Another tab may have what this one lacks.
      this.#candidacy = undefined;
      this.#isRefused = true;
    }
  }

  #hear(message: Message): void {
    if (message.kind === "leave") {
      this.#wishes.delete(message.tab);
    }
    if (this.#leader === undefined) {
      this.#follower.hear(message);
    } else {
      this.#leader.hear(message);
    }
  }

  #post(message: Message): void {
    this.#channel?.postMessage(message);
  }
}
