"""The scenarios with mosquitto_pub and mosquitto_sub. How programs are called and answer: ../run.py."""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback

ENV = os.environ
WAIT_S = 10
# What marks a message among what mosquitto_sub says of itself.
MARK = "MESSAGE "


class Cannot(Exception):
    """The programs have no way to do this."""


class Sub:
    """A mosquitto_sub that is subscribed; its messages are (QoS, retain, topic, payload)."""

    def __init__(self, run, role, *args, count=None, form="%q %r %t %p"):
        more = ["-C", str(count)] if count else []
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-d", *run.options(role), "-F", MARK + form, *more, *args],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.messages, self.said = queue.Queue(), queue.Queue()
        self.all_said = []
        threading.Thread(target=self.read, daemon=True).start()
        run.processes.append(self.process)
        self.granted = int(self.hear("Subscribed").rsplit(" ", 1)[1])

    def read(self):
        for line in self.process.stdout:
            (self.messages if line.startswith(MARK) else self.said).put(line.removeprefix(MARK).rstrip("\n"))
        self.said.put(None)

    def hear(self, word):
        while (line := self.said.get(timeout=WAIT_S)) is not None:
            self.all_said.append(line)
            if line.startswith(word):
                return line
        raise AssertionError(f"mosquitto_sub did not say {word!r}: {self.all_said}")

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def texts(self, count):
        return [self.next().split(" ", 3)[3] for _ in range(count)]

    def leave(self):
        self.process.terminate()
        self.process.wait(timeout=WAIT_S)


