"""The scenarios with paho-mqtt. How programs are called and answer: ../run.py."""

import hashlib
import os
import queue
import sys
import traceback

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

ENV = os.environ
WAIT_S = 10


class Cannot(Exception):
    """The library has no way to do this."""


class Client:
    """One connection; everything waits at most WAIT_S."""

    def __init__(self, run, role, clean=True, expiry_s=0, will=None, via="tcp", password=None, connect=None, manual=False, returns=False):
        self.v5 = run.version == 5
        self.messages, self.events = queue.Queue(), queue.Queue()
        options = {} if self.v5 else {"clean_session": clean}
        transport = "websockets" if via in ("ws", "wss") else "tcp"
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{run.prefix}-{role}".replace("/", "-"),
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            transport=transport,
            reconnect_on_failure=returns,
            manual_ack=manual,
            **options,
        )
        self.mqtt.username_pw_set(ENV["MQ_USER"], password or ENV["MQ_PASSWORD"])
        if via in ("tls", "wss"):
            self.mqtt.tls_set(ca_certs=ENV["MQ_CA"])
        if will:
            self.mqtt.will_set(*will)
        self.mqtt.on_message = lambda c, u, message: self.messages.put(message)
        self.mqtt.on_connect = lambda c, u, flags, reason, p: self.events.put((flags.session_present, reason))
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: self.events.put(reasons[0])
        self.mqtt.on_publish = lambda c, u, mid, reason, p: self.events.put(reason)
        more = {}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry_s
            for name, value in (connect or {}).items():
                setattr(properties, name, value)
            more = {"clean_start": clean, "properties": properties}
        port = ENV[{"tcp": "MQ_PORT", "tls": "MQ_TLS_PORT", "ws": "MQ_WS_PORT", "wss": "MQ_WSS_PORT"}[via]]
        self.mqtt.connect(ENV["MQ_HOST"], int(port), keepalive=30, **more)
        self.mqtt.loop_start()
        self.present, self.reason = self.events.get(timeout=WAIT_S)

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, options=SubscribeOptions(qos=qos)) if self.v5 else self.mqtt.subscribe(topic, qos)
        return self.events.get(timeout=WAIT_S)

    def publish(self, topic, payload, qos=1, retain=False, **properties):
        given = None
        if self.v5:
            given = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                for one in value if name == "UserProperty" else [value]:
                    setattr(given, name, one)
        self.mqtt.publish(topic, payload, qos, retain, given)
        return self.events.get(timeout=WAIT_S)

    def next(self, timeout=WAIT_S):
        return self.messages.get(timeout=timeout)

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def cut(self):
        """As a cable that is cut."""
        self.mqtt.socket().shutdown(2)

    def drop(self):
        self.cut()
        self.mqtt.loop_stop()


