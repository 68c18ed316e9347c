"""Drives one paho-mqtt connection by JSON lines: commands on standard input, events on standard output."""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

NAMES = {
    "contentType": "ContentType",
    "responseTopic": "ResponseTopic",
    "correlationData": "CorrelationData",
    "expiryS": "MessageExpiryInterval",
    "payloadFormat": "PayloadFormatIndicator",
    "user": "UserProperty",
}


def say(event, **fields):
    try:
        print(json.dumps({"event": event, **fields}), flush=True)
    except BrokenPipeError:
        pass  # the test has heard enough


def to_properties(given, kind):
    properties = Properties(kind)
    for name, value in given.items():
        if name == "user":
            for pair in value:
                properties.UserProperty = tuple(pair)
        else:
            setattr(properties, NAMES[name], value.encode() if name == "correlationData" else value)
    return properties


def from_properties(properties):
    found = {}
    for name, theirs in NAMES.items():
        value = getattr(properties, theirs, None) if properties else None
        if value is not None:
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def on_message(client, userdata, message):
    say(
        "message",
        topic=message.topic,
        payload=message.payload.decode(),
        qos=message.qos,
        retain=message.retain,
        properties=from_properties(getattr(message, "properties", None)),
    )


def connect(command):
    v5 = command["v5"]
    options = {} if v5 else {"clean_session": True}
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=command["clientId"],
        protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
        transport="websockets" if command["path"] else "tcp",
        reconnect_on_failure=False,
        **options,
    )
    client.max_inflight_messages_set(100)
    if command["login"]:
        client.username_pw_set(*command["login"])
    if command["path"]:
        client.ws_set_options(path=command["path"])
    if command["ca"]:
        certificate, key = command["certificate"] or (None, None)
        client.tls_set(ca_certs=command["ca"], certfile=certificate, keyfile=key)
    if will := command["will"]:
        properties = to_properties(will["properties"], PacketTypes.WILLMESSAGE) if v5 else None
        client.will_set(will["topic"], will["payload"], will["qos"], will["retain"], properties)
    client.on_message = on_message
    client.on_connect = lambda c, u, f, reason, p: say("connected", code=reason.value)
    client.on_disconnect = lambda c, u, f, reason, p: say("gone", why=str(reason), code=reason.value)
    client.on_subscribe = lambda c, u, mid, reasons, p: say("subscribed", code=reasons[0].value)
    client.on_unsubscribe = lambda c, u, mid, reasons, p: say("unsubscribed")
    client.on_publish = lambda c, u, mid, reason, p: say("published", mid=mid, code=reason.value)
    client.connect("localhost" if command["ca"] else "127.0.0.1", command["port"], keepalive=30)
    client.loop_start()
    return client, v5


def main():
    client, v5 = connect(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "subscribe":
            client.subscribe(command["filter"], command["qos"])
        elif command["do"] == "unsubscribe":
            client.unsubscribe(command["filter"])
        elif command["do"] == "publish":
            properties = to_properties(command["properties"], PacketTypes.PUBLISH) if v5 else None
            client.publish(command["topic"], command["payload"], command["qos"], command["retain"], properties)
    client.disconnect()
    client.loop_stop()


main()
