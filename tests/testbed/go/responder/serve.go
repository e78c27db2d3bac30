// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	grpcServing = "\x00\x00\x00\x00\x02\x08\x01" // a frame of two bytes: HealthCheckResponse{SERVING}
	lineSeconds = 60 * time.Second
	// Exists while the pod wants to be found not ready.
	unready = "/tmp/unready"
)

// How many datagrams came, whatever port.
var datagrams atomic.Int64

func serve(arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	linger := flags.Duration("linger", 0, "go on for so long when told to end")
	flags.Parse(arguments)
	name, _ := os.Hostname()
	for _, port := range flags.Args() {
		number, protocol, _ := strings.Cut(port, "/")
		if protocol == "udp" {
			serveUDP(name, number)
		} else {
			serveTCP(name, number)
		}
	}
	<-ended()
	time.Sleep(*linger)
}

func serveUDP(name, port string) {
	socket, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		failed(err)
	}
	go func() {
		buffer := make([]byte, 65536)
		for {
			_, from, err := socket.ReadFrom(buffer)
			if err != nil {
				failed(err)
			}
			datagrams.Add(1)
			socket.WriteTo([]byte(greeting(name, from)), from)
		}
	}()
}

func greeting(name string, from net.Addr) string {
	return fmt.Sprintf("%s sees %s\n", name, from)
}

func serveTCP(name, port string) {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		failed(err)
	}
	requests := &handed{listener.Addr(), make(chan net.Conn)}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: answers(name), Protocols: &protocols}
	go server.Serve(requests)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				failed(err)
			}
			go take(name, connection, requests)
		}
	}()
}

// take finds out by the first word what a connection speaks.
func take(name string, connection net.Conn, requests *handed) {
	connection.SetReadDeadline(time.Now().Add(lineSeconds))
	reader := bufio.NewReader(connection)
	first, err := reader.Peek(4)
	if err != nil && len(first) == 0 {
		connection.Close()
		return
	}
	connection.SetReadDeadline(time.Time{})
	switch string(first) {
	case "GET ", "HEAD", "POST", "PUT ", "PRI ":
		requests.connections <- &peeked{connection, reader}
		return
	}
	defer connection.Close()
	for {
		if _, err := reader.ReadString('\n'); err != nil {
			return
		}
		io.WriteString(connection, greeting(name, connection.RemoteAddr()))
	}
}

func answers(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			io.WriteString(w, grpcServing)
			w.Header().Set("Grpc-Status", "0")
			return
		}
		if r.URL.Path == "/datagrams" {
			fmt.Fprintln(w, datagrams.Load())
			return
		}
		if _, err := os.Stat(unready); err == nil && r.URL.Path == "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "%s sees %s\n", name, r.RemoteAddr)
	})
}

// handed is a listener of connections that somebody else has accepted.
type handed struct {
	address     net.Addr
	connections chan net.Conn
}

func (h *handed) Accept() (net.Conn, error) { return <-h.connections, nil }
func (h *handed) Close() error              { return nil }
func (h *handed) Addr() net.Addr            { return h.address }

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	reader *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.reader.Read(b) }
