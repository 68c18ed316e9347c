import com.hivemq.client.mqtt.MqttClientSslConfig;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.MqttWebSocketConfig;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3BlockingClient;
import com.hivemq.client.mqtt.mqtt3.Mqtt3Client;
import com.hivemq.client.mqtt.mqtt3.exceptions.Mqtt3ConnAckException;
import com.hivemq.client.mqtt.mqtt3.exceptions.Mqtt3SubAckException;
import com.hivemq.client.mqtt.mqtt3.message.publish.Mqtt3Publish;
import com.hivemq.client.mqtt.mqtt5.Mqtt5BlockingClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5ConnAckException;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5PubAckException;
import com.hivemq.client.mqtt.mqtt5.exceptions.Mqtt5SubAckException;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import java.io.FileInputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.TrustManagerFactory;

/** One connection, whichever version of the protocol it speaks. */
interface Wire {
    long WAIT_S = 10;

    record Message(String topic, byte[] payload, int qos, boolean retain, Properties properties, Runnable ack) {
        static Message of(String topic, String payload) {
            return new Message(topic, payload.getBytes(), 1, false, null, null);
        }

        String text() {
            return new String(payload);
        }
    }

    record Properties(List<String> user, String contentType, String responseTopic, List<Byte> correlation) {}

    /** A negative or refusing answer to CONNECT. */
    final class Refused extends RuntimeException {
        final int code;

        Refused(int code) {
            super("refused with " + code);
            this.code = code;
        }
    }

    final class Options {
        boolean keep;
        String via = "tcp";
        Message will;
        String password = env("MQ_PASSWORD");
        int receiveMaximum;
        int aliasMaximum;
        boolean hold;
    }

    boolean present();

    int subscribe(String filter, int qos);

    int publish(Message message);

    Optional<Message> poll(long millis) throws Exception;

    void leave();

    /** As a cable that is cut. */
    void drop() throws Exception;

    static String env(String name) {
        return System.getenv(name);
    }

    static int port(String via) {
        return Integer.parseInt(env(switch (via) {
            case "tls" -> "MQ_TLS_PORT";
            case "ws" -> "MQ_WS_PORT";
            case "wss" -> "MQ_WSS_PORT";
            default -> "MQ_PORT";
        }));
    }

    static MqttWebSocketConfig webSocket() {
        return MqttWebSocketConfig.builder().serverPath("mqtt").build();
    }

    static MqttClientSslConfig tls() throws Exception {
        var store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var file = new FileInputStream(env("MQ_CA"))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return MqttClientSslConfig.builder().trustManagerFactory(factory).build();
    }

    static boolean isTls(Options options) {
        return options.via.equals("tls") || options.via.equals("wss");
    }

    static boolean isWeb(Options options) {
        return options.via.startsWith("ws");
    }

    static Wire open(int version, String id, Options options) throws Exception {
        return version == 5 ? new Five(id, options) : new Three(id, options);
    }

    /** Stands between client and broker, and can be cut: the library itself always says goodbye. */
    final class Cable {
        final ServerSocket entrance = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
        private volatile Socket inside;
        private volatile Socket outside;

        Cable() throws Exception {
            daemon(() -> {
                try {
                    inside = entrance.accept();
                    outside = new Socket(env("MQ_HOST"), port("tcp"));
                    daemon(() -> pump(inside, outside));
                    pump(outside, inside);
                } catch (Exception gone) {
                    // Whoever waits for something notices.
                }
            });
        }

        private static void daemon(Runnable work) {
            var thread = new Thread(work);
            thread.setDaemon(true);
            thread.start();
        }

        private static void pump(Socket from, Socket to) {
            try {
                from.getInputStream().transferTo(to.getOutputStream());
            } catch (Exception cut) {
                // That is what it is for.
            }
        }

        void cut() throws Exception {
            outside.close();
            inside.close();
            entrance.close();
        }
    }

    final class Five implements Wire {
        private final Mqtt5BlockingClient mqtt;
        private final Mqtt5BlockingClient.Mqtt5Publishes messages;
        private final boolean present;
        private final Cable cable;

        Five(String id, Options options) throws Exception {
            cable = options.will == null ? null : new Cable();
            var builder = Mqtt5Client.builder().identifier(id).serverHost(env("MQ_HOST"))
                .serverPort(cable == null ? port(options.via) : cable.entrance.getLocalPort());
            if (cable != null) builder = builder.serverHost("127.0.0.1");
            if (isTls(options)) builder = builder.sslConfig(tls());
            if (isWeb(options)) builder = builder.webSocketConfig(webSocket());
            mqtt = builder.simpleAuth().username(env("MQ_USER")).password(options.password.getBytes()).applySimpleAuth().buildBlocking();
            messages = mqtt.publishes(MqttGlobalPublishFilter.ALL, options.hold);
            var connect = com.hivemq.client.mqtt.mqtt5.message.connect.Mqtt5Connect.builder().cleanStart(!options.keep)
                .sessionExpiryInterval(options.keep ? 60 : 0);
            if (options.receiveMaximum > 0) connect = connect.restrictions().receiveMaximum(options.receiveMaximum).applyRestrictions();
            if (options.aliasMaximum > 0) connect = connect.restrictions().topicAliasMaximum(options.aliasMaximum)
                .sendTopicAliasMaximum(options.aliasMaximum).applyRestrictions();
            if (options.will != null) connect = connect.willPublish().topic(options.will.topic())
                .payload(options.will.payload()).qos(MqttQos.AT_LEAST_ONCE).applyWillPublish();
            try {
                present = mqtt.connect(connect.build()).isSessionPresent();
            } catch (Mqtt5ConnAckException refused) {
                throw new Refused(refused.getMqttMessage().getReasonCode().getCode());
            }
        }

