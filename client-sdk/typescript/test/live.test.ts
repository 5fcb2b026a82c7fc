// One tab: reconnecting, resuming, giving up, and what the application is told.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { Closing_Reason } from "../src/gen/switchboard/notification/v1/notification_pb.js";
import { LiveStream } from "../src/live.js";
import type { LiveOptions } from "../src/live.js";
import { Browser, FakeServer, refusal, settle } from "./fake.js";
import type { Tab } from "./fake.js";

/** A page with a live stream, and what it was told. */
class Page {
  readonly events: string[] = [];
  readonly resyncs: string[] = [];
  readonly states: string[] = [];
  readonly errors: unknown[] = [];
  readonly live: LiveStream;

  constructor(
    server: FakeServer,
    readonly tab: Tab,
    options: Partial<LiveOptions> = {},
    credentials?: () => Promise<string>,
  ) {
    this.live = new LiveStream(server.client(credentials), {
      onEvent: ({ id }) => this.events.push(id),
      onResync: (reason) => void this.resyncs.push(reason),
      onError: (error) => this.errors.push(error),
      environment: tab,
      ...options,
    });
    this.live.observe(() => {
      const { state, reason } = this.live.status;
      const said = reason === undefined ? state : `${state}: ${reason}`;
      if (this.states.at(-1) !== said) {
        this.states.push(said);
      }
    });
  }
}

function begin(options: Partial<LiveOptions> = {}, credentials?: () => Promise<string>) {
  const browser = new Browser();
  const server = new FakeServer(browser.clock);
  const page = new Page(server, browser.tab(), options, credentials);
  page.live.start();
  return { browser, clock: browser.clock, server, page };
}

test("events arrive, and states are told", async () => {
  const { server, page } = begin({ eventTypes: ["a.*"] });
  assert.equal(page.live.status.state, "connecting");
  await settle();
  assert.equal(page.live.status.state, "connected");
  ["one", "two"].forEach((id) => server.publish(id));
  server.publish("three", "b.c");
  await settle();
  assert.deepEqual(page.events, ["one", "two"]);
  assert.equal(page.live.cursor, "3", "what was passed over is behind it as well");
  page.live.stop();
  await settle();
  assert.deepEqual(page.states, ["connecting", "connected", "disconnected: stopped"]);
  assert.equal(server.streams.length, 0);
});

test("the three ways in which a stream is lost are one, and nothing is missed or told twice", async () => {
  const { clock, server, page } = begin();
  await settle();
  const ways = [
    () => server.drop("end"),
    () => server.drop(new ConnectError("the network is gone", Code.Unavailable)),
    // Nothing but silence: 20 s of the heartbeat and 10 s more.
    () => clock.advance(30_001),
  ];
  for (const [index, lose] of ways.entries()) {
    server.publish(`before ${index}`);
    await settle();
    await lose();
    server.publish(`while ${index}`);
    await settle();
    assert.equal(page.live.status.reason, "lost", String(index));
    await clock.advance(30_000);
    assert.equal(page.live.status.state, "connected", String(index));
  }
  assert.deepEqual(page.events, [0, 1, 2].flatMap((index) => [`before ${index}`, `while ${index}`]));
  assert.deepEqual(page.resyncs, []);
});

test("heartbeats keep a silent stream", async () => {
  const { clock, server, page } = begin();
  for (let beat = 0; beat < 10; beat += 1) {
    await clock.advance(20_000);
    server.heartbeat();
  }
  await settle();
  assert.deepEqual(page.states, ["connecting", "connected"]);
  assert.equal(server.requests.length, 1);
});

