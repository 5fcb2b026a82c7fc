import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { bearer } from "./client.js";
import type { Client } from "./client.js";
import type { Environment } from "./environment.js";
import type { Opened } from "./gen/switchboard/notification/v1/notification_pb.js";

/** How long before its end a token is renewed, in milliseconds: a fifth of what is left, within these. */
const LEAST_LEAD = 2_000;
const MOST_LEAD = 60_000;
/** Before the next try to renew it. */
const PAUSE = 5_000;

/** Gives an open stream a new token before the one that it was opened with ends. */
export class Refresh {
  /** The token that the stream has now. */
  token: string;

  readonly #client: Client;
  readonly #environment: Environment;
  readonly #reopen: () => void;
  #subscriptionId = "";
  /** How far the server's clock is ahead of this one, in milliseconds. */
  #ahead = 0;
  #end = Infinity;
  #unplan: () => void = () => undefined;
  #stopped = false;

  /** `reopen` opens the stream anew, where it can not be kept. */
  constructor(client: Client, environment: Environment, token: string, reopen: () => void) {
    this.#client = client;
    this.#environment = environment;
    this.token = token;
    this.#reopen = reopen;
  }

  /** The stream is open. */
  opened(opened: Opened): void {
    this.#subscriptionId = opened.subscriptionId;
    if (opened.serverTime !== undefined) {
      this.#ahead = timestampMs(opened.serverTime) - this.#environment.now();
    }
    if (opened.tokenExpireTime !== undefined) {
      this.expiresAt(timestampMs(opened.tokenExpireTime));
    }
  }

  /** The token ends at this time of the server's. */
  expiresAt(time: number): void {
    if (time === this.#end) {
      return;
    }
    this.#end = time;
    const left = this.#left();
    const lead = Math.min(MOST_LEAD, Math.max(LEAST_LEAD, left / 5));
    this.#plan(Math.max(0, left - lead));
  }

  /** The stream has ended. */
  stop(): void {
    this.#stopped = true;
    this.#unplan();
  }

  #left(): number {
    return this.#end - this.#ahead - this.#environment.now();
  }

  #plan(after: number): void {
    this.#unplan();
    this.#unplan = this.#environment.later(() => void this.#renew(), after);
  }

  async #renew(): Promise<void> {
    try {
      const token = await this.#client.tokens.renew(this.token);
      const headers = { authorization: bearer(token) };
      const request = { subscriptionId: this.#subscriptionId };
      const answer = await this.#client.notifications.refreshSubscription(request, { headers });
      if (this.#stopped) {
        return;
      }
      this.token = token;
      const end = answer.tokenExpireTime && timestampMs(answer.tokenExpireTime);
      if (end === this.#end) {
        // There was no newer token to be had.
        this.#plan(PAUSE);
      } else if (end !== undefined) {
        this.expiresAt(end);
      }
    } catch (error) {
      const { code } = ConnectError.from(error);
      if (this.#stopped) {
        return;
      }
      if (code === Code.NotFound || code === Code.Unimplemented || this.#left() <= 0) {
        this.#reopen();
      } else {
        this.#plan(Math.min(PAUSE, Math.max(1_000, this.#left())));
      }
    }
  }
}
