// The scenarios with github.com/eclipse/paho.mqtt.golang.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"mqlink.dev/e2e/clients/scenarios"
)

type client struct {
	mqtt    mqtt.Client
	socket  net.Conn
	present bool
}

func open(options scenarios.Options) (scenarios.Client, error) {
	env, found := os.Getenv, &client{}
	server := map[string]string{
		"":    "tcp://" + env("MQ_HOST") + ":" + env("MQ_PORT"),
		"tls": "ssl://" + env("MQ_HOST") + ":" + env("MQ_TLS_PORT"),
		"ws":  "ws://" + env("MQ_HOST") + ":" + env("MQ_WS_PORT") + "/mqtt",
		"wss": "wss://" + env("MQ_HOST") + ":" + env("MQ_WSS_PORT") + "/mqtt",
	}[options.Via]
	config := mqtt.NewClientOptions().AddBroker(server).SetClientID(options.ID).SetProtocolVersion(4).
		SetUsername(env("MQ_USER")).SetPassword(options.Password).SetCleanSession(!options.Keep).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(scenarios.Wait)
	if options.Via == "tls" || options.Via == "wss" {
		ca, err := os.ReadFile(env("MQ_CA"))
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		config.SetTLSConfig(&tls.Config{RootCAs: roots})
	}
	if will := options.Will; will != nil {
		config.SetBinaryWill(will.Topic, will.Payload, will.QoS, will.Retain)
		config.SetCustomOpenConnectionFn(func(server *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
			socket, err := net.DialTimeout("tcp", server.Host, scenarios.Wait)
			found.socket = socket
			return socket, err
		})
	}
	config.SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) {
		options.Messages <- scenarios.Message{
			Topic: message.Topic(), Payload: message.Payload(), QoS: message.Qos(), Retain: message.Retained(),
		}
	})
	found.mqtt = mqtt.NewClient(config)
	token := found.mqtt.Connect().(*mqtt.ConnectToken)
	if err := done(token); err != nil {
		if errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) || errors.Is(err, packets.ErrorRefusedNotAuthorised) {
			return nil, scenarios.Refused(token.ReturnCode())
		}
		return nil, err
	}
	found.present = token.SessionPresent()
	return found, nil
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(scenarios.Wait) {
		return errors.New("no answer in time")
	}
	return token.Error()
}

func (c *client) Present() bool { return c.present }

func (c *client) Subscribe(filter string, qos byte) (byte, error) {
	token := c.mqtt.Subscribe(filter, qos, nil).(*mqtt.SubscribeToken)
	err := done(token)
	// The library names what it asked for without `$share` and group.
	for _, granted := range token.Result() {
		return granted, nil
	}
	return 0, fmt.Errorf("no SUBACK: %w", err)
}

func (c *client) Publish(message scenarios.Message) (byte, error) {
	return 0, done(c.mqtt.Publish(message.Topic, message.QoS, message.Retain, message.Payload))
}

func (c *client) Leave() { c.mqtt.Disconnect(uint(50 * time.Millisecond / time.Millisecond)) }

func (c *client) Drop() { _ = c.socket.Close() }

func main() {
	scenarios.Main(scenarios.Library{Name: "paho-go", Versions: []int{4}, Open: open})
}
