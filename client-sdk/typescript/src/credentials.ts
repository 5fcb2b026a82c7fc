/**
 * Gives the token or API key to call with. It is asked again when the last one is about to end or was refused, so it
 * should fetch a new one from the application's own server each time.
 */
export type Credentials = () => Promise<string>;

/** A token that ends this soon is not used any more, in milliseconds. */
const MARGIN = 10_000;

/** Keeps the newest token, and lets all who need another wait for the same one. */
export class TokenSource {
  readonly #credentials: Credentials;
  readonly #now: () => number;
  #token: string | undefined;
  #pending: Promise<string> | undefined;

  constructor(credentials: Credentials, now: () => number = Date.now) {
    this.#credentials = credentials;
    this.#now = now;
  }

  /** The token to call with. */
  async get(): Promise<string> {
    const token = this.#token;
    const usable = token !== undefined && (expiry(token) ?? Infinity) - MARGIN > this.#now();
    return usable ? token : this.#fetch();
  }

  /** Another token in the place of `old`: the one that somebody else has fetched meanwhile, or a new one. */
  async renew(old: string): Promise<string> {
    return this.#token !== undefined && this.#token !== old ? this.#token : this.#fetch();
  }

  #fetch(): Promise<string> {
    this.#pending ??= this.#credentials()
      .then((token) => (this.#token = token))
      .finally(() => (this.#pending = undefined));
    return this.#pending;
  }
}

/** When a token says that it ends, in milliseconds since 1970; `undefined` for a key, which does not say. */
export function expiry(token: string): number | undefined {
  const [, claims, signature] = token.split(".");
  if (claims === undefined || signature === undefined) {
    return undefined;
  }
  try {
    const json: unknown = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/")));
    const seconds = (json as { exp?: unknown } | null)?.exp;
    return typeof seconds === "number" ? seconds * 1000 : undefined;
  } catch {
    return undefined;
  }
}
