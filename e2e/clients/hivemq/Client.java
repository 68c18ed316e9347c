import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.IntStream;

/** The scenarios with HiveMQ's client. How programs are called and answer: ../run.py. */
public final class Client {
    private interface Scenario {
        void run(Client client) throws Exception;
    }

    private final int version;
    private final String prefix;
    private final String topic;
    private final List<Wire> open = new ArrayList<>();

    private Client(String scenario, int version) {
        this.version = version;
        prefix = "hivemq/" + version + "/" + scenario;
        topic = prefix + "/t";
    }

    private static void equal(Object got, Object wanted, String what) {
        if (!Objects.equals(got, wanted)) throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
    }

    private static List<String> numbered(int count) {
        return IntStream.range(0, count).mapToObj(i -> "m" + i).toList();
    }

    private Wire client(String role, Consumer<Wire.Options> change) throws Exception {
        var options = new Wire.Options();
        change.accept(options);
        var wire = Wire.open(version, (prefix + "-" + role).replace('/', '-'), options);
        open.add(wire);
        return wire;
    }

    private Wire client(String role) throws Exception {
        return client(role, options -> {});
    }

    private static Wire.Message next(Wire wire) throws Exception {
        return wire.poll(Wire.WAIT_S * 1000).orElseThrow(() -> new AssertionError("no message in time"));
    }

    private static List<String> texts(Wire wire, int count) throws Exception {
        var texts = new ArrayList<String>();
        while (texts.size() < count) texts.add(next(wire).text());
        return texts;
    }

    private void stream(int qos) throws Exception {
        var sub = client("sub");
        var pub = client("pub");
        equal(sub.subscribe(prefix + "/#", qos), qos, "granted");
        for (String text : numbered(20)) pub.publish(new Wire.Message(topic, text.getBytes(), qos, false, null, null));
        pub.publish(new Wire.Message(prefix + "/end", "end".getBytes(), qos, false, null, null));
        for (String text : numbered(20)) {
            var message = next(sub);
            equal(message.text(), text, "payload");
            equal(message.qos(), qos, "QoS");
        }
        equal(next(sub).text(), "end", "payload");
    }

    private void echo(byte[] payload, String via) throws Exception {
        var client = client("echo", options -> options.via = via);
        client.subscribe(topic, 1);
        client.publish(new Wire.Message(topic, payload, 1, false, null, null));
        equal(Arrays.equals(next(client).payload(), payload), true, "the same payload");
    }

    private void session() throws Exception {
        var first = client("away", options -> options.keep = true);
        first.subscribe(topic, 1);
        first.leave();
        var pub = client("pub");
        for (String text : numbered(10)) pub.publish(Wire.Message.of(topic, text));
        var again = client("away", options -> options.keep = true);
        equal(again.present(), true, "session present");
        equal(texts(again, 10), numbered(10), "payloads");
        again.leave();
        equal(client("away").present(), false, "session present after a clean start");
    }

    private void will() throws Exception {
        var watcher = client("watcher");
        watcher.subscribe(prefix + "/will", 1);
        client("mortal", options -> options.will = Wire.Message.of(prefix + "/will", "gone")).drop();
        equal(texts(watcher, 1), List.of("gone"), "will");
    }

    private void retained() throws Exception {
        var pub = client("pub");
        var late = client("late");
        var later = client("later");
        pub.publish(new Wire.Message(topic, "last".getBytes(), 1, true, null, null));
        late.subscribe(prefix + "/#", 1);
        var message = next(late);
        equal(message.text(), "last", "retained");
        equal(message.retain(), true, "marked");
        pub.publish(new Wire.Message(topic, new byte[0], 1, true, null, null));
        later.subscribe(prefix + "/#", 1);
        pub.publish(Wire.Message.of(prefix + "/end", "end"));
        equal(texts(later, 1), List.of("end"), "after the removal");
    }

    private void shared() throws Exception {
        var members = List.of(client("a"), client("b"));
        var pub = client("pub");
        for (var member : members) {
            member.subscribe("$share/g/" + topic, 1);
            member.subscribe(prefix + "/end", 1);
        }
        for (String text : numbered(40)) pub.publish(Wire.Message.of(topic, text));
        pub.publish(Wire.Message.of(prefix + "/end", "end"));
        var all = new ArrayList<String>();
        for (var member : members) {
            int before = all.size();
            for (var text = next(member).text(); !text.equals("end"); text = next(member).text()) all.add(text);
            equal(all.size() > before, true, "each member gets some");
        }
        var wanted = new ArrayList<>(numbered(40));
        Collections.sort(wanted);
        Collections.sort(all);
        equal(all, wanted, "messages of both members");
    }

