// What a tab makes of what it hears, in orders that a change of hands can bring about.
import assert from "node:assert/strict";
import { test } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";

import { Delivery } from "../src/delivery.js";
import { filters } from "../src/filters.js";
import type { Filters } from "../src/filters.js";
import { Follower } from "../src/follower.js";
import { EventSchema } from "../src/gen/switchboard/event/v1/event_pb.js";
import { SubscribeResponseSchema } from "../src/gen/switchboard/notification/v1/notification_pb.js";
import { Wishes } from "../src/wishes.js";
import { settle } from "./fake.js";

const ALL = filters({});

function begin(wanted: Filters = ALL) {
  const [events, resyncs]: [string[], string[]] = [[], []];
  const handlers = {
    onEvent: ({ id }: { id: string }) => void events.push(id),
    onResync: (reason: string) => void resyncs.push(reason),
    onError: (error: unknown) => assert.fail(String(error)),
  };
  const delivery = new Delivery(wanted, "7", "", handlers, () => undefined);
  const follower = new Follower("me", delivery, new Wishes(), () => undefined, () => undefined);
  const welcome = (run: string, seq: number, cursor: string) =>
    follower.hear({ kind: "welcome", tab: "me", wish: 0, run, seq, cursor, wishes: [], latest: new Uint8Array() });
  const frame = (run: string, start: string, seq: number, cursor: string, id?: string, about = ALL) => {
    const events = id === undefined ? [] : [create(EventSchema, { id, eventType: "a.b", cursor })];
    const bytes = toBinary(SubscribeResponseSchema, create(SubscribeResponseSchema, { cursor, events }));
    follower.hear({ kind: "frame", run, start, seq, about: seq === 1 ? about : undefined, bytes });
  };
  return { welcome, frame, events, resyncs };
}

test("nothing is heard before it is known where it begins", async () => {
  const { welcome, frame, events, resyncs } = begin();
  frame("a/1", "1", 4, "5", "early");
  welcome("a/1", 4, "5");
  frame("a/1", "1", 5, "6", "next");
  await settle();
  assert.deepEqual([events, resyncs], [["next"], []]);
});

test("what a former leader still said is no gap, and is not told twice", async () => {
  const { welcome, frame, events, resyncs } = begin();
  welcome("a/1", 1, "5");
  frame("a/1", "5", 2, "6", "six");
  // The successor begins a step behind; the last words of the first come late.
  frame("b/1", "5", 1, "5");
  frame("a/1", "5", 3, "7", "seven");
  frame("b/1", "5", 2, "7", "six");
  frame("b/1", "5", 3, "7", "seven");
  await settle();
  assert.deepEqual([events, resyncs], [["six", "seven"], []]);
});

test("a stream that begins beyond what was heard leaves a gap", async () => {
  const { welcome, frame, events, resyncs } = begin();
  welcome("a/1", 1, "5");
  frame("b/1", "8", 1, "8");
  frame("b/1", "8", 2, "9", "nine");
  await settle();
  assert.deepEqual([events, resyncs], [["nine"], ["missed"]]);
});

test("a stream that began without what this tab wants leaves a gap", async () => {
  const { welcome, frame, resyncs } = begin(filters({ eventTypes: ["a.*"] }));
  welcome("a/1", 1, "5");
  frame("b/1", "5", 1, "5", undefined, filters({ eventTypes: ["a.*", "c.*"] }));
  await settle();
  assert.deepEqual(resyncs, []);
  frame("c/1", "5", 1, "5", undefined, filters({ eventTypes: ["c.*"] }));
  await settle();
  assert.deepEqual(resyncs, ["missed"]);
});