        public boolean present() {
            return present;
        }

        public int subscribe(String filter, int qos) {
            try {
                return mqtt.subscribeWith().topicFilter(filter).qos(MqttQos.fromCode(qos)).send().getReasonCodes().get(0).getCode();
            } catch (Mqtt5SubAckException refused) {
                return refused.getMqttMessage().getReasonCodes().get(0).getCode();
            }
        }

        public int publish(Message message) {
            var packet = Mqtt5Publish.builder().topic(message.topic()).payload(message.payload())
                .qos(MqttQos.fromCode(message.qos())).retain(message.retain());
            if (message.properties() != null) {
                var given = message.properties();
                var user = packet.userProperties();
                for (String pair : given.user()) user = user.add(pair.split("=")[0], pair.split("=")[1]);
                var correlation = new byte[given.correlation().size()];
                for (int i = 0; i < correlation.length; i++) correlation[i] = given.correlation().get(i);
                packet = user.applyUserProperties().contentType(given.contentType()).responseTopic(given.responseTopic())
                    .correlationData(correlation);
            }
            try {
                mqtt.publish(packet.build());
                return 0;
            } catch (Mqtt5PubAckException refused) {
                return refused.getMqttMessage().getReasonCode().getCode();
            }
        }

        public Optional<Message> poll(long millis) throws Exception {
            return messages.receive(millis, TimeUnit.MILLISECONDS).map(got -> new Message(got.getTopic().toString(),
                got.getPayloadAsBytes(), got.getQos().getCode(), got.isRetain(), properties(got), got::acknowledge));
        }

        private static Properties properties(Mqtt5Publish got) {
            var user = got.getUserProperties().asList().stream().map(pair -> pair.getName() + "=" + pair.getValue()).toList();
            var correlation = new java.util.ArrayList<Byte>();
            got.getCorrelationData().ifPresent(data -> {
                while (data.hasRemaining()) correlation.add(data.get());
            });
            return new Properties(user, got.getContentType().map(Object::toString).orElse(""),
                got.getResponseTopic().map(Object::toString).orElse(""), correlation);
        }

        public void leave() {
            if (mqtt.getState().isConnected()) mqtt.disconnect();
        }

        public void drop() throws Exception {
            cable.cut();
        }
    }

    final class Three implements Wire {
        private final Mqtt3BlockingClient mqtt;
        private final Mqtt3BlockingClient.Mqtt3Publishes messages;
        private final boolean present;
        private final Cable cable;

        Three(String id, Options options) throws Exception {
            cable = options.will == null ? null : new Cable();
            var builder = Mqtt3Client.builder().identifier(id).serverHost(env("MQ_HOST"))
                .serverPort(cable == null ? port(options.via) : cable.entrance.getLocalPort());
            if (cable != null) builder = builder.serverHost("127.0.0.1");
            if (isTls(options)) builder = builder.sslConfig(tls());
            if (isWeb(options)) builder = builder.webSocketConfig(webSocket());
            mqtt = builder.simpleAuth().username(env("MQ_USER")).password(options.password.getBytes()).applySimpleAuth().buildBlocking();
            messages = mqtt.publishes(MqttGlobalPublishFilter.ALL);
            var connect = com.hivemq.client.mqtt.mqtt3.message.connect.Mqtt3Connect.builder().cleanSession(!options.keep);
            if (options.will != null) connect = connect.willPublish().topic(options.will.topic())
                .payload(options.will.payload()).qos(MqttQos.AT_LEAST_ONCE).applyWillPublish();
            try {
                present = mqtt.connect(connect.build()).isSessionPresent();
            } catch (Mqtt3ConnAckException refused) {
                throw new Refused(refused.getMqttMessage().getReturnCode().getCode());
            }
        }

        public boolean present() {
            return present;
        }

        public int subscribe(String filter, int qos) {
            try {
                return mqtt.subscribeWith().topicFilter(filter).qos(MqttQos.fromCode(qos)).send().getReturnCodes().get(0).getCode();
            } catch (Mqtt3SubAckException refused) {
                return refused.getMqttMessage().getReturnCodes().get(0).getCode();
            }
        }

        public int publish(Message message) {
            mqtt.publish(Mqtt3Publish.builder().topic(message.topic()).payload(message.payload())
                .qos(MqttQos.fromCode(message.qos())).retain(message.retain()).build());
            return 0;
        }

        public Optional<Message> poll(long millis) throws Exception {
            return messages.receive(millis, TimeUnit.MILLISECONDS).map(got -> new Message(got.getTopic().toString(),
                got.getPayloadAsBytes(), got.getQos().getCode(), got.isRetain(), null, null));
        }

        public void leave() {
            if (mqtt.getState().isConnected()) mqtt.disconnect();
        }

        public void drop() throws Exception {
            cable.cut();
        }
    }
}
