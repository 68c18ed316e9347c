// The scenarios with MQTT.js. How programs are called and answer: ../run.py.

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { deepStrictEqual } from "node:assert";
import mqtt from "mqtt";

const env = process.env;
const WAIT_MS = 10_000;
const URLS = {
  tcp: `mqtt://${env.MQ_HOST}:${env.MQ_PORT}`,
  tls: `mqtts://${env.MQ_HOST}:${env.MQ_TLS_PORT}`,
  ws: `ws://${env.MQ_HOST}:${env.MQ_WS_PORT}/mqtt`,
  wss: `wss://${env.MQ_HOST}:${env.MQ_WSS_PORT}/mqtt`,
};

const inTime = (promise, what) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`no ${what} in time`)), WAIT_MS).unref())]);
const equal = (got, wanted, what) => deepStrictEqual(got, wanted, `${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
const numbered = (count) => Array.from({ length: count }, (_, i) => `m${i}`);
const options = (run, more) => (run.version === 5 ? more : {});

/** One connection. */
class Client {
  static async open(run, role, { clean = true, expiry = 0, via = "tcp", will, password, connect, returns } = {}) {
    const client = new Client();
    client.version = run.version;
    client.messages = [];
    client.waiting = [];
    const properties = options(run, { properties: { sessionExpiryInterval: expiry, ...connect } });
    client.mqtt = mqtt.connect(URLS[via], {
      protocolVersion: run.version,
      clientId: `${run.prefix}-${role}`.replaceAll("/", "-"),
      username: env.MQ_USER,
      password: password ?? env.MQ_PASSWORD,
      clean,
      will,
      reconnectPeriod: returns ? 100 : 0,
      ca: via === "tls" || via === "wss" ? readFileSync(env.MQ_CA) : undefined,
      ...properties,
    });
    // The packet itself may have an alias instead of its topic.
    client.mqtt.on("message", (topic, _payload, packet) => client.take({ ...packet, topic }));
    await inTime(
      new Promise((yes, no) => {
        client.mqtt.once("connect", (connack) => yes((client.present = connack.sessionPresent)));
        client.mqtt.once("error", no);
      }),
      "CONNACK",
    );
    client.mqtt.on("error", () => {});
    run.open.push(client);
    return client;
  }

  take(packet) {
    const next = this.waiting.shift();
    next ? next(packet) : this.messages.push(packet);
  }

  next() {
    if (this.messages.length > 0) return this.messages.shift();
    return inTime(new Promise((yes) => this.waiting.push(yes)), "message");
  }

  async texts(count) {
    const texts = [];
    while (texts.length < count) texts.push((await this.next()).payload.toString());
    return texts;
  }

  /** The granted QoS, or the reason code. */
  async subscribe(filter, qos = 1) {
    const granted = new Promise((yes) => this.mqtt.on("packetreceive", (packet) => packet.cmd === "suback" && yes(packet.granted[0])));
    await this.mqtt.subscribeAsync(filter, { qos }).catch(() => {});
    return inTime(granted, "SUBACK");
  }

  publish(topic, payload, { qos = 1, retain = false, ...properties } = {}) {
    return inTime(this.mqtt.publishAsync(topic, payload, { qos, retain, properties: this.version === 5 ? properties : undefined }), "PUBACK");
  }

  leave() {
    return inTime(this.mqtt.endAsync(), "end");
  }

  /** As a cable that is cut. */
  drop() {
    this.mqtt.stream.destroy();
  }
}

async function stream(run, qos) {
  const [sub, pub] = [await run.client("sub"), await run.client("pub")];
  equal(await sub.subscribe(`${run.prefix}/#`, qos), qos, "granted");
  for (const text of numbered(20)) await pub.publish(run.topic, text, { qos });
  await pub.publish(`${run.prefix}/end`, "end", { qos });
  const got = [];
  while (got.length < 21) got.push(await sub.next());
  equal(got.map((m) => m.payload.toString()), [...numbered(20), "end"], "payloads");
  equal([...new Set(got.map((m) => m.qos))], [qos], "QoS");
}

async function echo(run, { payload = Buffer.from("hello"), ...more } = {}) {
  const client = await run.client("echo", more);
  await client.subscribe(run.topic);
  await client.publish(run.topic, payload);
  equal(payload.equals((await client.next()).payload), true, "the same payload");
}

