/** The first pause is up to this long, in milliseconds; each doubles. */
const FIRST = 1_000;
const LONGEST = 30_000;

/** How long to wait before the next try: up to 1, 2, 4, 8 … 30 seconds, by chance, so that not all come at once. */
export class Backoff {
  readonly #random: () => number;
  #tries = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** The next pause, in milliseconds. */
  next(): number {
    const most = Math.min(LONGEST, FIRST * 2 ** this.#tries);
    this.#tries = Math.min(this.#tries + 1, 16);
    return this.#random() * most;
  }

  /** Begins anew, after a time in which all was well. */
  reset(): void {
    this.#tries = 0;
  }
}
