// Several tabs: one stream for all, a successor without a gap, and honesty where there is one.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Code } from "@connectrpc/connect";

import { Closing_Reason } from "../src/gen/switchboard/notification/v1/notification_pb.js";
import { LiveStream } from "../src/live.js";
import type { LiveOptions } from "../src/live.js";
import { Browser, FakeServer, refusal, settle } from "./fake.js";
import type { Tab } from "./fake.js";

interface Page {
  readonly tab: Tab;
  readonly live: LiveStream;
  readonly events: string[];
  readonly resyncs: string[];
}

class Scene {
  readonly browser = new Browser();
  readonly clock = this.browser.clock;
  readonly server = new FakeServer(this.clock);

  async open(options: Partial<LiveOptions> = {}, prepare: (tab: Tab) => void = () => undefined): Promise<Page> {
    const tab = this.browser.tab();
    prepare(tab);
    const events: string[] = [];
    const resyncs: string[] = [];
    const live = new LiveStream(this.server.client(), {
      user: "7",
      onEvent: ({ id }) => events.push(id),
      onResync: (reason) => void resyncs.push(reason),
      environment: tab,
      ...options,
    });
    live.start();
    await settle();
    return { tab, live, events, resyncs };
  }

  async publish(...ids: string[]): Promise<void> {
    ids.forEach((id) => this.server.publish(id));
    await settle();
  }
}

test("the tabs of a user share one stream, and another user has another", async () => {
  const scene = new Scene();
  const pages = [await scene.open(), await scene.open(), await scene.open()];
  const other = await scene.open({ user: "8" });
  assert.equal(scene.server.streams.length, 2);
  await scene.publish("one", "two");
  for (const page of [...pages, other]) {
    assert.deepEqual([page.events, page.live.status.state], [["one", "two"], "connected"]);
    assert.equal(page.live.cursor, "2");
  }
  scene.server.close(Closing_Reason.DRAIN, true, 5_000);
  await settle();
  assert.deepEqual(pages.map(({ live }) => live.status.retryAt), Array(3).fill(scene.clock.time + 5_000));
  await scene.publish("three");
  await scene.clock.advance(5_000);
  for (const page of pages) {
    assert.deepEqual([page.events.at(-1), page.live.status.state], ["three", "connected"]);
  }
});

test("without locks, or without a user, each tab has its own", async () => {
  const scene = new Scene();
  const alone = (tab: Tab) => (tab.locks = false);
  const pages = [await scene.open({}, alone), await scene.open({}, alone)];
  const nobody = new LiveStream(scene.server.client(), { onEvent: () => undefined, environment: scene.browser.tab() });
  nobody.start();
  await settle();
  assert.equal(scene.server.streams.length, 3);
  await scene.publish("one");
  assert.deepEqual(pages.map(({ events }) => events), [["one"], ["one"]]);
});

test("when the tab with the stream goes, the next takes over without a gap", async () => {
  const scene = new Scene();
  const pages = [await scene.open(), await scene.open(), await scene.open()];
  await scene.publish("one");
  for (const [index, page] of pages.slice(0, 2).entries()) {
    page.live.stop();
    // Nobody has a stream at this moment.
    scene.server.publish(`between ${index}`);
    await settle();
    assert.equal(scene.server.streams.length, 1);
    await scene.publish(`after ${index}`);
  }
  const expected = ["one", "between 0", "after 0", "between 1", "after 1"];
  assert.deepEqual(pages[2]?.events, expected);
  assert.deepEqual(pages[1]?.events, expected.slice(0, 3));
  assert.deepEqual(pages.map(({ resyncs }) => resyncs), [[], [], []]);
});

test("a page that is put away gives the stream on, and comes back to it", async () => {
  const scene = new Scene();
  const [first, second] = [await scene.open(), await scene.open()];
  await scene.publish("one");
  first.tab.tell("leave");
  await settle();
  assert.equal(scene.server.streams.length, 1);
  await scene.publish("two");
  first.tab.tell("return");
  await settle();
  await scene.publish("three");
  assert.deepEqual([first.events, second.events], [["one", "two", "three"], ["one", "two", "three"]]);
  second.live.stop();
  await scene.publish("four");
  assert.deepEqual(first.events.at(-1), "four");
});

test("a tab in the background leaves the stream to one that is seen, and goes on to hear of it", async () => {
  const scene = new Scene();
  const [first, second] = [await scene.open(), await scene.open()];
  first.tab.show(false);
  for (let beats = 0; beats < 16; beats += 1) {
    await scene.clock.advance(20_000);
    scene.server.heartbeat();
  }
  await scene.publish("one");
  assert.equal(scene.server.streams.length, 1);
  assert.deepEqual([first.events, second.events], [["one"], ["one"]]);
  assert.equal(first.live.status.state, "connected");

  second.tab.show(false);
  await scene.clock.advance(300_001);
  assert.equal(scene.server.streams.length, 0);
  assert.deepEqual([first.live.status.reason, second.live.status.reason], ["hidden", "hidden"]);
  await scene.publish("two");
  first.tab.show(true);
  await settle();
  assert.deepEqual([first.events.at(-1), second.events.at(-1)], ["two", "two"]);
  assert.deepEqual([first.resyncs, second.resyncs], [[], []]);
});