const scenarios = {
  qos0: (run) => stream(run, 0),
  qos1: (run) => stream(run, 1),
  qos2: (run) => stream(run, 2),
  large: (run) => echo(run, { payload: randomBytes(1024 * 1024) }),
  tls: (run) => echo(run, { via: "tls" }),
  ws: (run) => echo(run, { via: "ws" }),
  wss: (run) => echo(run, { via: "wss" }),

  async session(run) {
    const first = await run.client("away", { clean: false, expiry: 60 });
    await first.subscribe(run.topic);
    await first.leave();
    const pub = await run.client("pub");
    for (const text of numbered(10)) await pub.publish(run.topic, text);
    const again = await run.client("away", { clean: false, expiry: 60, returns: true });
    equal(again.present, true, "session present");
    equal(await again.texts(10), numbered(10), "payloads");
    again.drop();
    await pub.publish(run.topic, "after");
    // It returns by itself.
    for (let message; (message = await again.next()).payload.toString() !== "after"; ) equal(message.dup, true, "what comes again is marked");
    await again.leave();
    equal((await run.client("away")).present, false, "session present after a clean start");
  },

  async will(run) {
    const watcher = await run.client("watcher");
    await watcher.subscribe(`${run.prefix}/will`);
    const mortal = await run.client("mortal", { will: { topic: `${run.prefix}/will`, payload: "gone", qos: 1 } });
    mortal.drop();
    equal(await watcher.texts(1), ["gone"], "will");
  },

  async retained(run) {
    const [pub, late, later] = [await run.client("pub"), await run.client("late"), await run.client("later")];
    await pub.publish(run.topic, "last", { retain: true });
    await late.subscribe(`${run.prefix}/#`);
    const message = await late.next();
    equal([message.payload.toString(), message.retain], ["last", true], "retained");
    await pub.publish(run.topic, "", { retain: true });
    await later.subscribe(`${run.prefix}/#`);
    await pub.publish(`${run.prefix}/end`, "end");
    equal(await later.texts(1), ["end"], "after the removal");
  },

  async shared(run) {
    const [members, pub] = [[await run.client("a"), await run.client("b")], await run.client("pub")];
    for (const member of members) {
      await member.subscribe(`$share/g/${run.topic}`);
      await member.subscribe(`${run.prefix}/end`);
    }
    for (const text of numbered(40)) await pub.publish(run.topic, text);
    await pub.publish(`${run.prefix}/end`, "end");
    const shares = [[], []];
    for (const [i, member] of members.entries()) {
      for (let text; ([text] = await member.texts(1)) && text !== "end"; ) shares[i].push(text);
    }
    equal(shares.flat().sort(), numbered(40).sort(), "messages of both members");
    equal(shares.map((share) => share.length > 0), [true, true], "each member gets some");
  },

  async alias(run) {
    const sub = await run.client("sub", { connect: { topicAliasMaximum: 10 } });
    await sub.subscribe(`${run.prefix}/#`);
    const pub = await run.client("pub");
    for (const text of numbered(3)) await pub.publish(text === "m0" ? run.topic : "", text, { topicAlias: 1 });
    const got = [await sub.next(), await sub.next(), await sub.next()];
    equal(got.map((m) => m.payload.toString()), numbered(3), "payloads");
    equal(got.map((m) => m.topic), [run.topic, run.topic, run.topic], "topics");
    equal(got.map((m) => m.properties?.topicAlias > 0), [true, true, true], "aliases");
  },

  async "receive-maximum"(run) {
    const away = { clean: false, expiry: 60, connect: { receiveMaximum: 2 } };
    const first = await run.client("slow", away);
    await first.subscribe(run.topic);
    await first.leave();
    const pub = await run.client("pub");
    for (const text of numbered(10)) await pub.publish(run.topic, text);
    const slow = await run.client("slow", away);
    equal(await slow.texts(10), numbered(10), "payloads");
    await slow.leave();
    await run.client("slow");
    return "acknowledges by itself: only that nothing stalls can be seen";
  },

  async properties(run) {
    const client = await run.client("client");
    await client.subscribe(run.topic);
    const sent = {
      userProperties: { a: ["1", "3"], b: "2" },
      contentType: "text/plain",
      responseTopic: "reply/here",
      correlationData: Buffer.from([0, 1]),
    };
    await client.publish(run.topic, "x", sent);
    const { userProperties, contentType, responseTopic, correlationData } = (await client.next()).properties;
    equal({ userProperties: { ...userProperties }, contentType, responseTopic, correlationData }, sent, "properties");
  },

  async "wrong-password"(run) {
    const code = await run.client("intruder", { password: "wrong" }).then(
      () => "let in",
      (error) => error.code,
    );
    equal(code, run.version === 5 ? 134 : 4, "reason");
  },

  async "refused-topic"(run) {
    const client = await run.client("client");
    equal(await client.subscribe("forbidden/t"), run.version === 5 ? 135 : 128, "granted");
    if (run.version === 5) {
      const code = await client.publish("forbidden/t", "x").then(
        () => "published",
        (error) => error.code,
      );
      equal(code, 135, "published");
    }
    await echo(run);
  },
};

for (const job of process.argv.slice(2)) {
  const [scenario, version] = job.split("/");
  const prefix = `mqttjs/${version}/${scenario}`;
  const run = { version: Number(version), prefix, topic: `${prefix}/t`, open: [] };
  run.client = (role, more) => Client.open(run, role, more);
  try {
    const unseen = await scenarios[scenario](run);
    console.log(unseen ? `${job} ok partly ${unseen}` : `${job} ok`);
  } catch (error) {
    console.error(error);
    console.log(`${job} failed ${String(error.message).replaceAll("\n", " ")}`);
  }
  for (const client of run.open) client.mqtt.end(true);
}
process.exit(0);