    /** The library chooses, keeps and resolves aliases by itself. */
    private void alias() throws Exception {
        var sub = client("sub", options -> options.aliasMaximum = 10);
        var pub = client("pub", options -> options.aliasMaximum = 10);
        sub.subscribe(prefix + "/#", 1);
        for (String text : numbered(3)) pub.publish(Wire.Message.of(topic, text));
        for (String text : numbered(3)) {
            var message = next(sub);
            equal(message.text(), text, "payload");
            equal(message.topic(), topic, "topic");
        }
    }

    private void receiveMaximum() throws Exception {
        Consumer<Wire.Options> away = options -> {
            options.keep = true;
            options.receiveMaximum = 2;
        };
        var first = client("slow", away);
        first.subscribe(topic, 1);
        first.leave();
        var pub = client("pub");
        for (String text : numbered(10)) pub.publish(Wire.Message.of(topic, text));
        var slow = client("slow", away.andThen(options -> options.hold = true));
        var held = new ArrayList<>(List.of(next(slow), next(slow)));
        equal(slow.poll(300).isPresent(), false, "a third message before an acknowledgement");
        for (int i = 0; i < 10; i++) {
            equal(held.get(0).text(), "m" + i, "payload");
            held.remove(0).ack().run();
            if (i < 8) held.add(next(slow));
        }
        slow.leave();
        client("slow");
    }

    private void properties() throws Exception {
        var client = client("client");
        client.subscribe(topic, 1);
        var sent = new Wire.Properties(List.of("a=1", "b=2", "a=3"), "text/plain", "reply/here", List.of((byte) 0, (byte) 1));
        client.publish(new Wire.Message(topic, "x".getBytes(), 1, false, sent, null));
        equal(next(client).properties(), sent, "properties");
    }

    private void wrongPassword() throws Exception {
        try {
            client("intruder", options -> options.password = "wrong");
        } catch (Wire.Refused refused) {
            equal(refused.code, version == 5 ? 134 : 4, "reason");
            return;
        }
        throw new AssertionError("the client was let in");
    }

    private void refusedTopic() throws Exception {
        var client = client("client");
        equal(client.subscribe("forbidden/t", 1), version == 5 ? 135 : 128, "granted");
        if (version == 5) equal(client.publish(Wire.Message.of("forbidden/t", "x")), 135, "published");
        echo("hello".getBytes(), "tcp");
    }

    private static byte[] random() {
        var payload = new byte[1024 * 1024];
        new Random().nextBytes(payload);
        return payload;
    }

    private static final Map<String, Scenario> SCENARIOS = Map.ofEntries(
        Map.entry("qos0", client -> client.stream(0)),
        Map.entry("qos1", client -> client.stream(1)),
        Map.entry("qos2", client -> client.stream(2)),
        Map.entry("large", client -> client.echo(random(), "tcp")),
        Map.entry("tls", client -> client.echo("hello".getBytes(), "tls")),
        Map.entry("ws", client -> client.echo("hello".getBytes(), "ws")),
        Map.entry("wss", client -> client.echo("hello".getBytes(), "wss")),
        Map.entry("session", Client::session),
        Map.entry("will", Client::will),
        Map.entry("retained", Client::retained),
        Map.entry("shared", Client::shared),
        Map.entry("alias", Client::alias),
        Map.entry("receive-maximum", Client::receiveMaximum),
        Map.entry("properties", Client::properties),
        Map.entry("wrong-password", Client::wrongPassword),
        Map.entry("refused-topic", Client::refusedTopic));

    public static void main(String[] jobs) {
        for (String job : jobs) {
            var scenario = job.split("/")[0];
            var client = new Client(scenario, Integer.parseInt(job.split("/")[1]));
            String result;
            try {
                SCENARIOS.get(scenario).run(client);
                result = scenario.equals("alias") ? "ok partly resolves aliases by itself: which are used cannot be seen" : "ok";
            } catch (Throwable why) {
                why.printStackTrace();
                result = "failed " + String.valueOf(why).replace('\n', ' ');
            }
            for (var wire : client.open) {
                try {
                    wire.leave();
                } catch (RuntimeException gone) {
                    // It is what a cable that was cut comes to.
                }
            }
            System.out.println(job + " " + result);
        }
        System.exit(0);
    }
}
