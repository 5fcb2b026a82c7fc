import type { Client } from "./client.js";
import { Delivery } from "./delivery.js";
import { environment as browser } from "./environment.js";
import type { Environment, Store } from "./environment.js";
import { Feed } from "./feed.js";
import { filters } from "./filters.js";
import type { Filters } from "./filters.js";
import type { Event } from "./gen/switchboard/event/v1/event_pb.js";
import type { ResyncReason, Status } from "./status.js";

/** What a live stream is about, and what becomes of what arrives. */
export interface LiveOptions extends Partial<Filters> {
  /**
   * Who the page is for. The tabs of one user share one stream, and the place in the log is kept under this name.
   * Without it, each tab has its own stream, and nothing is kept.
   */
  readonly user?: string;
  /** Start after this place in the log, such as the `cursor` of ListNotifications; what is kept in `store` goes before it. */
  readonly cursor?: string;
  /** Begin with the newest ephemeral events. */
  readonly snapshot?: boolean;
  /** The user is not shown as online. */
  readonly invisible?: boolean;
  /** How long the server may be silent, in milliseconds: 1 000 to 50 000; 20 000 when unset. */
  readonly heartbeatMs?: number;
  /** A page that has been hidden for this long gives its stream up until it is shown, in milliseconds; five minutes when unset. */
  readonly hiddenMs?: number;
  /** Keeps the place in the log beyond the life of the page: `localStorage` or `sessionStorage`. Needs `user`. */
  readonly store?: Store;
  /** An event, each once, in the order of the log. */
  readonly onEvent: (event: Event) => void;
  /**
   * There is a gap: fetch the state anew. Events that follow wait until the answer is settled. Where the state is
   * fetched for the first time only after the stream was first connected, nothing is missed either.
   */
  readonly onResync?: (reason: ResyncReason) => void | Promise<void>;
  /** The state has changed. */
  readonly onStatus?: (status: Status) => void;
  /** One of the functions above has failed. The console has it when this is unset. */
  readonly onError?: (error: unknown) => void;
  /** What is used in the place of the browser. */
  readonly environment?: Environment;
}

const HEARTBEAT = 20_000;
const HIDDEN = 300_000;
/** How long what was reached may wait to be kept, in milliseconds. */
const KEEP = 1_000;

/** Events as they happen, for as long as the page is there: across lost connections, restarts of the server and sleep. */
export class LiveStream {
  readonly #client: Client;
  readonly #options: LiveOptions;
  readonly #environment: Environment;
  readonly #observers = new Set<() => void>();
  #wanted: Filters;
  #status: Status = { state: "disconnected", reason: "stopped" };
  #delivery: Delivery | undefined;
  #feed: Feed | undefined;
  #unlisten: () => void = () => undefined;
  #unhide: () => void = () => undefined;
  #unkeep: (() => void) | undefined;
  #reached: string;

  constructor(client: Client, options: LiveOptions) {
    this.#client = client;
    this.#options = options;
    this.#environment = options.environment ?? browser();
    this.#wanted = filters(options);
    this.#reached = this.#kept() ?? options.cursor ?? "";
  }

  /** How the stream is. */
  get status(): Status {
    return this.#status;
  }

  /** Everything up to this place in the log has been given to `onEvent`; empty before the first connection. */
  get cursor(): string {
    return this.#reached;
  }

  /** Calls back after every change of `status`; answers what ends that. */
  observe(changed: () => void): () => void {
    this.#observers.add(changed);
    return () => void this.#observers.delete(changed);
  }

  /** Opens the stream, and keeps one open until `stop`. Does nothing when it is on already; tries again after a refusal. */
  start(): void {
    if (this.#feed === undefined) {
      this.#begin();
    }
    this.#feed?.contend(true);
  }

  /** Ends the stream. `start` goes on from where it was. */
  stop(): void {
    this.#unlisten();
    this.#unhide();
    this.#feed?.close();
    this.#delivery?.close();
    this.#feed = undefined;
    this.#keep();
    this.#report({ state: "disconnected", reason: "stopped" });
  }

  /** Changes what the stream is about, without a drop; answers when the change is in force, and fails when it is refused. */
  async update(wanted: Partial<Filters>): Promise<void> {
    const all = filters(wanted);
    await this.#feed?.update(all);
    this.#wanted = all;
  }

  #begin(): void {
    const { user, snapshot = false, invisible = false, heartbeatMs = HEARTBEAT } = this.#options;
    const onError = this.#options.onError ?? ((error: unknown) => console.error(error));
    const handlers = {
      onEvent: this.#options.onEvent,
      onResync: this.#options.onResync ?? (() => undefined),
      onError,
    };
    const delivery = new Delivery(this.#wanted, user, this.#reached, handlers, (cursor) => this.#reach(cursor));
    const name = user === undefined ? undefined : this.#name(JSON.stringify([snapshot, invisible, heartbeatMs]));
    const report = (status: Status) => this.#report(status);
    this.#report({ state: "connecting" });
    this.#delivery = delivery;
    const options = { snapshot, invisible, heartbeatMs };
    this.#feed = new Feed(name, this.#client, this.#environment, options, delivery, report);
    this.#unlisten = this.#environment.listen((what) => this.#heard(what));
    this.#watchHidden();
  }

  #heard(what: "visibility" | "online" | "leave" | "return"): void {
    if (what === "leave") {
      // The page may come back from the browser's memory; until then it must hold nothing.
      this.#gaveUp(this.#feed?.leave());
      this.#keep();
      return;
    }
    if (what === "return") {
      this.#feed?.join();
    }
    this.#watchHidden();
    if (this.#environment.visible()) {
      this.#feed?.contend(false);
    }
    if (this.#environment.visible() || what === "online") {
      this.#feed?.wake();
    }
  }

  #gaveUp(had: boolean | undefined): void {
    if (had === true) {
      this.#report({ state: "disconnected", reason: "hidden" });
    }
  }

  /** Gives the stream up once the page has been hidden for long. */
  #watchHidden(): void {
    this.#unhide();
    if (!this.#environment.visible()) {
      const withdraw = () => this.#gaveUp(this.#feed?.withdraw());
      this.#unhide = this.#environment.later(withdraw, this.#options.hiddenMs ?? HIDDEN);
    }
  }

  #report(status: Status): void {
    if (JSON.stringify(status) === JSON.stringify(this.#status)) {
      return;
    }
    this.#status = status;
    this.#options.onStatus?.(status);
    this.#observers.forEach((changed) => changed());
  }

  #reach(cursor: string): void {
    this.#reached = cursor;
    if (this.#options.store !== undefined) {
      this.#unkeep ??= this.#environment.later(() => this.#keep(), KEEP);
    }
  }

  /** Keeps the place that was reached. */
  #keep(): void {
    this.#unkeep?.();
    this.#unkeep = undefined;
    const { store, user } = this.#options;
    if (user !== undefined && this.#reached !== "") {
      try {
        store?.setItem(this.#name("cursor"), this.#reached);
      } catch {
        // It is full or forbidden: then the place is kept no longer than the page.
      }
    }
  }

  #kept(): string | undefined {
    const { store, user } = this.#options;
    try {
      return (user !== undefined && store?.getItem(this.#name("cursor"))) || undefined;
    } catch {
      return undefined;
    }
  }

  #name(what: string): string {
    return `switchboard ${this.#client.baseUrl} ${this.#options.user} ${what}`;
  }
}
