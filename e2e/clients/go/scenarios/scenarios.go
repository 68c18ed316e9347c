// Package scenarios has the scenarios for the Go clients. How programs are called and answer: ../../run.py.
package scenarios

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Wait is the longest that anything may take.
const Wait = 10 * time.Second

// Message is one that came, or one to send.
type Message struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties *Properties
	// Ack acknowledges it, where Options.Hold was asked for.
	Ack func()
}

// Properties are those of MQTT 5.
type Properties struct {
	Alias       uint16
	User        [][2]string
	ContentType string
	Response    string
	Correlation []byte
}

// Options are what a connection begins with.
type Options struct {
	ID             string
	Version        int
	Keep           bool // the session: no clean start, and an expiry of a minute
	Via            string
	Will           *Message
	Password       string
	ReceiveMaximum uint16
	AliasMaximum   uint16
	Hold           bool // acknowledgements
	Messages       chan Message
}

// Client is one connection.
type Client interface {
	// Present tells whether the broker had the session.
	Present() bool
	// Subscribe returns the granted QoS or the reason code.
	Subscribe(filter string, qos byte) (byte, error)
	// Publish returns the reason code, 0 where there is none.
	Publish(message Message) (byte, error)
	Leave()
	// Drop ends the connection as a cable that is cut.
	Drop()
}

// Library is what runs the scenarios.
type Library struct {
	Name string
	// Versions it speaks.
	Versions []int
	// Open connects; a refusal is a Refused.
	Open func(Options) (Client, error)
	// Lacks says of a scenario why the library cannot do it, if so.
	Lacks map[string]string
}

// Refused is a CONNACK with a reason code.
type Refused byte

func (code Refused) Error() string { return fmt.Sprintf("refused with %d", byte(code)) }

type run struct {
	library Library
	version int
	prefix  string
	topic   string
	open    []Client
}

// failure carries what is wrong through panic to the job's end.
type failure string

func equal(got, wanted any, what string) {
	if !reflect.DeepEqual(got, wanted) {
		panic(failure(fmt.Sprintf("%s: got %v, wanted %v", what, got, wanted)))
	}
}

type member struct {
	Client
	messages chan Message
}

func (r *run) client(role string, options Options) member {
	client, err := r.connect(role, options)
	if err != nil {
		panic(failure("connect: " + err.Error()))
	}
	return client
}

func (r *run) connect(role string, options Options) (member, error) {
	options.ID = strings.ReplaceAll(r.prefix+"-"+role, "/", "-")
	options.Version = r.version
	options.Messages = make(chan Message, 100)
	if options.Password == "" {
		options.Password = os.Getenv("MQ_PASSWORD")
	}
	client, err := r.library.Open(options)
	if err == nil {
		r.open = append(r.open, client)
	}
	return member{client, options.Messages}, err
}

func (m member) next() Message {
	select {
	case message := <-m.messages:
		return message
	case <-time.After(Wait):
		panic(failure("no message in time"))
	}
}

func (m member) texts(count int) (texts []string) {
	for range count {
		texts = append(texts, string(m.next().Payload))
	}
	return texts
}

func (m member) subscribe(filter string, qos byte) byte {
	granted, err := m.Subscribe(filter, qos)
	if err != nil {
		panic(failure("subscribe: " + err.Error()))
	}
	return granted
}

func (m member) publish(message Message) byte {
	code, err := m.Publish(message)
	if err != nil {
		panic(failure("publish: " + err.Error()))
	}
	return code
}

func (m member) send(topic, text string) {
	m.publish(Message{Topic: topic, Payload: []byte(text), QoS: 1})
}

func numbered(count int) (texts []string) {
	for i := range count {
		texts = append(texts, "m"+strconv.Itoa(i))
	}
	return texts
}