class Run:
    """One scenario under one version of the protocol."""

    def __init__(self, scenario, version):
        self.scenario, self.version = scenario, version
        self.prefix = f"paho/{version}/{scenario}"

    def client(self, role, **options):
        client = Client(self, role, **options)
        equal(client.reason.is_failure, False, "connected")
        return client

    def start(self):
        getattr(self, self.scenario.replace("-", "_"))()

    def stream(self, qos):
        sub, pub = self.client("sub"), self.client("pub")
        equal(sub.subscribe(f"{self.prefix}/#", qos).value, qos, "granted")
        for i in range(20):
            pub.publish(f"{self.prefix}/t", f"m{i}", qos)
        pub.publish(f"{self.prefix}/end", "end", qos)
        got = [sub.next() for _ in range(21)]
        equal([m.payload.decode() for m in got], [f"m{i}" for i in range(20)] + ["end"], "payloads")
        equal({m.qos for m in got}, {qos}, "QoS")
        sub.leave(), pub.leave()

    def qos0(self):
        self.stream(0)

    def qos1(self):
        self.stream(1)

    def qos2(self):
        self.stream(2)

    def echo(self, payload=b"hello", **options):
        client = self.client("echo", **options)
        client.subscribe(f"{self.prefix}/t", 1)
        client.publish(f"{self.prefix}/t", payload)
        equal(hashlib.sha256(client.next().payload).digest(), hashlib.sha256(payload).digest(), "payload")
        client.leave()

    def large(self):
        self.echo(payload=os.urandom(1024 * 1024))

    def tls(self):
        self.echo(via="tls")

    def ws(self):
        self.echo(via="ws")

    def wss(self):
        self.echo(via="wss")

    def session(self):
        first = self.client("away", clean=False, expiry_s=60)
        first.subscribe(f"{self.prefix}/t", 1)
        first.leave()
        pub = self.client("pub")
        for i in range(10):
            pub.publish(f"{self.prefix}/t", f"m{i}")
        again = self.client("away", clean=False, expiry_s=60, returns=True)
        equal(again.present, True, "session present")
        equal([again.next().payload.decode() for _ in range(10)], [f"m{i}" for i in range(10)], "payloads")
        again.cut()
        pub.publish(f"{self.prefix}/t", "after")
        while (message := again.next()).payload != b"after":  # it returns by itself
            equal(message.dup, True, "what comes again is marked")
        again.leave()
        fresh = self.client("away", clean=True)
        equal(fresh.present, False, "session present after a clean start")
        fresh.leave(), pub.leave()

    def will(self):
        watcher = self.client("watcher")
        watcher.subscribe(f"{self.prefix}/will", 1)
        self.client("mortal", will=(f"{self.prefix}/will", "gone", 1)).drop()
        equal(watcher.next().payload, b"gone", "will")
        watcher.leave()

    def retained(self):
        topic, pub = f"{self.prefix}/t", self.client("pub")
        pub.publish(topic, "last", retain=True)
        late = self.client("late")
        late.subscribe(f"{self.prefix}/#", 1)
        message = late.next()
        equal((message.payload, message.retain), (b"last", True), "retained")
        pub.publish(topic, b"", retain=True)
        equal((late.next().payload, late.messages.empty()), (b"", True), "removal")
        later = self.client("later")
        later.subscribe(f"{self.prefix}/#", 1)
        pub.publish(f"{self.prefix}/end", "end")
        equal(later.next().payload, b"end", "after the removal")
        late.leave(), later.leave(), pub.leave()

    def shared(self):
        members, pub = [self.client("a"), self.client("b")], self.client("pub")
        for member in members:
            member.subscribe(f"$share/g/{self.prefix}/t", 1)
            member.subscribe(f"{self.prefix}/end", 1)
        for i in range(40):
            pub.publish(f"{self.prefix}/t", f"m{i}")
        pub.publish(f"{self.prefix}/end", "end")
        shares = [[], []]
        for member, share in zip(members, shares):
            while (payload := member.next().payload.decode()) != "end":
                share.append(payload)
        equal(sorted(shares[0] + shares[1]), sorted(f"m{i}" for i in range(40)), "messages of both members")
        equal([bool(share) for share in shares], [True, True], "each member gets some")
        [client.leave() for client in (*members, pub)]

    def alias(self):
        sub = self.client("sub", connect={"TopicAliasMaximum": 10})
        sub.subscribe(f"{self.prefix}/#", 1)
        pub = self.client("pub")
        for i in range(3):
            pub.publish("" if i else f"{self.prefix}/t", f"m{i}", TopicAlias=1)
        got = [sub.next() for _ in range(3)]
        equal([m.payload.decode() for m in got], ["m0", "m1", "m2"], "payloads")
        # paho hands over what the packet holds: a topic with its alias once, then the alias alone.
        topics, known = [], {}
        for message in got:
            alias = getattr(message.properties, "TopicAlias", None)
            topics.append(message.topic or known.get(alias))
            known[alias] = topics[-1]
        equal(topics, [f"{self.prefix}/t"] * 3, "topics")
        equal([message.topic for message in got[1:]], ["", ""], "topics beside an alias")
        sub.leave(), pub.leave()

    def receive_maximum(self):
        away = {"clean": False, "expiry_s": 60, "connect": {"ReceiveMaximum": 2}}
        first = self.client("slow", **away)
        first.subscribe(f"{self.prefix}/t", 1)
        first.leave()
        pub = self.client("pub")
        for i in range(10):
            pub.publish(f"{self.prefix}/t", f"m{i}")
        slow = self.client("slow", manual=True, **away)
        held = [slow.next(), slow.next()]
        try:
            slow.next(timeout=0.3)
            raise AssertionError("a third message came before an acknowledgement")
        except queue.Empty:
            pass
        for i in range(10):
            equal(held[0].payload.decode(), f"m{i}", "payload")
            slow.mqtt.ack(held[0].mid, held[0].qos)
            held = held[1:] + ([slow.next()] if i < 8 else [])
        slow.leave(), self.client("slow").leave(), pub.leave()

    def properties(self):
        client = self.client("client")
        client.subscribe(f"{self.prefix}/t", 1)
        sent = {
            "UserProperty": [("a", "1"), ("b", "2"), ("a", "3")],
            "ContentType": "text/plain",
            "ResponseTopic": "reply/here",
            "CorrelationData": b"\x00\x01",
        }
        client.publish(f"{self.prefix}/t", "x", **sent)
        got = client.next().properties
        equal({name: getattr(got, name) for name in sent}, sent, "properties")
        client.leave()

    def wrong_password(self):
        client = Client(self, "intruder", password="wrong")
        equal(client.reason.value, 134, "reason")  # paho translates the codes of 3.1.1
        client.mqtt.loop_stop()

    def refused_topic(self):
        client = self.client("client")
        equal(client.subscribe("forbidden/t", 1).value, 135 if self.version == 5 else 128, "granted")
        if self.version == 5:
            equal(client.publish("forbidden/t", "x").value, 135, "published")
        client.leave()
        self.echo()


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def main():
    for job in sys.argv[1:]:
        scenario, version = job.split("/")
        try:
            Run(scenario, int(version)).start()
            print(job, "ok", flush=True)
        except Cannot as why:
            print(job, "cannot", why, flush=True)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            print(job, "failed", repr(error).replace("\n", " "), flush=True)
    os._exit(0)


main()
