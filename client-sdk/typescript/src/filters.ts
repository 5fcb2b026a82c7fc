import type { Event } from "./gen/switchboard/event/v1/event_pb.js";

/** What a stream is about, as in `SubscribeRequest`; an empty list means all. */
export interface Filters {
  readonly eventTypes: readonly string[];
  readonly subjects: readonly string[];
  readonly topics: readonly string[];
}

/** Fills in what was left out. */
export function filters(given: Partial<Filters>): Filters {
  return { eventTypes: given.eventTypes ?? [], subjects: given.subjects ?? [], topics: given.topics ?? [] };
}

/** The least that has all of what each of these is about; `most` is how many entries the server takes in a list. */
export function union(all: readonly Filters[], most: number): Filters {
  const list = (of: (one: Filters) => readonly string[]): string[] => {
    const lists = all.map(of);
    const entries = [...new Set(lists.flat())].sort();
    return lists.some((one) => one.length === 0) || entries.length > most ? [] : entries;
  };
  return {
    eventTypes: list((one) => one.eventTypes),
    subjects: list((one) => one.subjects),
    topics: list((one) => one.topics),
  };
}

/** Whether both are about the same. */
export function same(one: Filters, other: Filters): boolean {
  return JSON.stringify(union([one], Infinity)) === JSON.stringify(union([other], Infinity));
}

/** Whether a stream that is about `wide` has all that `narrow` is about. */
export function covers(wide: Filters, narrow: Filters): boolean {
  return same(union([wide, narrow], Infinity), wide);
}

/** Whether an event is among what was asked for. A user's own topic always is. */
export function matches(wanted: Filters, user: string | undefined, event: Event): boolean {
  const { eventTypes, subjects, topics } = wanted;
  return (
    (eventTypes.length === 0 || eventTypes.some((pattern) => fits(pattern, event.eventType))) &&
    (subjects.length === 0 || subjects.includes(event.subject)) &&
    (topics.length === 0 ||
      event.topic === `user:${user ?? ""}` ||
      topics.some((pattern) => fits(pattern, event.topic)))
  );
}

/** `*` fits all, and `ticket.*` or `chat:*` what begins with the rest. */
function fits(pattern: string, text: string): boolean {
  return pattern.endsWith("*") ? text.startsWith(pattern.slice(0, -1)) : pattern === text;
}