test("pauses double up to half a minute, without end, and begin anew after a healthy minute", async () => {
  const { clock, server, page } = begin();
  page.tab.chance = 0.999;
  server.down = new ConnectError("nobody there", Code.Unavailable);
  const pauses: number[] = [];
  await settle();
  for (let tries = 0; tries < 30; tries += 1) {
    const retryAt = page.live.status.retryAt ?? 0;
    pauses.push(Math.round((retryAt - clock.time) / 1000));
    await clock.advance(Math.ceil(retryAt - clock.time));
  }
  assert.deepEqual(pauses.slice(0, 7), [1, 2, 4, 8, 16, 30, 30]);
  assert.ok(pauses.slice(6).every((pause) => pause === 30));

  const pauseAfter = async (lasting: number) => {
    server.down = undefined;
    await clock.advance(30_000);
    assert.equal(page.live.status.state, "connected");
    for (let left = lasting; left > 0; left -= 10_000) {
      await clock.advance(10_000);
      server.heartbeat();
    }
    await settle();
    server.drop("end");
    await settle();
    return (page.live.status.retryAt ?? 0) - clock.time;
  };
  assert.ok((await pauseAfter(20_000)) > 29_000);
  assert.ok((await pauseAfter(60_000)) < 1_001);
});

test("pauses are by chance", async () => {
  const { clock, server, page } = begin();
  await settle();
  page.tab.chance = 0.25;
  server.drop("end");
  await settle();
  assert.equal(page.live.status.retryAt, clock.time + 250);
});

test("the time that the server names wins, and being back online does not shorten it", async () => {
  const { clock, server, page } = begin();
  await settle();
  server.close(Closing_Reason.DRAIN, true, 12_000);
  await settle();
  assert.deepEqual([page.live.status.reason, page.live.status.retryAt], ["closed", clock.time + 12_000]);
  page.tab.tell("online");
  await clock.advance(11_999);
  assert.equal(page.live.status.state, "disconnected");
  await clock.advance(1);
  assert.equal(page.live.status.state, "connected");

  const busy = new ConnectError("too many", Code.ResourceExhausted, { "retry-after": "7" });
  server.down = busy;
  server.drop("end");
  await clock.advance(1_000);
  assert.equal(page.live.status.retryAt, clock.time - 500 + 7_000);
});

test("there is one try at once when the network or the user is back", async () => {
  const { clock, server, page } = begin();
  await settle();
  server.down = new ConnectError("nobody there", Code.Unavailable);
  server.drop("end");
  await clock.advance(60_000);
  const tries = server.requests.length;
  page.tab.tell("online");
  await settle();
  assert.equal(server.requests.length, tries + 1);
  await clock.advance(10);
  assert.equal(server.requests.length, tries + 1, "one, and then the pauses go on");
  server.down = undefined;
  page.tab.show(true);
  await settle();
  assert.equal(page.live.status.state, "connected");
});

test("a server that will not have it back is left alone until the application starts again", async () => {
  const { clock, server, page } = begin();
  await settle();
  server.close(Closing_Reason.DISABLED, false);
  await clock.advance(3_600_000);
  page.tab.tell("online");
  page.tab.show(true);
  await settle();
  assert.deepEqual(page.states.at(-1), "disconnected: refused");
  assert.match(page.live.status.message ?? "", /disabled/);
  assert.equal(server.requests.length, 1);
  server.publish("meanwhile");
  page.live.start();
  await settle();
  assert.equal(page.live.status.state, "connected");
  assert.deepEqual(page.events, ["meanwhile"]);
});

test("what the server refuses is final, and what a proxy says is not", async () => {
  const { clock, server, page } = begin();
  server.down = new ConnectError("HTTP 403", Code.PermissionDenied);
  await clock.advance(60_000);
  assert.equal(page.live.status.reason, "lost");
  server.down = refusal(Code.PermissionDenied);
  await clock.advance(60_000);
  assert.equal(page.live.status.reason, "refused");
});

test("a gap is told, and events wait until the application has its state anew", async () => {
  let fetched: () => void = () => undefined;
  const order: string[] = [];
  const { clock, server, page } = begin({
    onResync: (reason) => {
      order.push(reason);
      return new Promise<void>((done) => (fetched = done));
    },
    onEvent: ({ id }) => void order.push(id),
  });
  await settle();
  server.publish("one");
  await settle();
  server.drop("end");
  server.publish("two");
  server.start = 2;
  await clock.advance(2_000);
  server.publish("three");
  await settle();
  assert.deepEqual(order, ["one", "cursor_expired"]);
  assert.equal(page.live.cursor, "1", "what the application does not have is not behind it");
  fetched();
  await settle();
  assert.deepEqual(order, ["one", "cursor_expired", "three"]);
  assert.equal(page.live.cursor, "3");
});

