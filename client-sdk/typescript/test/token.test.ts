// Tokens: fetched when needed, renewed before they end, and never come back with when they were refused.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { TokenSource, expiry } from "../src/credentials.js";
import { Closing_Reason } from "../src/gen/switchboard/notification/v1/notification_pb.js";
import { LiveStream } from "../src/live.js";
import { Browser, FakeServer, refusal, settle } from "./fake.js";

const MINUTE = 60_000;

/** A stream whose tokens are `t1`, `t2` and so on, each valid for ten minutes after it was fetched. */
function begin() {
  const browser = new Browser();
  const { clock } = browser;
  const server = new FakeServer(clock);
  const made = new Map<string, number>();
  server.tokenExpireTime = (token) => (made.get(token) ?? 0) + 10 * MINUTE;
  const credentials = async () => {
    const token = `t${made.size + 1}`;
    made.set(token, clock.time);
    return token;
  };
  const events: string[] = [];
  const live = new LiveStream(server.client(credentials), {
    onEvent: ({ id }) => events.push(id),
    environment: browser.tab(),
  });
  live.start();
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= 10_000) {
      await clock.advance(Math.min(left, 10_000));
      server.heartbeat();
    }
    await settle();
  };
  return { clock, server, made, live, events, pass };
}

test("an open stream gets a new token before the old one ends", async () => {
  const { server, made, live, pass } = begin();
  await pass(8.9 * MINUTE);
  assert.deepEqual(server.refreshes, []);
  await pass(0.2 * MINUTE);
  assert.deepEqual(server.refreshes, ["t2"]);
  await pass(9 * MINUTE);
  assert.deepEqual(server.refreshes, ["t2", "t3"]);
  assert.deepEqual([server.requests.length, made.size, live.status.state], [1, 3, "connected"]);
});

test("where a stream can not be kept it is opened anew with the new token", async () => {
  for (const code of [Code.Unimplemented, Code.NotFound]) {
    const { server, live, events, pass } = begin();
    server.stubborn = refusal(code);
    await pass(8.5 * MINUTE);
    server.publish("one");
    await pass(MINUTE);
    server.publish("two");
    await settle();
    assert.deepEqual([server.requests.length, server.streams[0]?.token], [2, "t2"]);
    assert.deepEqual([live.status.state, events], ["connected", ["one", "two"]]);
  }
});

test("a refresh that nobody answers is tried again", async () => {
  const { server, pass } = begin();
  server.stubborn = new ConnectError("nobody there", Code.Unavailable);
  await pass(9.2 * MINUTE);
  const tries = server.refreshes.length;
  assert.ok(tries >= 2, String(tries));
  server.stubborn = undefined;
  await pass(MINUTE);
  assert.equal(server.requests.length, 1);
});

test("where there is no newer token it is asked for again, and not too often", async () => {
  const { clock, server, made, pass } = begin();
  await settle();
  const end = clock.time + 10 * MINUTE;
  server.tokenExpireTime = () => end;
  await pass(10 * MINUTE);
  assert.ok(server.refreshes.length >= 5 && server.refreshes.length <= 14, String(server.refreshes.length));
  assert.equal(made.size, server.refreshes.length + 1);
});

test("tokens that have always ended make no storm", async () => {
  const { clock, server, pass } = begin();
  server.tokenExpireTime = () => clock.time;
  server.stubborn = refusal(Code.Unimplemented);
  await pass(5 * MINUTE);
  assert.ok(server.requests.length < 40, String(server.requests.length));
});

test("a refused token is replaced once, and then it is over", async () => {
  const { server, live, pass } = begin();
  server.tokens = new Set(["t2"]);
  await settle();
  assert.deepEqual([live.status.state, server.streams[0]?.token], ["connected", "t2"]);
  server.tokens = new Set();
  server.drop("end");
  await pass(MINUTE);
  assert.deepEqual([live.status.state, live.status.reason], ["disconnected", "refused"]);
  assert.equal(server.requests.length, 4);
});

test("the server ends a token: the stream comes back with another, and never with the same", async () => {
  const { server, live, pass } = begin();
  await settle();
  server.close(Closing_Reason.KEY_ENDED, false);
  await pass(2_000);
  assert.deepEqual([live.status.state, server.streams[0]?.token], ["connected", "t2"]);

  const browser = new Browser();
  const other = new FakeServer(browser.clock);
  const same = new LiveStream(other.client(), { onEvent: () => undefined, environment: browser.tab() });
  same.start();
  await settle();
  other.close(Closing_Reason.KEY_ENDED, false);
  await browser.clock.advance(MINUTE);
  assert.deepEqual([same.status.reason, other.requests.length], ["refused", 1]);
});

test("an application that has no token now is asked again", async () => {
  const browser = new Browser();
  const server = new FakeServer(browser.clock);
  let asked = 0;
  const credentials = () => (++asked < 3 ? Promise.reject(new Error("offline")) : Promise.resolve("key"));
  const live = new LiveStream(server.client(credentials), { onEvent: () => undefined, environment: browser.tab() });
  live.start();
  await settle();
  assert.equal(live.status.reason, "lost");
  await browser.clock.advance(10_000);
  assert.deepEqual([live.status.state, asked], ["connected", 3]);
});

test("a call whose token is refused is made once more with another", async () => {
  const browser = new Browser();
  const server = new FakeServer(browser.clock);
  const tokens = ["old", "new"];
  const client = server.client(async () => tokens.shift() ?? "new");
  server.tokens = new Set(["new"]);
  const counted = await client.notifications.getUnreadCount({ userId: "7" });
  assert.equal(counted.counts?.unread, 7n);
  server.tokens = new Set();
  await assert.rejects(client.notifications.getUnreadCount({ userId: "7" }), /refused/);
});

test("a token is fetched once for all, and anew when it is about to end", async () => {
  let now = 0;
  let asked = 0;
  const token = (seconds: number) => `a.${btoa(JSON.stringify({ exp: seconds }))}.c`;
  const source = new TokenSource(
    async () => {
      asked += 1;
      return token(now / 1000 + 60);
    },
    () => now,
  );
  const [one, two] = await Promise.all([source.get(), source.get()]);
  assert.deepEqual([one, asked], [two, 1]);
  now = 49_000;
  await source.get();
  assert.equal(asked, 1);
  now = 51_000;
  await source.get();
  assert.equal(asked, 2);
  assert.deepEqual(["swb_live_x", "a.b.c", "a.!.c", ""].map(expiry), [undefined, undefined, undefined, undefined]);
});