test("a tab that gave the stream up still gets what it asked for", async () => {
  const scene = new Scene();
  const [tickets, chats] = [await scene.open({ eventTypes: ["ticket.*"] }), await scene.open({ eventTypes: ["chat.*"] })];
  tickets.tab.show(false);
  for (let beats = 0; beats < 16; beats += 1) {
    await scene.clock.advance(20_000);
    scene.server.heartbeat();
  }
  await settle();
  assert.deepEqual(scene.server.requests[1]?.eventTypes, ["chat.*", "ticket.*"]);
  scene.server.publish("one", "ticket.new");
  await settle();
  assert.deepEqual([tickets.events, tickets.resyncs, chats.events], [["one"], [], []]);
});

test("each tab gets what it asked for of the one stream, also after a change and a change of hands", async () => {
  const scene = new Scene();
  const tickets = await scene.open({ eventTypes: ["ticket.*"] });
  const chats = await scene.open({ eventTypes: ["chat.*"] });
  const users = await scene.open({ eventTypes: ["user.*"] });
  assert.deepEqual([scene.server.requests.length, scene.server.updates.length], [1, 2]);
  const all = async (n: number) => {
    ["ticket", "chat", "user", "mail"].forEach((type) => scene.server.publish(`${type}${n}`, `${type}.new`));
    await settle();
  };
  await all(1);
  await users.live.update({ eventTypes: ["mail.*"] });
  await all(2);
  tickets.live.stop();
  await all(3);
  assert.deepEqual(tickets.events, ["ticket1", "ticket2"]);
  assert.deepEqual(chats.events, ["chat1", "chat2", "chat3"]);
  assert.deepEqual(users.events, ["user1", "mail2", "mail3"]);
  assert.deepEqual([scene.server.streams.length, scene.server.requests.length], [1, 2]);
  assert.deepEqual(
    [chats.resyncs, users.resyncs, scene.server.requests[1]?.eventTypes],
    [[], [], ["chat.*", "mail.*"]],
    "the successor knew what the others want",
  );
});

test("a wish that the server refuses is its tab's own affair", async () => {
  const scene = new Scene();
  const first = await scene.open({ eventTypes: ["a.*"] });
  scene.server.rigid = refusal(Code.PermissionDenied);
  const second = await scene.open({ eventTypes: ["secret"] });
  assert.deepEqual([second.live.status.reason, first.live.status.state], ["refused", "connected"]);
  scene.server.rigid = undefined;
  await second.live.update({ eventTypes: ["b.*"] });
  assert.equal(second.live.status.state, "connected");
  scene.server.rigid = refusal(Code.PermissionDenied);
  await assert.rejects(second.live.update({ eventTypes: ["secret"] }), /refused/);
  scene.server.publish("a", "a.b");
  scene.server.publish("b", "b.c");
  await settle();
  assert.deepEqual([first.events, second.events], [["a"], ["b"]]);
});

test("a tab that missed something says so", async () => {
  const scene = new Scene();
  const [first, second] = [await scene.open(), await scene.open()];
  await scene.publish("one");
  second.tab.frozen = true;
  await scene.publish("two");
  second.tab.frozen = false;
  await scene.publish("three");
  assert.deepEqual([first.resyncs, second.resyncs], [[], ["missed"]]);
  assert.deepEqual([first.events, second.events], [["one", "two", "three"], ["one", "three"]]);

  second.tab.frozen = true;
  await scene.publish("four");
  scene.server.drop("end");
  await scene.clock.advance(2_000);
  second.tab.frozen = false;
  await scene.publish("five");
  assert.deepEqual(second.resyncs, ["missed", "missed"], "also when the stream was opened anew meanwhile");

  const joined = await scene.open({ cursor: "1" });
  assert.deepEqual(joined.resyncs, ["missed"], "the shared stream does not go back for one tab");
});

test("the newest values are there for tabs that join later", async () => {
  const scene = new Scene();
  const first = await scene.open({ snapshot: true });
  scene.server.whisper("old", "dashboard", "server");
  scene.server.whisper("new", "dashboard", "server");
  scene.server.whisper("other", "dashboard", "load");
  await settle();
  const second = await scene.open({ snapshot: true });
  assert.deepEqual([first.events, second.events], [["old", "new", "other"], ["new", "other"]]);
});

test("a refusal is tried once by each tab, and then all is quiet", async () => {
  const scene = new Scene();
  const pages = [await scene.open(), await scene.open(), await scene.open()];
  scene.server.down = refusal(Code.PermissionDenied);
  scene.server.drop("end");
  await scene.clock.advance(3_600_000);
  assert.equal(scene.server.requests.length, 1 + pages.length);
  assert.deepEqual(pages.map(({ live }) => live.status.reason), Array(3).fill("refused"));
  scene.server.down = undefined;
  pages[1]?.live.start();
  await settle();
  await scene.publish("one");
  assert.deepEqual(pages.map(({ live, events }) => [live.status.state, ...events]), Array(3).fill(["connected", "one"]));
});
