import type { Filters } from "./filters.js";

/** How many tabs are remembered. */
const LIMIT = 1_000;

/** What one tab wants; the greatest `wish` of a tab counts. */
export interface Wish {
  readonly wish: number;
  readonly wanted: Filters;
}

/**
 * What the tabs that follow want. Every tab knows it, so that whichever leads next opens a stream that is about all of
 * it from the start. A tab that crashed may be among them, which makes the stream wider than needed.
 */
export class Wishes {
  readonly #wishes = new Map<string, Wish>();

  /** A tab wants this now. Answers what it wanted before. */
  set(tab: string, wish: Wish): Wish | undefined {
    const before = this.#wishes.get(tab);
    if (before === undefined || before.wish <= wish.wish) {
      this.#wishes.delete(tab);
      this.#wishes.set(tab, wish);
    }
    const [oldest] = this.#wishes.keys();
    if (this.#wishes.size > LIMIT && oldest !== undefined) {
      this.#wishes.delete(oldest);
    }
    return before;
  }

  /** A tab wants nothing any more. */
  delete(tab: string): void {
    this.#wishes.delete(tab);
  }

  /** Takes a wish back, unless there is a newer one. */
  refuse(tab: string, wish: number, before: Wish | undefined): void {
    if (this.#wishes.get(tab)?.wish === wish) {
      this.#wishes.delete(tab);
      if (before !== undefined) {
        this.#wishes.set(tab, before);
      }
    }
  }

  /** What the tabs want, other than this one. */
  except(tab: string): Filters[] {
    return [...this.#wishes].filter(([name]) => name !== tab).map(([, { wanted }]) => wanted);
  }

  /** All of them, for the other tabs. */
  entries(): (readonly [string, Wish])[] {
    return [...this.#wishes];
  }
}
