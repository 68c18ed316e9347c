// The scenarios with github.com/eclipse/paho.golang/autopaho.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"mqlink.dev/e2e/clients/scenarios"
)

type client struct {
	manager *autopaho.ConnectionManager
	present bool
	stop    context.CancelFunc
}

func open(options scenarios.Options) (scenarios.Client, error) {
	env := os.Getenv
	server, err := url.Parse(map[string]string{
		"":    "mqtt://" + env("MQ_HOST") + ":" + env("MQ_PORT"),
		"tls": "mqtts://" + env("MQ_HOST") + ":" + env("MQ_TLS_PORT"),
		"ws":  "ws://" + env("MQ_HOST") + ":" + env("MQ_WS_PORT") + "/mqtt",
		"wss": "wss://" + env("MQ_HOST") + ":" + env("MQ_WSS_PORT") + "/mqtt",
	}[options.Via])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if ca, err := os.ReadFile(env("MQ_CA")); err == nil {
		roots.AppendCertsFromPEM(ca)
	}
	up, refused := make(chan bool, 1), make(chan error, 1)
	config := autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		TlsCfg:                        &tls.Config{RootCAs: roots},
		KeepAlive:                     30,
		CleanStartOnInitialConnection: !options.Keep,
		ConnectUsername:               env("MQ_USER"),
		ConnectPassword:               []byte(options.Password),
		OnConnectionUp:                func(_ *autopaho.ConnectionManager, connack *paho.Connack) { up <- connack.SessionPresent },
		OnConnectionDown:              func() bool { return options.Keep },
		OnConnectError:                func(err error) { refused <- err },
		ConnectPacketBuilder: func(packet *paho.Connect, _ *url.URL) (*paho.Connect, error) {
			if packet.Properties == nil {
				packet.Properties = &paho.ConnectProperties{}
			}
			if options.ReceiveMaximum > 0 {
				packet.Properties.ReceiveMaximum = &options.ReceiveMaximum
			}
			if options.AliasMaximum > 0 {
				packet.Properties.TopicAliasMaximum = &options.AliasMaximum
			}
			return packet, nil
		},
		ClientConfig: paho.ClientConfig{
			ClientID:                   options.ID,
			PacketTimeout:              scenarios.Wait,
			EnableManualAcknowledgment: options.Hold,
			SendAcksInterval:           10 * time.Millisecond,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(got paho.PublishReceived) (bool, error) {
					options.Messages <- message(got)
					return true, nil
				},
			},
		},
	}
	if options.Keep {
		config.SessionExpiryInterval = 60
	}
	if will := options.Will; will != nil {
		config.WillMessage = &paho.WillMessage{Topic: will.Topic, Payload: will.Payload, QoS: will.QoS, Retain: will.Retain}
	}
	ctx, stop := context.WithCancel(context.Background())
	manager, err := autopaho.NewConnection(ctx, config)
	if err != nil {
		stop()
		return nil, err
	}
	select {
	case present := <-up:
		return &client{manager, present, stop}, nil
	case err = <-refused:
	case <-time.After(scenarios.Wait):
		err = errors.New("no CONNACK in time")
	}
	stop()
	var answered *autopaho.ConnackError
	if errors.As(err, &answered) {
		return nil, scenarios.Refused(answered.ReasonCode)
	}
	return nil, err
}

func message(got paho.PublishReceived) scenarios.Message {
	packet, found := got.Packet, &scenarios.Properties{}
	found.ContentType, found.Response, found.Correlation =
		packet.Properties.ContentType, packet.Properties.ResponseTopic, packet.Properties.CorrelationData
	if alias := packet.Properties.TopicAlias; alias != nil {
		found.Alias = *alias
	}
	for _, pair := range packet.Properties.User {
		found.User = append(found.User, [2]string{pair.Key, pair.Value})
	}
	return scenarios.Message{
		Topic: packet.Topic, Payload: packet.Payload, QoS: packet.QoS, Retain: packet.Retain, Properties: found,
		Ack: func() { _ = got.Client.Ack(packet) },
	}
}

func inTime() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), scenarios.Wait)
}

func (c *client) Present() bool { return c.present }

func (c *client) Subscribe(filter string, qos byte) (byte, error) {
	ctx, cancel := inTime()
	defer cancel()
	// An error is also given for a reason code that refuses.
	suback, err := c.manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if suback == nil {
		return 0, err
	}
	return suback.Reasons[0], nil
}

func (c *client) Publish(message scenarios.Message) (byte, error) {
	ctx, cancel := inTime()
	defer cancel()
	packet := &paho.Publish{Topic: message.Topic, Payload: message.Payload, QoS: message.QoS, Retain: message.Retain}
	if given := message.Properties; given != nil {
		packet.Properties = &paho.PublishProperties{
			ContentType: given.ContentType, ResponseTopic: given.Response, CorrelationData: given.Correlation,
		}
		if given.Alias > 0 {
			packet.Properties.TopicAlias = &given.Alias
		}
		for _, pair := range given.User {
			packet.Properties.User.Add(pair[0], pair[1])
		}
	}
	answer, err := c.manager.Publish(ctx, packet)
	if answer == nil {
		return 0, err
	}
	return answer.ReasonCode, nil
}

func (c *client) Leave() {
	ctx, cancel := inTime()
	defer cancel()
	_ = c.manager.Disconnect(ctx)
	c.stop()
}

func (c *client) Drop() { c.manager.TerminateConnectionForTest() }

func main() {
	scenarios.Main(scenarios.Library{Name: "autopaho", Versions: []int{5}, Open: open})
}
