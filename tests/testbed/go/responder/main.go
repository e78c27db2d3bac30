// SPDX-License-Identifier: Apache-2.0

// The one program in the containers of the lab's real nodes.
//
//	responder pause                    wait to be ended; reap what is left behind
//	responder serve [-linger D] PORT[/udp]...   answer on these ports with the pod's name
//	responder connect [flags] HOST:PORT         ask, and print the answers
//	responder get HOST:PORT PATH       print what an HTTP server says
//	responder true                     succeed, for probes that run a command
//
// On a TCP port whoever sends a line gets one, an HTTP request gets a response, and the health
// service of gRPC is there too: a port needs no kind. Answers say who answers and whom it sees.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "pause":
		pause()
	case "serve":
		serve(arguments)
	case "connect":
		connect(arguments)
	case "get":
		get(arguments)
	case "true":
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "responder: pause | serve [-linger D] PORT[/udp]... | connect [flags] HOST:PORT | get HOST:PORT PATH | true")
	os.Exit(2)
}

func failed(err error) {
	fmt.Fprintf(os.Stderr, "responder: %v\n", err)
	os.Exit(1)
}

func pause() {
	// The first process of a pod is the parent of whatever others leave behind.
	signal.Ignore(syscall.SIGCHLD)
	<-ended()
}

func ended() chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}