func (r *run) stream(qos byte) {
	sub, pub := r.client("sub", Options{}), r.client("pub", Options{})
	equal(sub.subscribe(r.prefix+"/#", qos), qos, "granted")
	for _, text := range numbered(20) {
		pub.publish(Message{Topic: r.topic, Payload: []byte(text), QoS: qos})
	}
	pub.publish(Message{Topic: r.prefix + "/end", Payload: []byte("end"), QoS: qos})
	for _, text := range append(numbered(20), "end") {
		message := sub.next()
		equal(string(message.Payload), text, "payload")
		equal(message.QoS, qos, "QoS")
	}
}

func (r *run) echo(payload []byte, options Options) {
	client := r.client("echo", options)
	client.subscribe(r.topic, 1)
	client.publish(Message{Topic: r.topic, Payload: payload, QoS: 1})
	equal(bytes.Equal(client.next().Payload, payload), true, "the same payload")
}

var scenarios = map[string]func(*run){
	"qos0": func(r *run) { r.stream(0) },
	"qos1": func(r *run) { r.stream(1) },
	"qos2": func(r *run) { r.stream(2) },
	"large": func(r *run) {
		payload := make([]byte, 1024*1024)
		_, _ = rand.Read(payload)
		r.echo(payload, Options{})
	},
	"tls": func(r *run) { r.echo([]byte("hello"), Options{Via: "tls"}) },
	"ws":  func(r *run) { r.echo([]byte("hello"), Options{Via: "ws"}) },
	"wss": func(r *run) { r.echo([]byte("hello"), Options{Via: "wss"}) },

	"session": func(r *run) {
		first := r.client("away", Options{Keep: true})
		first.subscribe(r.topic, 1)
		first.Leave()
		pub := r.client("pub", Options{})
		for _, text := range numbered(10) {
			pub.send(r.topic, text)
		}
		again := r.client("away", Options{Keep: true})
		equal(again.Present(), true, "session present")
		equal(again.texts(10), numbered(10), "payloads")
		if r.version == 5 { // autopaho returns by itself
			again.Drop()
			pub.send(r.topic, "after")
			for string(again.next().Payload) != "after" {
			}
		}
		again.Leave()
		equal(r.client("away", Options{}).Present(), false, "session present after a clean start")
	},

	"will": func(r *run) {
		watcher := r.client("watcher", Options{})
		watcher.subscribe(r.prefix+"/will", 1)
		r.client("mortal", Options{Will: &Message{Topic: r.prefix + "/will", Payload: []byte("gone"), QoS: 1}}).Drop()
		equal(watcher.texts(1), []string{"gone"}, "will")
	},

	"retained": func(r *run) {
		pub, late, later := r.client("pub", Options{}), r.client("late", Options{}), r.client("later", Options{})
		pub.publish(Message{Topic: r.topic, Payload: []byte("last"), QoS: 1, Retain: true})
		late.subscribe(r.prefix+"/#", 1)
		message := late.next()
		equal(string(message.Payload), "last", "retained")
		equal(message.Retain, true, "marked")
		pub.publish(Message{Topic: r.topic, QoS: 1, Retain: true})
		later.subscribe(r.prefix+"/#", 1)
		pub.send(r.prefix+"/end", "end")
		equal(later.texts(1), []string{"end"}, "after the removal")
	},

	"shared": func(r *run) {
		members, pub := []member{r.client("a", Options{}), r.client("b", Options{})}, r.client("pub", Options{})
		for _, member := range members {
			member.subscribe("$share/g/"+r.topic, 1)
			member.subscribe(r.prefix+"/end", 1)
		}
		for _, text := range numbered(40) {
			pub.send(r.topic, text)
		}
		pub.send(r.prefix+"/end", "end")
		var all []string
		for _, member := range members {
			before := len(all)
			for text := member.texts(1)[0]; text != "end"; text = member.texts(1)[0] {
				all = append(all, text)
			}
			equal(len(all) > before, true, "each member gets some")
		}
		wanted := numbered(40)
		slices.Sort(all)
		slices.Sort(wanted)
		equal(all, wanted, "messages of both members")
	},

	"alias": func(r *run) {
		sub, pub := r.client("sub", Options{AliasMaximum: 10}), r.client("pub", Options{})
		sub.subscribe(r.prefix+"/#", 1)
		topic := r.topic
		for _, text := range numbered(3) {
			pub.publish(Message{Topic: topic, Payload: []byte(text), QoS: 1, Properties: &Properties{Alias: 1}})
			topic = ""
		}
		// The library hands over what the packet holds: a topic with its alias once, then the alias alone.
		known := map[uint16]string{}
		for i, text := range numbered(3) {
			message := sub.next()
			equal(string(message.Payload), text, "payload")
			equal(message.Topic == "", i > 0, "an alias alone")
			if message.Topic == "" {
				message.Topic = known[message.Properties.Alias]
			}
			known[message.Properties.Alias] = message.Topic
			equal(message.Topic, r.topic, "topic")
		}
	},

	"receive-maximum": func(r *run) {
		away := Options{Keep: true, ReceiveMaximum: 2}
		first := r.client("slow", away)
		first.subscribe(r.topic, 1)
		first.Leave()
		pub := r.client("pub", Options{})
		for _, text := range numbered(10) {
			pub.send(r.topic, text)
		}
		away.Hold = true
		slow := r.client("slow", away)
		held := []Message{slow.next(), slow.next()}
		select {
		case <-slow.messages:
			panic(failure("a third message came before an acknowledgement"))
		case <-time.After(300 * time.Millisecond):
		}
		for i, text := range numbered(10) {
			equal(string(held[0].Payload), text, "payload")
			held[0].Ack()
			held = held[1:]
			if i < 8 {
				held = append(held, slow.next())
			}
		}
		slow.Leave()
		r.client("slow", Options{})
	},

	"properties": func(r *run) {
		client := r.client("client", Options{})
		client.subscribe(r.topic, 1)
		sent := Properties{
			User:        [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}},
			ContentType: "text/plain",
			Response:    "reply/here",
			Correlation: []byte{0, 1},
		}
		client.publish(Message{Topic: r.topic, Payload: []byte("x"), QoS: 1, Properties: &sent})
		equal(*client.next().Properties, sent, "properties")
	},

	"wrong-password": func(r *run) {
		_, err := r.connect("intruder", Options{Password: "wrong"})
		var refused Refused
		equal(errors.As(err, &refused), true, fmt.Sprintf("a refusal (%v)", err))
		equal(refused, map[int]Refused{4: 4, 5: 134}[r.version], "reason")
	},

	"refused-topic": func(r *run) {
		client := r.client("client", Options{})
		equal(client.subscribe("forbidden/t", 1), map[int]byte{4: 128, 5: 135}[r.version], "granted")
		if r.version == 5 {
			equal(client.publish(Message{Topic: "forbidden/t", Payload: []byte("x"), QoS: 1}), byte(135), "published")
		}
		r.echo([]byte("hello"), Options{})
	},
}

// Main does the jobs that the program was called with.
func Main(library Library) {
	for _, job := range os.Args[1:] {
		fmt.Println(job, do(library, job))
	}
}

func do(library Library, job string) (result string) {
	scenario, text, _ := strings.Cut(job, "/")
	version, _ := strconv.Atoi(text)
	if !slices.Contains(library.Versions, version) {
		return fmt.Sprintf("cannot the library speaks only MQTT %s", map[int]string{4: "5.0", 5: "3.1.1"}[version])
	}
	if why, lacks := library.Lacks[scenario]; lacks {
		return "cannot " + why
	}
	prefix := fmt.Sprintf("%s/%d/%s", library.Name, version, scenario)
	r := &run{library: library, version: version, prefix: prefix, topic: prefix + "/t"}
	defer func() {
		for _, client := range r.open {
			client.Leave()
		}
		if why := recover(); why != nil {
			result = strings.ReplaceAll(fmt.Sprintf("failed %v", why), "\n", " ")
		}
	}()
	scenarios[scenario](r)
	return "ok"
}