class Run:
    """One scenario under one version of the protocol."""

    def __init__(self, scenario, version):
        self.scenario, self.version, self.processes = scenario, version, []
        self.prefix = f"mosquitto/{version}/{scenario}"
        self.topic, self.all, self.end = f"{self.prefix}/t", f"{self.prefix}/#", f"{self.prefix}/end"

    def options(self, role, password=None, port="MQ_PORT"):
        identifier = f"{self.prefix}-{role}".replace("/", "-")
        return ["-h", ENV["MQ_HOST"], "-p", ENV[port], "-u", ENV["MQ_USER"], "-P", password or ENV["MQ_PASSWORD"],
                "-i", identifier, "-V", "5" if self.version == 5 else "311"]

    def publish(self, *args, check=True, stdin=None, **options):
        done = subprocess.run(["mosquitto_pub", *self.options("pub", **options), *args], input=stdin,
                              capture_output=True, text=True, timeout=WAIT_S)
        equal(done.returncode == 0 or not check, True, f"exit code {done.returncode}, {done.stderr!r}: 0")
        return done

    def send(self, topic, *texts, args=()):
        self.publish("-t", topic, "-q", "1", "-l", *args, stdin="".join(text + "\n" for text in texts))

    def stream(self, qos):
        sub = Sub(self, "sub", "-t", self.all, "-q", str(qos))
        equal(sub.granted, qos, "granted")
        self.publish("-t", self.topic, "-q", str(qos), "-l", stdin="".join(f"m{i}\n" for i in range(20)))
        self.publish("-t", self.end, "-q", str(qos), "-m", "end")
        got = [sub.next() for _ in range(21)]
        wanted = [f"{qos} 0 {self.topic} m{i}" for i in range(20)] + [f"{qos} 0 {self.end} end"]
        equal(got, wanted, "messages")

    def qos0(self):
        self.stream(0)

    def qos1(self):
        self.stream(1)

    def qos2(self):
        self.stream(2)

    def large(self):
        sub = Sub(self, "sub", "-t", self.topic, "-q", "1")
        with tempfile.NamedTemporaryFile("w") as file:
            text = "x" * 1024 * 1023 + "y" * 1024
            file.write(text), file.flush()
            self.publish("-t", self.topic, "-q", "1", "-f", file.name)
        equal(sub.texts(1)[0] == text, True, "the same payload")

    def session(self):
        away = ["-c", "-t", self.topic, "-q", "1"] + (["-x", "60"] if self.version == 5 else [])
        Sub(self, "away", *away).leave()
        self.send(self.topic, *(f"m{i}" for i in range(10)))
        again = Sub(self, "away", *away)
        equal(again.texts(10), [f"m{i}" for i in range(10)], "payloads")
        again.leave()
        fresh = Sub(self, "away", "-t", self.end, "-q", "1")
        self.send(self.topic, "for nobody")
        self.send(self.end, "end")
        equal(fresh.texts(1), ["end"], "after a clean start")

    def will(self):
        watcher = Sub(self, "watcher", "-t", f"{self.prefix}/will", "-q", "1")
        mortal = Sub(self, "mortal", "-t", self.topic, "--will-topic", f"{self.prefix}/will", "--will-payload", "gone",
                     "--will-qos", "1")
        mortal.process.kill()
        equal(watcher.texts(1), ["gone"], "will")

    def retained(self):
        self.publish("-t", self.topic, "-q", "1", "-r", "-m", "last")
        equal(Sub(self, "late", "-t", self.all, "-q", "1").next(), f"1 1 {self.topic} last", "retained")
        self.publish("-t", self.topic, "-q", "1", "-r", "-n")
        later = Sub(self, "later", "-t", self.all, "-q", "1")
        self.send(self.end, "end")
        equal(later.texts(1), ["end"], "after the removal")

    def shared(self):
        members = [Sub(self, role, "-t", f"$share/g/{self.topic}", "-t", self.end, "-q", "1") for role in "ab"]
        self.send(self.topic, *(f"m{i}" for i in range(40)))
        self.send(self.end, "end")
        shares = [[], []]
        for member, share in zip(members, shares):
            while (text := member.texts(1)[0]) != "end":
                share.append(text)
        equal(sorted(shares[0] + shares[1]), sorted(f"m{i}" for i in range(40)), "messages of both members")
        equal([bool(share) for share in shares], [True, True], "each member gets some")

    def alias(self):
        # mosquitto_pub sends the topic once, then the alias alone; mosquitto_sub takes no aliases.
        sub = Sub(self, "sub", "-t", self.all, "-q", "1")
        self.send(self.topic, "m0", "m1", "m2", args=["-D", "publish", "topic-alias", "1"])
        equal([sub.next() for _ in range(3)], [f"1 0 {self.topic} m{i}" for i in range(3)], "messages")
        return "takes no aliases of the broker's"

    def receive_maximum(self):
        # mosquitto_sub acknowledges by itself: only that nothing stalls can be seen.
        away = ["-c", "-x", "60", "-t", self.topic, "-q", "1", "-D", "connect", "receive-maximum", "2"]
        Sub(self, "slow", *away).leave()
        self.send(self.topic, *(f"m{i}" for i in range(10)))
        equal(Sub(self, "slow", *away).texts(10), [f"m{i}" for i in range(10)], "payloads")
        return "acknowledges by itself: only that nothing stalls can be seen"

    def properties(self):
        sub = Sub(self, "sub", "-t", self.topic, "-q", "1", form="%P|%C|%R|%D|%p")
        pairs = [("a", "1"), ("b", "2"), ("a", "3")]
        args = [word for name, value in pairs for word in ("-D", "publish", "user-property", name, value)]
        for name, value in [("content-type", "text/plain"), ("response-topic", "reply/here"), ("correlation-data", "01")]:
            args += ["-D", "publish", name, value]
        self.publish("-t", self.topic, "-q", "1", "-m", "x", *args)
        equal(sub.next(), "a:1 b:2 a:3|text/plain|reply/here|01|x", "properties")

    def tls(self):
        secure = ["--cafile", ENV["MQ_CA"], "-p", ENV["MQ_TLS_PORT"]]
        sub = Sub(self, "sub", "-t", self.topic, "-q", "1", *secure)
        self.publish("-t", self.topic, "-q", "1", "-m", "hello", *secure)
        equal(sub.texts(1), ["hello"], "payload")

    def ws(self):
        raise Cannot("mosquitto's programs have no WebSocket before 2.1")

    def wss(self):
        self.ws()

    def wrong_password(self):
        done = self.publish("-t", self.topic, "-m", "x", check=False, password="wrong")
        wanted = "bad user name or password"
        equal(done.returncode != 0 and wanted in done.stderr.lower(), True, f"{done.stderr!r} says {wanted!r}")

    def refused_topic(self):
        equal(Sub(self, "sub", "-t", "forbidden/t", "-q", "1").granted, 135 if self.version == 5 else 128, "granted")
        if self.version == 5:
            done = self.publish("-t", "forbidden/t", "-q", "1", "-m", "x", check=False)
            equal("not authorized" in done.stderr.lower(), True, f"{done.stderr!r} says so")
        sub = Sub(self, "sub", "-t", self.topic)
        self.send(self.topic, "hello")
        equal(sub.texts(1), ["hello"], "payload")


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def main():
    for job in sys.argv[1:]:
        scenario, version = job.split("/")
        run = Run(scenario, int(version))
        try:
            unseen = getattr(run, scenario.replace("-", "_"))()
            print(job, f"ok partly {unseen}" if unseen else "ok", flush=True)
        except Cannot as why:
            print(job, "cannot", why, flush=True)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            print(job, "failed", repr(error).replace("\n", " "), flush=True)
        for process in run.processes:
            process.kill()


main()