test("what the application throws is told and ends nothing", async () => {
  const { server, page } = begin({
    onEvent: () => {
      throw new Error("mine");
    },
  });
  await settle();
  server.publish("one");
  server.publish("two");
  await settle();
  assert.equal(page.errors.length, 2);
  assert.equal(page.live.status.state, "connected");
});

test("the place in the log is kept for the user, across pages", async () => {
  const kept = new Map<string, string>();
  const store = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
  };
  const { browser, clock, server, page } = begin({ user: "7", store });
  await settle();
  server.publish("one");
  await clock.advance(1_000);
  assert.deepEqual([...kept.values()], ["1"]);
  page.live.stop();
  server.publish("two");
  const later = new Page(server, browser.tab(), { user: "7", store });
  const other = new Page(server, browser.tab(), { user: "8", store });
  later.live.start();
  other.live.start();
  await settle();
  assert.deepEqual([later.events, other.events], [["two"], []]);
});

test("a page that is hidden for long has no stream, and misses nothing", async () => {
  const { clock, server, page } = begin();
  await settle();
  page.tab.show(false);
  for (let minutes = 0; minutes < 5; minutes += 1) {
    assert.equal(server.streams.length, 1, String(minutes));
    for (let beats = 0; beats < 3; beats += 1) {
      await clock.advance(20_000);
      server.heartbeat();
    }
  }
  await settle();
  assert.equal(server.streams.length, 0);
  assert.equal(page.live.status.reason, "hidden");
  server.publish("unseen");
  page.tab.tell("online");
  await clock.advance(60_000);
  assert.equal(server.streams.length, 0);
  page.tab.show(true);
  await settle();
  assert.deepEqual(page.events, ["unseen"]);
  page.tab.show(false);
  await clock.advance(15_000);
  page.tab.show(true);
  server.heartbeat();
  await clock.advance(15_000);
  assert.equal(page.live.status.state, "connected", "a short look elsewhere changes nothing");
});

test("what is wanted can be changed without a drop, also where the server can not", async () => {
  const { clock, server, page } = begin({ eventTypes: ["a.*"] });
  await settle();
  await page.live.update({ eventTypes: ["b.*"] });
  await page.live.update({ eventTypes: ["c.*"] });
  assert.deepEqual([server.requests.length, server.updates.map(({ generation }) => generation)], [1, [1n, 2n]]);
  ["a.x", "b.x", "c.x"].forEach((type) => server.publish(type, type));
  await settle();
  assert.deepEqual(page.events, ["c.x"]);

  server.rigid = refusal(Code.Unimplemented);
  await page.live.update({ eventTypes: ["d.*"] });
  assert.equal(server.requests.length, 2);
  server.publish("d.x", "d.x");
  await settle();
  assert.deepEqual(page.events, ["c.x", "d.x"]);

  server.rigid = refusal(Code.PermissionDenied);
  await assert.rejects(page.live.update({ eventTypes: ["secret"] }), /refused/);
  server.publish("d.y", "d.y");
  server.publish("secret", "secret");
  await settle();
  assert.deepEqual(page.events, ["c.x", "d.x", "d.y"], "what was refused changes nothing");

  server.rigid = undefined;
  server.drop("end");
  const changed = page.live.update({ eventTypes: ["e.*"] });
  await clock.advance(2_000);
  await changed;
  server.publish("e.x", "e.x");
  await settle();
  assert.deepEqual(page.events.at(-1), "e.x");
});

test("events that come twice are told once", async () => {
  const { clock, server, page } = begin();
  await settle();
  server.publish("one");
  await settle();
  const [event] = server.events;
  assert.ok(event);
  // Another event of the log with the id of the first.
  server.publish("one");
  server.publish("two");
  await clock.advance(0);
  assert.deepEqual(page.events, ["one", "two"]);
});
