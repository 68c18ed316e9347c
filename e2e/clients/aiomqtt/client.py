"""The scenarios with aiomqtt. How programs are called and answer: ../run.py."""

import asyncio
import os
import socket
import sys
import traceback
from contextlib import AsyncExitStack

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ENV = os.environ
WAIT_S = 10


class Cannot(Exception):
    """The library has no way to do this."""


class Client:
    """One connection; everything waits at most WAIT_S."""

    def __init__(self, run, role, clean=True, expiry_s=0, will=None, via="tcp", password=None, connect=None):
        self.version = run.version
        more = {"clean_session": clean} if run.version == 4 else {"clean_start": clean}
        if run.version == 5:
            more["properties"] = Properties(PacketTypes.CONNECT)
            more["properties"].SessionExpiryInterval = expiry_s
            for name, value in (connect or {}).items():
                setattr(more["properties"], name, value)
        if via in ("tls", "wss"):
            more["tls_params"] = aiomqtt.TLSParameters(ca_certs=ENV["MQ_CA"])
        port = ENV[{"tcp": "MQ_PORT", "tls": "MQ_TLS_PORT", "ws": "MQ_WS_PORT", "wss": "MQ_WSS_PORT"}[via]]
        self.mqtt = aiomqtt.Client(
            ENV["MQ_HOST"],
            int(port),
            username=ENV["MQ_USER"],
            password=password or ENV["MQ_PASSWORD"],
            identifier=f"{run.prefix}-{role}".replace("/", "-"),
            protocol=aiomqtt.ProtocolVersion.V5 if run.version == 5 else aiomqtt.ProtocolVersion.V311,
            transport="websockets" if via in ("ws", "wss") else "tcp",
            websocket_path="/mqtt" if via in ("ws", "wss") else None,
            will=will,
            timeout=WAIT_S,
            **more,
        )

    async def subscribe(self, topic, qos=1):
        granted = await self.mqtt.subscribe(topic, qos)
        return getattr(granted[0], "value", granted[0])

    async def publish(self, topic, payload, qos=1, retain=False, **properties):
        given = None
        if self.version == 5:
            given = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                for one in value if name == "UserProperty" else [value]:
                    setattr(given, name, one)
        await self.mqtt.publish(topic, payload, qos, retain, properties=given)

    async def next(self):
        return await asyncio.wait_for(anext(self.mqtt.messages), WAIT_S)

    async def texts(self, count):
        return [(await self.next()).payload.decode() for _ in range(count)]


