import { same } from "./filters.js";
import type { Filters } from "./filters.js";

/** A change that is not yet in force. */
interface Change {
  readonly generation: number;
  /** What was wanted before it. */
  readonly before: Filters;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

/** What a stream is to be about, and the changes of it that somebody waits for. */
export class Changes {
  /** What is wanted now. */
  wanted: Filters;
  /** Grows with every change. */
  generation = 0;
  #inForce = -1;
  #waiting: Change[] = [];

  constructor(wanted: Filters) {
    this.wanted = wanted;
  }

  /** Wants something else; answers whether that is a change, and what ends when it is in force. */
  want(wanted: Filters): { readonly isNew: boolean; readonly settled: Promise<void> } {
    const before = this.wanted;
    const isNew = !same(before, wanted);
    if (isNew) {
      this.wanted = wanted;
      this.generation += 1;
    }
    const { generation } = this;
    const settled =
      this.#inForce >= generation
        ? Promise.resolve()
        : new Promise<void>((done, failed) => this.#waiting.push({ generation, before, done, failed }));
    return { isNew, settled };
  }

  /** The stream is now about what was wanted at this generation. */
  settle(generation: number): void {
    this.#inForce = Math.max(this.#inForce, generation);
    this.#take((change) => change.generation <= this.#inForce).forEach((change) => change.done());
  }

  /** Takes back what was refused: the change of a generation, and whatever followed it. Answers whether there was any. */
  refuse(generation: number, error: unknown): boolean {
    const refused = this.#take((change) => change.generation >= generation);
    const [first] = refused;
    if (first !== undefined) {
      this.wanted = first.before;
      this.generation += 1;
    }
    refused.forEach((change) => change.failed(error));
    return first !== undefined;
  }

  /** There is no stream any more. */
  lost(): void {
    this.#inForce = -1;
  }

  /** There will be no stream any more. */
  fail(error: unknown): void {
    this.#take(() => true).forEach((change) => change.failed(error));
  }

  #take(which: (change: Change) => boolean): Change[] {
    const taken = this.#waiting.filter(which);
    this.#waiting = this.#waiting.filter((change) => !which(change));
    return taken;
  }
}
