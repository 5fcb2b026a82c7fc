/** What one tab says to the others of its origin. */
export interface Channel {
  postMessage(message: unknown): void;
  close(): void;
  addEventListener(type: "message", heard: (message: { readonly data: unknown }) => void): void;
}

/** Keeps texts beyond the life of a page, as `localStorage` does. */
export interface Store {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
}

/** What streams use of the browser, so that tests can bring their own. */
export interface Environment {
  /** Milliseconds since 1970. */
  now(): number;
  /** A name that nobody else has. */
  id(): string;
  /** From 0 up to, not including, 1. */
  random(): number;
  /** Runs something after some milliseconds; answers what takes that back. */
  later(run: () => void, ms: number): () => void;
  /** Waits for the lock of this name, until `signal` ends that, and holds it until `held` has ended. */
  readonly lock?: ((name: string, signal: AbortSignal, held: () => Promise<void>) => void) | undefined;
  /** A channel to the other tabs; `undefined` where there is none. */
  channel(name: string): Channel | undefined;
  /** Whether the user can see the page. */
  visible(): boolean;
  /** Calls back when the page is shown or hidden, when the network is back, and when the page goes or comes back. */
  listen(heard: (what: "visibility" | "online" | "leave" | "return") => void): () => void;
}

/** The greatest delay that a browser's timer takes. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** The browser's own, or what Node.js has of it. */
export function environment(): Environment {
  const page = typeof document === "undefined" ? undefined : document;
  const locks = typeof navigator === "undefined" ? undefined : navigator.locks;
  return {
    now: () => Date.now(),
    // `crypto.randomUUID` is for secure contexts only.
    id: () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join(""),
    random: () => Math.random(),
    later(run, ms) {
      const timer = setTimeout(run, Math.min(ms, LONGEST_TIMER));
      return () => clearTimeout(timer);
    },
    // A page that is not secure has no locks. It fails when the signal ends the waiting, which is no news.
    lock: locks && ((name, signal, held) => void locks.request(name, { signal }, held).catch(() => undefined)),
    channel: (name) => (typeof BroadcastChannel === "undefined" ? undefined : new BroadcastChannel(name)),
    visible: () => page?.visibilityState !== "hidden",
    listen(heard) {
      if (page === undefined) {
        return () => undefined;
      }
      const end = new AbortController();
      const on = (target: EventTarget, name: string, what: Parameters<typeof heard>[0]) =>
        target.addEventListener(name, () => heard(what), { signal: end.signal });
      on(page, "visibilitychange", "visibility");
      on(globalThis, "online", "online");
      on(globalThis, "pagehide", "leave");
      on(globalThis, "pageshow", "return");
      return () => end.abort();
    },
  };
}