class Run:
    """One scenario under one version of the protocol."""

    def __init__(self, scenario, version, stack):
        self.scenario, self.version, self.stack = scenario, version, stack
        self.prefix = f"aiomqtt/{version}/{scenario}"
        self.topic = f"{self.prefix}/t"

    async def client(self, role, **options):
        """Connected until the scenario ends."""
        client = Client(self, role, **options)
        await self.stack.enter_async_context(client.mqtt)
        return client

    async def stream(self, qos):
        sub, pub = await self.client("sub"), await self.client("pub")
        equal(await sub.subscribe(f"{self.prefix}/#", qos), qos, "granted")
        for i in range(20):
            await pub.publish(self.topic, f"m{i}", qos)
        await pub.publish(f"{self.prefix}/end", "end", qos)
        got = [await sub.next() for _ in range(21)]
        equal([m.payload.decode() for m in got], [f"m{i}" for i in range(20)] + ["end"], "payloads")
        equal({m.qos for m in got}, {qos}, "QoS")

    async def qos0(self):
        await self.stream(0)

    async def qos1(self):
        await self.stream(1)

    async def qos2(self):
        await self.stream(2)

    async def echo(self, payload=b"hello", **options):
        client = await self.client("echo", **options)
        await client.subscribe(self.topic)
        await client.publish(self.topic, payload)
        equal((await client.next()).payload == payload, True, "the same payload")

    async def large(self):
        await self.echo(payload=os.urandom(1024 * 1024))

    async def tls(self):
        await self.echo(via="tls")

    async def ws(self):
        await self.echo(via="ws")

    async def wss(self):
        await self.echo(via="wss")

    async def session(self):
        # The library does not say whether a session was present; what arrives does.
        async with Client(self, "away", clean=False, expiry_s=60).mqtt as first:
            await first.subscribe(self.topic, 1)
        pub = await self.client("pub")
        for i in range(10):
            await pub.publish(self.topic, f"m{i}")
        again = Client(self, "away", clean=False, expiry_s=60)
        async with again.mqtt:
            equal(await again.texts(10), [f"m{i}" for i in range(10)], "payloads")
        fresh = await self.client("away", clean=True)
        await pub.publish(self.topic, "for nobody")
        await fresh.subscribe(f"{self.prefix}/end")
        await pub.publish(f"{self.prefix}/end", "end")
        equal(await fresh.texts(1), ["end"], "after a clean start")

    async def will(self):
        watcher = await self.client("watcher")
        await watcher.subscribe(f"{self.prefix}/will")
        mortal = Client(self, "mortal", will=aiomqtt.Will(f"{self.prefix}/will", "gone", 1))
        try:
            async with mortal.mqtt as client:
                client._client.socket().shutdown(socket.SHUT_RDWR)
                await anext(client.messages)
        except aiomqtt.MqttError:
            pass  # that is the point
        equal(await watcher.texts(1), ["gone"], "will")

    async def retained(self):
        pub = await self.client("pub")
        await pub.publish(self.topic, "last", retain=True)
        late = await self.client("late")
        await late.subscribe(f"{self.prefix}/#")
        message = await late.next()
        equal((message.payload, message.retain), (b"last", True), "retained")
        await pub.publish(self.topic, b"", retain=True)
        later = await self.client("later")
        await later.subscribe(f"{self.prefix}/#")
        await pub.publish(f"{self.prefix}/end", "end")
        equal(await later.texts(1), ["end"], "after the removal")

    async def shared(self):
        members, pub = [await self.client("a"), await self.client("b")], await self.client("pub")
        for member in members:
            await member.subscribe(f"$share/g/{self.topic}")
            await member.subscribe(f"{self.prefix}/end")
        for i in range(40):
            await pub.publish(self.topic, f"m{i}")
        await pub.publish(f"{self.prefix}/end", "end")
        shares = [[], []]
        for member, share in zip(members, shares):
            while (payload := (await member.texts(1))[0]) != "end":
                share.append(payload)
        equal(sorted(shares[0] + shares[1]), sorted(f"m{i}" for i in range(40)), "messages of both members")
        equal([bool(share) for share in shares], [True, True], "each member gets some")

    async def alias(self):
        sub, pub = await self.client("sub"), await self.client("pub")
        await sub.subscribe(f"{self.prefix}/#")
        for i in range(3):
            await pub.publish("" if i else self.topic, f"m{i}", TopicAlias=1)
        got = [await sub.next() for _ in range(3)]
        equal([(m.topic.value, m.payload) for m in got], [(self.topic, f"m{i}".encode()) for i in range(3)], "messages")
        # A message without a topic is an error for this library.
        return "takes no aliases of the broker's"

    async def receive_maximum(self):
        away = {"clean": False, "expiry_s": 60, "connect": {"ReceiveMaximum": 2}}
        async with Client(self, "slow", **away).mqtt as first:
            await first.subscribe(self.topic, 1)
        pub = await self.client("pub")
        for i in range(10):
            await pub.publish(self.topic, f"m{i}")
        slow = Client(self, "slow", **away)
        async with slow.mqtt:
            equal(await slow.texts(10), [f"m{i}" for i in range(10)], "payloads")
        await self.client("slow")
        return "acknowledges by itself: only that nothing stalls can be seen"

    async def properties(self):
        client = await self.client("client")
        await client.subscribe(self.topic)
        sent = {
            "UserProperty": [("a", "1"), ("b", "2"), ("a", "3")],
            "ContentType": "text/plain",
            "ResponseTopic": "reply/here",
            "CorrelationData": b"\x00\x01",
        }
        await client.publish(self.topic, "x", **sent)
        got = (await client.next()).properties
        equal({name: getattr(got, name) for name in sent}, sent, "properties")

    async def wrong_password(self):
        try:
            await self.client("intruder", password="wrong")
        except aiomqtt.MqttError as error:
            equal(getattr(error.rc, "value", error.rc), 134, "reason")
        else:
            raise AssertionError("the client was let in")

    async def refused_topic(self):
        client = await self.client("client")
        equal(await client.subscribe("forbidden/t"), 135 if self.version == 5 else 128, "granted")
        await client.publish("forbidden/t", "x")
        await self.echo()
        return "does not show the answer to a publish" if self.version == 5 else None


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


async def do(job):
    scenario, version = job.split("/")
    async with AsyncExitStack() as stack:
        run = Run(scenario, int(version), stack)
        return await getattr(run, scenario.replace("-", "_"))()


def main():
    for job in sys.argv[1:]:
        try:
            unseen = asyncio.run(asyncio.wait_for(do(job), 2 * WAIT_S))
            print(job, f"ok partly {unseen}" if unseen else "ok", flush=True)
        except Cannot as why:
            print(job, "cannot", why, flush=True)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            print(job, "failed", repr(error).replace("\n", " "), flush=True)


main()
