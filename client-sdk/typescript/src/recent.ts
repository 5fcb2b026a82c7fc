/** Remembers the last `limit` texts that it was given. */
export class Recent {
  readonly #limit: number;
  readonly #known = new Set<string>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether this is one of them. */
  has(text: string): boolean {
    return this.#known.has(text);
  }

  /** Remembers a text; answers whether it is new. */
  add(text: string): boolean {
    const isNew = !this.#known.delete(text);
    this.#known.add(text);
    if (this.#known.size > this.#limit) {
      for (const oldest of this.#known) {
        this.#known.delete(oldest);
        break;
      }
    }
    return isNew;
  }
}
